package host

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

// ServerTLS returns the service's TLS configuration for a certificate.
func ServerTLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
}

// LoadCertificate reads a certificate chain and its key from PEM files.
func LoadCertificate(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return cert, nil
}

// SelfSigned makes an ECC P-256 certificate that clients pin by its Fingerprint. It
// is valid for a year from an hour before now, for DNS names and IP addresses.
func SelfSigned(now time.Time, names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "deepattest host service"},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// Fingerprint is the SHA-256 of a certificate (DER) as 64 lower-case hexadecimal
// digits.
func Fingerprint(der []byte) string {
	d := sha256.Sum256(der)
	return hex.EncodeToString(d[:])
}

// parseFingerprint reads a fingerprint as Fingerprint or openssl print it.
func parseFingerprint(text string) ([]byte, error) {
	d, err := hex.DecodeString(strings.ReplaceAll(strings.TrimPrefix(text, "sha256:"), ":", ""))
	if err != nil || len(d) != sha256.Size {
		return nil, fmt.Errorf("certificate fingerprint %.80q: want 64 hexadecimal digits, as `deepattest host serve` prints", text)
	}
	return d, nil
}

// clientTLS trusts one certificate by its fingerprint, or what a root certifies
// for the address.
func clientTLS(o Options) (*tls.Config, error) {
	c := &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	if o.Fingerprint == "" {
		return c, nil
	}
	if o.RootCAs != nil {
		return nil, errors.New("host service: give a CA or a fingerprint, not both")
	}
	want, err := parseFingerprint(o.Fingerprint)
	if err != nil {
		return nil, err
	}
	// The pinned certificate replaces every check of path and name; the handshake
	// still proves possession of its key.
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(s tls.ConnectionState) error {
		got := sha256.Sum256(s.PeerCertificates[0].Raw)
		if subtle.ConstantTimeCompare(got[:], want) != 1 {
			return fmt.Errorf("certificate has fingerprint %x, want %x", got, want)
		}
		return nil
	}
	return c, nil
}
