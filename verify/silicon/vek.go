package silicon

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	"github.com/deepattest/deepattest/quote/sevsnp"
)

// vek is what AMD certifies in the extensions of a VCEK or VLEK certificate.
type vek struct {
	product  string
	tcb      sevsnp.Parts
	hwID     []byte // VCEK
	provider string // VLEK
}

// amd is the arc of AMD's extensions (KDS, table "VCEK certificate extensions").
var amd = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}

// Arcs under it.
const (
	arcProduct  = "2"
	arcHWID     = "4"
	arcProvider = "5"
)

// parseVEK reads the extensions. Each is there at most once, which x509 sees to.
func parseVEK(c *x509.Certificate, key sevsnp.SigningKey) (*vek, error) {
	values := make(map[string][]byte)
	for _, x := range c.Extensions {
		if len(x.Id) <= len(amd) || !x.Id[:len(amd)].Equal(amd) {
			continue
		}
		values[strings.TrimPrefix(x.Id.String(), amd.String()+".")] = x.Value
	}
	v := &vek{}
	var reserved [4]uint8
	for _, f := range []struct {
		arc, name string
		into      *uint8
		optional  bool // in generations that do not have the part
	}{
		{"3.1", "blSPL", &v.tcb.BootLoader, false}, {"3.2", "teeSPL", &v.tcb.TEE, false}, {"3.3", "snpSPL", &v.tcb.SNP, false},
		{"3.4", "spl4", &reserved[0], true}, {"3.5", "spl5", &reserved[1], true}, {"3.6", "spl6", &reserved[2], true}, {"3.7", "spl7", &reserved[3], true},
		{"3.8", "ucodeSPL", &v.tcb.Microcode, false}, {"3.9", "fmcSPL", &v.tcb.FMC, true},
	} {
		der, ok := values[f.arc]
		if !ok && f.optional {
			continue
		}
		var n int
		if rest, err := asn1.Unmarshal(der, &n); err != nil || len(rest) > 0 || n < 0 || n > 255 {
			return nil, fmt.Errorf("%s certificate: extension %s: want an INTEGER of one byte, got %x", key, f.name, der)
		}
		*f.into = uint8(n)
	}
	if reserved != [4]uint8{} {
		return nil, fmt.Errorf("%s certificate: extensions spl4 to spl7 are %v, want zeros: they stand for no part that is known", key, reserved)
	}
	var err error
	if v.product, err = ia5String(values[arcProduct]); err != nil {
		return nil, fmt.Errorf("%s certificate: extension productName: %w", key, err)
	}
	_, hasHWID := values[arcHWID]
	_, hasProvider := values[arcProvider]
	switch {
	case key == sevsnp.VCEK && hasHWID && !hasProvider:
		v.hwID, err = hwID(values[arcHWID])
	case key == sevsnp.VLEK && hasProvider && !hasHWID:
		v.provider, err = ia5String(values[arcProvider])
	default:
		err = errors.New("want extension hwID in a VCEK's and cspID in a VLEK's, and not the other")
	}
	if err != nil {
		return nil, fmt.Errorf("%s certificate: %w", key, err)
	}
	return v, nil
}

// ofLine tells whether the certificate's product is of a generation. Bergamo and
// Siena have Genoa's root.
func (v *vek) ofLine(line sevsnp.Generation) error {
	name, _, _ := strings.Cut(v.product, "-")
	if name == string(line) || line == sevsnp.Genoa && (name == "Bergamo" || name == "Siena") {
		return nil
	}
	return fmt.Errorf("the certificate is of product %.40q, and its root is ARK-%s", v.product, line)
}

// ia5String reads an IA5String and nothing else.
func ia5String(der []byte) (string, error) {
	var v asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &v); err != nil || len(rest) > 0 || v.Class != asn1.ClassUniversal || v.Tag != asn1.TagIA5String || len(v.Bytes) == 0 || len(v.Bytes) > 256 {
		return "", fmt.Errorf("want an IA5String, got %.80x", der)
	}
	return string(v.Bytes), nil
}

// hwID reads the chip's identity: its bytes as they are, or in an OCTET STRING. They
// are 64, and 8 for Turin. A chip's identity is never zeros.
func hwID(der []byte) ([]byte, error) {
	id := der
	if len(der) != 64 && len(der) != 8 {
		if rest, err := asn1.Unmarshal(der, &id); err != nil || len(rest) > 0 {
			return nil, fmt.Errorf("extension hwID: %d bytes, want 64 or 8", len(der))
		}
	}
	if len(id) != 64 && len(id) != 8 || len(bytes.Trim(id, "\x00")) == 0 {
		return nil, fmt.Errorf("extension hwID: %x, want 64 or 8 bytes that are not all zeros", id)
	}
	return id, nil
}
