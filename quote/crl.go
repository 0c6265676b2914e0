package quote

import (
	"crypto/x509"
	"fmt"
)

// ParseCRL reads a certificate revocation list (RFC 5280, section 5): DER of at most
// MaxCRL bytes, with nothing behind it. Nothing in it is checked.
func ParseCRL(der []byte) (*x509.RevocationList, error) {
	if len(der) > MaxCRL {
		return nil, fmt.Errorf("revocation list of %d bytes, at most %d", len(der), MaxCRL)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("revocation list of %d bytes: %w", len(der), err)
	}
	if n := len(list.Raw); n < len(der) {
		return nil, fmt.Errorf("revocation list: byte 0x%02x at offset %d, after it", der[n], n)
	}
	if n := list.Number; n != nil && (n.Sign() < 0 || n.BitLen() > 8*20) { // section 5.2.3
		return nil, fmt.Errorf("revocation list: a number of %d bits, want one of at most 20 octets that is not negative", n.BitLen())
	}
	return list, nil
}
