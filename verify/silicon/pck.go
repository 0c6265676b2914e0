package silicon

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// PCK is what Intel certifies of a platform in a PCK certificate (PCK profile,
// section "SGX Extensions").
type PCK struct {
	PPID   quote.Hex // the platform's identity
	FMSPC  quote.Hex // family, model, stepping, platform, custom SKU
	PCEID  quote.Hex
	CPUSVN quote.Hex
	SVN    [16]uint8 // security version numbers that CPUSVN stands for
	PCESVN uint16
}

// sgx is the arc of the extension and of the values in it.
var sgx = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}

// Arcs in the extension, and in its TCB.
const (
	arcPPID, arcTCB, arcPCEID, arcFMSPC = 1, 2, 3, 4
	arcPCESVN, arcCPUSVN                = 17, 18
)

// sgxValue is one name with its value.
type sgxValue struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue
}

// parsePCK reads the extension. It has each value at most once, and those that this
// package needs.
func parsePCK(c *x509.Certificate) (PCK, error) {
	var p PCK
	at := slices.IndexFunc(c.Extensions, func(x pkix.Extension) bool { return x.Id.Equal(sgx) })
	if at < 0 {
		return p, errors.New("PCK certificate: no SGX extension")
	}
	values, err := sgxValues(c.Extensions[at].Value, sgx)
	if err != nil {
		return p, fmt.Errorf("PCK certificate: SGX extension: %w", err)
	}
	tcb, err := sgxValues(values[arcTCB].FullBytes, append(slices.Clone(sgx), arcTCB))
	if err != nil {
		return p, fmt.Errorf("PCK certificate: SGX extension: TCB: %w", err)
	}
	for _, f := range []struct {
		name string
		in   map[int]asn1.RawValue
		arc  int
		size int
		into *quote.Hex
	}{
		{"PPID", values, arcPPID, 16, &p.PPID}, {"PCEID", values, arcPCEID, 2, &p.PCEID},
		{"FMSPC", values, arcFMSPC, 6, &p.FMSPC}, {"CPUSVN", tcb, arcCPUSVN, 16, &p.CPUSVN},
	} {
		v := f.in[f.arc]
		if v.Class != asn1.ClassUniversal || v.Tag != asn1.TagOctetString || v.IsCompound || len(v.Bytes) != f.size {
			return p, fmt.Errorf("PCK certificate: SGX extension: %s: want an OCTET STRING of %d bytes", f.name, f.size)
		}
		*f.into = v.Bytes
	}
	for i := range p.SVN {
		n, err := integer(tcb[i+1], 255)
		if err != nil {
			return p, fmt.Errorf("PCK certificate: SGX extension: TCB component %d: %w", i+1, err)
		}
		p.SVN[i] = uint8(n)
	}
	n, err := integer(tcb[arcPCESVN], 65535)
	if err != nil {
		return p, fmt.Errorf("PCK certificate: SGX extension: PCESVN: %w", err)
	}
	p.PCESVN = uint16(n)
	return p, nil
}

// sgxValues reads a SEQUENCE of names and values under an arc, by the last number of
// the name.
func sgxValues(der []byte, arc asn1.ObjectIdentifier) (map[int]asn1.RawValue, error) {
	var list []sgxValue
	if rest, err := asn1.Unmarshal(der, &list); err != nil {
		return nil, err
	} else if len(rest) > 0 {
		return nil, errors.New("trailing bytes")
	}
	values := make(map[int]asn1.RawValue, len(list))
	for _, v := range list {
		if len(v.ID) != len(arc)+1 || !v.ID[:len(arc)].Equal(arc) {
			return nil, fmt.Errorf("unknown name %s", v.ID)
		}
		last := v.ID[len(arc)]
		if _, ok := values[last]; ok {
			return nil, fmt.Errorf("%s is there twice", v.ID)
		}
		values[last] = v.Value
	}
	return values, nil
}

func integer(v asn1.RawValue, most int) (int, error) {
	var n int
	if rest, err := asn1.Unmarshal(v.FullBytes, &n); err != nil || len(rest) > 0 || n < 0 || n > most {
		return 0, fmt.Errorf("want an INTEGER of 0 to %d", most)
	}
	return n, nil
}
