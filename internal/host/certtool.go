package host

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// CertRequest is what swtpm_setup asks of its create_certs_tool (swtpm_setup.conf(5);
// the command line is that of swtpm_localca(8)).
type CertRequest struct {
	Type         string           // "ek" or "platform"
	EK           crypto.PublicKey // of the vTPM
	Dir          string           // where the certificate goes: ek.cert or platform.cert
	VM           string           // "NAME:UUID", as libvirt gives it
	Manufacturer string           // "id:00001014"
	Model        string
	Version      string
}

// ParseCertRequest reads the arguments that swtpm_setup calls the tool with. It gives
// more than are needed here, such as log and configuration files: those are skipped.
func ParseCertRequest(args []string) (*CertRequest, error) {
	r := &CertRequest{Manufacturer: "id:00001014", Model: "swtpm", Version: "id:00000000"}
	var key string
	into := map[string]*string{
		"--type": &r.Type, "--ek": &key, "--dir": &r.Dir, "--vmid": &r.VM,
		"--tpm-manufacturer": &r.Manufacturer, "--tpm-model": &r.Model, "--tpm-version": &r.Version,
	}
	// Options of swtpm_localca without a value.
	flags := map[string]bool{"--tpm2": true, "--allow-signing": true, "--decryption": true, "--help": true}
	for i := 0; i < len(args); i++ {
		name, value, joined := strings.Cut(args[i], "=")
		if !strings.HasPrefix(name, "--") {
			return nil, fmt.Errorf("certificate tool: argument %q, want an option of swtpm_localca", args[i])
		}
		if flags[name] {
			continue
		}
		if !joined {
			if i++; i == len(args) {
				return nil, fmt.Errorf("certificate tool: %s without a value", name)
			}
			value = args[i]
		}
		if at := into[name]; at != nil {
			*at = value
		}
	}
	if r.Type != "ek" && r.Type != "platform" {
		return nil, fmt.Errorf("certificate tool: --type %q, want ek or platform", r.Type)
	}
	if r.Dir == "" {
		return nil, errors.New("certificate tool: no --dir")
	}
	// The uuid is what ties the vTPM to a VM: a certificate without one is worth
	// nothing.
	name, uuid, _ := strings.Cut(r.VM, ":")
	if _, err := quote.ParseUUID(uuid); err != nil || name == "" {
		return nil, fmt.Errorf("certificate tool: --vmid %q, want NAME:UUID, which libvirt gives; a vTPM without a VM gets no certificate", r.VM)
	}
	var err error
	if r.EK, err = parseEKArgument(key); err != nil {
		return nil, fmt.Errorf("certificate tool: --ek: %w", err)
	}
	return r, nil
}

// parseEKArgument reads an RSA modulus in hexadecimal, or "x=HEX,y=HEX[,id=CURVE]".
func parseEKArgument(text string) (crypto.PublicKey, error) {
	if !strings.Contains(text, "=") {
		n, err := hex.DecodeString(text)
		if err != nil || len(n) < 256 || len(n) > 512 {
			return nil, fmt.Errorf("RSA modulus of %d digits, want 512 to 1024 hexadecimal ones", len(text))
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}, nil
	}
	fields := map[string]string{"id": "secp256r1"}
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(part, "=")
		fields[name] = value
	}
	var curve elliptic.Curve
	switch fields["id"] {
	case "secp256r1":
		curve = elliptic.P256()
	case "secp384r1":
		curve = elliptic.P384()
	case "secp521r1":
		curve = elliptic.P521()
	default:
		return nil, fmt.Errorf("curve %.40q, want secp256r1, secp384r1 or secp521r1", fields["id"])
	}
	size := (curve.Params().BitSize + 7) / 8
	point := make([]byte, 1+2*size)
	point[0] = 4 // uncompressed (SEC 1, section 2.3.3)
	for i, name := range []string{"x", "y"} {
		b, err := hex.DecodeString(fields[name])
		if err != nil || len(b) == 0 || len(b) > size {
			return nil, fmt.Errorf("coordinate %s of %d digits on %s", name, len(fields[name]), fields["id"])
		}
		copy(point[1+(i+1)*size-len(b):], b)
	}
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}

// Object identifiers of TCG (EK Credential Profile 2.5, section 3; Platform Certificate
// Profile 1.1).
func oids() (ek, platform, manufacturer, model, version asn1.ObjectIdentifier) {
	tcg := func(last ...int) asn1.ObjectIdentifier { return append(asn1.ObjectIdentifier{2, 23, 133}, last...) }
	return tcg(8, 1), tcg(8, 2), tcg(2, 1), tcg(2, 2), tcg(2, 3)
}

// Issue makes the certificate with the key in the host's TPM and writes it where
// swtpm_setup looks for it. s is the host's statement. Two TPM commands.
func (r *CertRequest) Issue(ctx context.Context, t *tpm.TPM, s *quote.CAStatement, now time.Time) (err error) {
	ca, done, err := openCA(ctx, t, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done.Close()) }()
	ekUse, platformUse, manufacturer, model, version := oids()
	name, err := asn1.Marshal(pkix.RDNSequence{
		{{Type: manufacturer, Value: r.Manufacturer}}, {{Type: model, Value: r.Model}}, {{Type: version, Value: r.Version}},
	})
	if err != nil {
		return fmt.Errorf("vTPM certificate: %w", err)
	}
	san, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}})
	if err != nil {
		return fmt.Errorf("vTPM certificate: %w", err)
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: r.VM},
		NotBefore: now.Add(-time.Hour), NotAfter: forever(),
		BasicConstraintsValid: true, AuthorityKeyId: keyID(ca.cert.PublicKey),
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{ekUse},
		ExtraExtensions:    []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: san}},
		KeyUsage:           x509.KeyUsageKeyEncipherment,
	}
	if _, ok := r.EK.(*ecdsa.PublicKey); ok {
		template.KeyUsage = x509.KeyUsageKeyAgreement
	}
	if r.Type == "platform" {
		template.UnknownExtKeyUsage = []asn1.ObjectIdentifier{platformUse}
	}
	der, err := issue(template, ca.cert, r.EK, ca.signer)
	if err != nil {
		return fmt.Errorf("vTPM certificate: %w", err)
	}
	return replaceFile(filepath.Join(r.Dir, r.Type+".cert"), der)
}

// replaceFile writes a whole file or none.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path))
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
