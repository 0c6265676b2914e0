package keylime

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Options are a client's. The zero value trusts the system's roots and shows no
// certificate of its own.
type Options struct {
	RootCAs     *x509.CertPool   // who may certify the server; nil: the system's
	Certificate *tls.Certificate // the client's own, for mutual TLS; nil: none
	Timeout     time.Duration    // of one call with its repeats; 0: one minute
	Now         func() time.Time // nil: time.Now
	// Pinned is the DER of the one server certificate that is accepted, in place of
	// RootCAs: a Keylime agent's is self-signed, and the registrar's record holds it.
	Pinned []byte
}

// clientTLS returns the configuration of a connection. An own certificate that is
// out of date is found here: servers close the connection without saying why.
func (o Options) clientTLS() (*tls.Config, error) {
	c := &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, Time: o.Now}
	if o.Certificate != nil {
		if err := o.checkOwn(); err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{*o.Certificate}
	}
	if o.Pinned == nil {
		return c, nil
	}
	if o.RootCAs != nil {
		return nil, errors.New("keylime: give a CA or a pinned certificate, not both")
	}
	// The pinned certificate replaces every check of path and name; the handshake
	// still proves possession of its key.
	want := sha256.Sum256(o.Pinned)
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(s tls.ConnectionState) error {
		got := sha256.Sum256(s.PeerCertificates[0].Raw)
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			return &pinError{got, want}
		}
		return nil
	}
	return c, nil
}

// pinError reports a server with another certificate than the pinned one.
type pinError struct{ got, want [sha256.Size]byte }

func (e *pinError) Error() string {
	return fmt.Sprintf("the server's certificate is %x, and the registrar's record holds %x", e.got, e.want)
}

func (o Options) checkOwn() error {
	if len(o.Certificate.Certificate) == 0 || o.Certificate.PrivateKey == nil {
		return errors.New("keylime: client certificate without a certificate or a key")
	}
	leaf, err := x509.ParseCertificate(o.Certificate.Certificate[0])
	if err != nil {
		return fmt.Errorf("keylime: client certificate: %w", err)
	}
	now := o.now()
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("keylime: the client certificate %q expired on %s; Keylime administrator: issue a new one (keylime_ca -c create)",
			leaf.Subject, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("keylime: the client certificate %q is valid from %s on, and this machine's clock says %s; image owner: set the clock",
			leaf.Subject, leaf.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

func (o Options) now() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
}

// ReadPool reads CA certificates in PEM, such as Keylime's cv_ca/cacert.crt. source
// names them in errors.
func ReadPool(data []byte, source string) (*x509.CertPool, error) {
	pool, found := x509.NewCertPool(), false
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("CA file %s: %w", source, err)
		}
		pool.AddCert(c)
		found = true
	}
	if !found {
		return nil, fmt.Errorf("CA file %s: no PEM certificate; want the verifier's cv_ca/cacert.crt", source)
	}
	return pool, nil
}

// transportHint says who must do what about a request that found no server it
// could talk to.
func transportHint(err error) string {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var remote *net.OpError
	var pin *pinError
	switch {
	case errors.As(err, &pin):
		return "; cloud operator: if the agent was set up anew, register it again, otherwise somebody stands in between"
	case errors.As(err, &unknown):
		return "; wrong CA: tenant: give the CA that certifies this server (Keylime's cv_ca/cacert.crt)"
	case errors.As(err, &name):
		return "; tenant: use the name or address that the server's certificate is for"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "; Keylime administrator: renew the server's certificate; image owner: check this machine's clock"
	case errors.As(err, &remote) && remote.Op == "remote error":
		return alertHint(remote.Err.Error())
	}
	return ""
}

// alertHint explains what a server objects to (RFC 8446, section 6.2). crypto/tls
// gives alerts as text only.
func alertHint(alert string) string {
	switch {
	case strings.Contains(alert, "expired certificate"):
		return "; the server calls the client certificate expired; Keylime administrator: issue a new one, and check the clocks"
	case strings.Contains(alert, "certificate required"):
		return "; the server wants a client certificate; Keylime administrator: issue one from the CA that the server trusts (trusted_client_ca)"
	case strings.Contains(alert, "certificate"):
		return "; the server does not accept the client certificate; Keylime administrator: issue one from the CA that the server trusts (trusted_client_ca)"
	}
	return ""
}
