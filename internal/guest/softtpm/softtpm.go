// Package softtpm is a TPM in software for tests: enough of one to collect
// evidence from, with hooks that slow it down or change its PCRs at a chosen
// moment. It keeps its keys in memory and protects nothing.
package softtpm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// TPM has one EK and one AK, both ECC P-256. Its methods are those of a *tpm.TPM.
type TPM struct {
	// BeforeQuote and AfterQuote are called in every Quote when set.
	BeforeQuote func(context.Context) error
	AfterQuote  func()
	// Certificate is what EKCertificate returns, ErrNoCertificate when nil.
	Certificate []byte

	ekKey, akKey *ecdsa.PrivateKey
	ek           *tpm.EK
	ak           *tpm.AK

	mu     sync.Mutex
	values quote.PCRs
	quotes int
	loaded int
}

// New makes a TPM with fresh keys and SHA-256 PCRs of zeros.
func New() (*TPM, error) {
	t := &TPM{values: quote.PCRs{quote.SHA256: make(map[int]quote.Hex)}}
	for n := range quote.NumPCRs {
		t.values[quote.SHA256][n] = make([]byte, sha256.Size)
	}
	var err error
	if t.ekKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if t.akKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	t.ek = &tpm.EK{Alg: tpm.ECCP256, Public: PublicArea(tpm2.ECCEKTemplate, t.ekKey)}
	t.ak = &tpm.AK{Public: PublicArea(AKTemplate(), t.akKey)}
	t.ek.Name, t.ak.Name = nameOf(t.ek.Public), nameOf(t.ak.Public)
	return t, nil
}

// AKTemplate is the public area of an AK without its point.
func AKTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
	}
}

// PublicArea puts a key's point into a template and returns the TPMT_PUBLIC.
func PublicArea(template tpm2.TPMTPublic, key *ecdsa.PrivateKey) []byte {
	x, y := make([]byte, 32), make([]byte, 32)
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: key.X.FillBytes(x)},
		Y: tpm2.TPM2BECCParameter{Buffer: key.Y.FillBytes(y)},
	})
	return tpm2.Marshal(template)
}

// nameOf panics on a public area that this package did not make.
func nameOf(public []byte) quote.Hex {
	p, err := quote.ParsePublic(public)
	if err != nil {
		panic(err)
	}
	return p.Name()
}

// Extend extends one SHA-256 PCR.
func (t *TPM) Extend(pcr int, digest [sha256.Size]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := sha256.Sum256(append(bytes.Clone(t.values[quote.SHA256][pcr]), digest[:]...))
	t.values[quote.SHA256][pcr] = v[:]
}

// Quotes is the number of quotes made so far.
func (t *TPM) Quotes() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.quotes
}

// Loaded is the number of keys that were loaded and not flushed.
func (t *TPM) Loaded() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.loaded
}

// Info describes the TPM.
func (t *TPM) Info(context.Context) (quote.TPM, error) {
	return quote.TPM{Version: "2.0", Manufacturer: "SOFT", Model: "test", Firmware: "1.0.0.0"}, nil
}

// EK returns the EK, whatever kind is asked for.
func (t *TPM) EK(context.Context, tpm.KeyAlg) (*tpm.EK, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.loaded++
	return t.ek, nil
}

// EKCertificate returns Certificate.
func (t *TPM) EKCertificate(context.Context, *tpm.EK) (tpm.Certificate, error) {
	if t.Certificate == nil {
		return tpm.Certificate{}, tpm.ErrNoCertificate
	}
	return tpm.Certificate{Index: 0x01C0000A, DER: t.Certificate}, nil
}

// CreateAK returns the AK, whatever kind is asked for.
func (t *TPM) CreateAK(context.Context, tpm.KeyAlg) (*tpm.AK, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.loaded++
	return t.ak, nil
}

// Flush counts a key as unloaded.
func (t *TPM) Flush(ctx context.Context, _ tpm.Key) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.loaded--
	return nil
}

// ReadPCRs returns SHA-256 PCRs.
func (t *TPM) ReadPCRs(ctx context.Context, sel quote.Selection) (quote.PCRs, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.read(sel), nil
}

func (t *TPM) read(sel quote.Selection) quote.PCRs {
	values := make(quote.PCRs)
	for _, bank := range sel {
		values[bank.Alg] = make(map[int]quote.Hex)
		for _, n := range bank.PCRs {
			if v, ok := t.values[bank.Alg][n]; ok {
				values[bank.Alg][n] = v
			}
		}
	}
	return values
}

// Quote signs PCRs.
func (t *TPM) Quote(ctx context.Context, ak *tpm.AK, qualifyingData []byte, sel quote.Selection) (quote.Quote, error) {
	if t.BeforeQuote != nil {
		if err := t.BeforeQuote(ctx); err != nil {
			return quote.Quote{}, err
		}
	}
	q, err := t.sign(ak, qualifyingData, sel)
	if err == nil && t.AfterQuote != nil {
		t.AfterQuote()
	}
	return q, err
}

func (t *TPM) sign(ak *tpm.AK, qualifyingData []byte, sel quote.Selection) (quote.Quote, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.quotes++
	d, err := t.read(sel).Digest(quote.SHA256, sel)
	if err != nil {
		return quote.Quote{}, err
	}
	public, err := quote.ParsePublic(ak.Public)
	if err != nil {
		return quote.Quote{}, err
	}
	a := quote.NewQuote(qualifyingData, sel, d)
	a.QualifiedSigner = public.QualifiedPrimary(quote.HierarchyEndorsement)
	raw := a.Marshal()
	h := sha256.Sum256(raw)
	r, s, err := ecdsa.Sign(rand.Reader, t.akKey, h[:])
	if err != nil {
		return quote.Quote{}, err
	}
	sig := &quote.Signature{Scheme: quote.ECDSA, Hash: quote.SHA256, R: r.Bytes(), S: s.Bytes()}
	return quote.Quote{Attest: raw, Signature: sig.Marshal()}, nil
}

// ActivateCredential opens a credential (Part 1, section 24).
func (t *TPM) ActivateCredential(ctx context.Context, ak *tpm.AK, _ *tpm.EK, idObject, encryptedSecret []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	refuse := func(why string) ([]byte, error) { return nil, fmt.Errorf("%w: %s", tpm.ErrCredential, why) }
	point, err := tpm2.Unmarshal[tpm2.TPMSECCPoint](encryptedSecret)
	if err != nil {
		return refuse("no point")
	}
	// Part 1, section C.6.4: the seed is derived from the shared point.
	key, err := t.ekKey.ECDH()
	if err != nil {
		return nil, err
	}
	if len(point.X.Buffer) != 32 || len(point.Y.Buffer) != 32 {
		return refuse("no point of the curve")
	}
	other, err := ecdh.P256().NewPublicKey(bytes.Join([][]byte{{4}, point.X.Buffer, point.Y.Buffer}, nil))
	if err != nil {
		return refuse("no point of the curve")
	}
	z, err := key.ECDH(other)
	if err != nil {
		return refuse("no point of the curve")
	}
	seed := tpm2.KDFe(crypto.SHA256, z, "IDENTITY", point.X.Buffer, key.PublicKey().Bytes()[1:33], 256)
	outer, err := tpm2.Unmarshal[tpm2.TPM2BDigest](idObject)
	if err != nil || len(idObject) < 2+sha256.Size {
		return refuse("no integrity value")
	}
	encIdentity := idObject[2+len(outer.Buffer):]
	mac := hmac.New(sha256.New, tpm2.KDFa(crypto.SHA256, seed, "INTEGRITY", nil, nil, 256))
	mac.Write(encIdentity)
	mac.Write(ak.Name)
	if !hmac.Equal(mac.Sum(nil), outer.Buffer) {
		return refuse("integrity")
	}
	block, err := aes.NewCipher(tpm2.KDFa(crypto.SHA256, seed, "STORAGE", ak.Name, nil, 128))
	if err != nil {
		return nil, err
	}
	secret, err := tpm2.Unmarshal[tpm2.TPM2BDigest](decryptCFB(block.Encrypt, encIdentity))
	if err != nil {
		return refuse("no secret")
	}
	return secret.Buffer, nil
}

// decryptCFB is AES-CFB with an IV of zeros, which TPMs protect credentials with
// (Part 1, section 24.4) and the standard library advises against otherwise.
func decryptCFB(encrypt func(dst, src []byte), data []byte) []byte {
	plain := bytes.Clone(data)
	feedback := make([]byte, aes.BlockSize)
	pad := make([]byte, aes.BlockSize)
	for i, c := range data {
		n := i % aes.BlockSize
		if n == 0 {
			encrypt(pad, feedback)
		}
		plain[i] ^= pad[n]
		feedback[n] = c
	}
	return plain
}
