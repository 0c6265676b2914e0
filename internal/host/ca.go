package host

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// StatementMediaType names the file of a CA statement and its version.
const StatementMediaType = "application/vnd.deepattest.ca-statement.v1+json"

// maxStatement bounds such a file.
const maxStatement = 64 << 10

// forever is the end of validity of certificates that have none (RFC 5280, section
// 4.1.2.5): a vTPM's are in its NV memory for good.
func forever() time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }

// CertifyCA makes the host's certificate authority for vTPMs: a key that never leaves
// the host's TPM, its certificate, and the statement by the host's AK that says so. name
// is for people. The key is the same every time, the certificate is not: keep the
// statement. Four TPM commands.
func CertifyCA(ctx context.Context, t *tpm.TPM, ak *tpm.AK, name string, now time.Time) (s *quote.CAStatement, err error) {
	key, err := t.CreateCAKey(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Flush(ctx, key)) }()
	signer, err := t.Signer(ctx, key)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: forever(),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	cert, err := issue(template, template, signer.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("certificate of the vTPM CA: %w", err)
	}
	q, err := t.Certify(ctx, key, ak, quote.CAQualifier(cert))
	if err != nil {
		return nil, err
	}
	return &quote.CAStatement{Public: key.Public, Certificate: cert, Statement: q}, nil
}

// issue signs a certificate under a random serial number.
func issue(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) ([]byte, error) {
	var err error
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, template, parent, public, key)
}

// statementFile is a CA statement in a file.
type statementFile struct {
	MediaType string            `json:"mediaType"`
	CA        quote.CAStatement `json:"ca"`
}

// EncodeStatement writes the file of a CA statement, which is public.
func EncodeStatement(s *quote.CAStatement) ([]byte, error) {
	out, err := json.Marshal(statementFile{StatementMediaType, *s}, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("CA statement: %w", err)
	}
	return append(out, '\n'), nil
}

// ReadStatement reads what EncodeStatement wrote. Package verify checks what it says.
func ReadStatement(data []byte) (*quote.CAStatement, error) {
	if len(data) > maxStatement {
		return nil, fmt.Errorf("CA statement of %d bytes, at most %d", len(data), maxStatement)
	}
	var f statementFile
	if err := json.Unmarshal(data, &f, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("CA statement: %w", err)
	}
	if f.MediaType != StatementMediaType {
		return nil, fmt.Errorf("CA statement of media type %.80q, want %s; cloud operator: make it with `deepattest host certify-ca`", f.MediaType, StatementMediaType)
	}
	return &f.CA, nil
}

// vtpmCA issues certificates with the key in the host's TPM.
type vtpmCA struct {
	cert   *x509.Certificate
	signer crypto.Signer
}

// openCA loads the key of a statement. A host whose TPM was cleared or exchanged has
// another one.
func openCA(ctx context.Context, t *tpm.TPM, s *quote.CAStatement) (*vtpmCA, io.Closer, error) {
	cert, err := x509.ParseCertificate(s.Certificate)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of the vTPM CA: %w", err)
	}
	key, err := t.CreateCAKey(ctx)
	if err != nil {
		return nil, nil, err
	}
	done := closer(func() error { return t.Flush(context.WithoutCancel(ctx), key) })
	signer, err := t.Signer(ctx, key)
	if err != nil {
		return nil, nil, errors.Join(err, done.Close())
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return nil, nil, errors.Join(fmt.Errorf("the CA key in this TPM (Name %s) is not that of the statement; cloud operator: the TPM was cleared or exchanged: make the statement anew with `deepattest host certify-ca`", key.Name), done.Close())
	}
	return &vtpmCA{cert, signer}, done, nil
}

type closer func() error

func (c closer) Close() error { return c() }

// keyID is the subject key identifier of a key (RFC 7093, section 2, method 1).
func keyID(public crypto.PublicKey) []byte {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil
	}
	d := sha256.Sum256(spki)
	return d[:20]
}
