package quote

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// Tags of a certificate in the NV memory of a TPM 1.2 (TCG PC Client Specific
// Implementation Specification for Conventional BIOS, section 7.3.2).
const (
	tagStoredCert = 0x1001 // TCG_TAG_PCCLIENT_STORED_CERT
	tagFullCert   = 0x1002 // TCG_TAG_PCCLIENT_FULL_CERT
)

// SplitCertificate takes the certificate that data begins with out of the wrapper
// of a TPM 1.2, if there is one, and returns it and what is behind it. Both are
// parts of data, cut by the length that the certificate states.
func SplitCertificate(data []byte) (cert, rest []byte, err error) {
	body, behind := data, []byte(nil)
	if len(data) >= 2 && binary.BigEndian.Uint16(data) == tagStoredCert {
		if len(data) < 5 {
			return nil, nil, fmt.Errorf("%d bytes of a wrapped certificate: its length is missing", len(data))
		}
		if kind := data[2]; kind != 0 { // TCG_FULL_CERT
			return nil, nil, fmt.Errorf("wrapped certificate of type %d at offset 2: only a full certificate (0) can be checked", kind)
		}
		size := int(binary.BigEndian.Uint16(data[3:]))
		if size > len(data)-5 {
			return nil, nil, fmt.Errorf("wrapped certificate of %d bytes, %d are there", size, len(data)-5)
		}
		body, behind = data[5:5+size], data[5+size:]
		if len(body) >= 2 && binary.BigEndian.Uint16(body) == tagFullCert {
			body = body[2:]
		}
	}
	var outer asn1.RawValue
	rest, err = asn1.Unmarshal(body, &outer)
	if err != nil || outer.Class != asn1.ClassUniversal || outer.Tag != asn1.TagSequence || !outer.IsCompound {
		return nil, nil, fmt.Errorf("%d bytes that do not begin with a DER certificate: %w", len(data), orNoSequence(err))
	}
	cert = outer.FullBytes
	if len(behind) > 0 { // one after the other in data
		rest = data[len(data)-len(behind)-len(rest):]
	}
	return cert, rest, nil
}

func orNoSequence(err error) error {
	if err == nil {
		err = errors.New("no SEQUENCE")
	}
	return err
}

// ParseCertificate reads an X.509 certificate as makers of TPMs ship it: maybe in
// the wrapper of a TPM 1.2 and with filling behind it (see SplitCertificate), with
// a serial number that is negative or has leading zeros, which crypto/x509 refuses.
// Raw and RawTBSCertificate are the bytes that were given, which the signature
// covers. notes are the deviations that were accepted.
func ParseCertificate(data []byte) (c *x509.Certificate, notes []string, err error) {
	der, rest, err := SplitCertificate(data)
	if err != nil {
		return nil, nil, err
	}
	if n := FillingLen(rest); n < len(rest) {
		return nil, nil, fmt.Errorf("byte 0x%02x at offset %d, after the certificate", rest[n], len(data)-len(rest)+n)
	} else if n > 0 {
		notes = append(notes, fmt.Sprintf("ignored %d bytes of filling after the certificate", n))
	}
	plain, err := plainSerial(der)
	if err != nil {
		return nil, nil, err
	}
	if plain == nil {
		c, err = x509.ParseCertificate(der)
		return c, notes, err
	}
	if c, err = x509.ParseCertificate(plain.der); err != nil {
		return nil, nil, err
	}
	c.Raw, c.RawTBSCertificate, c.SerialNumber = bytes.Clone(der), bytes.Clone(plain.tbs), plain.serial
	return c, append(notes, plain.note), nil
}

// FillingLen counts the leading bytes that reads of NV memory leave around
// certificates: 0xFF is never-written NV, 0x00 is padding.
func FillingLen(b []byte) int {
	if n := slices.IndexFunc(b, func(c byte) bool { return c != 0x00 && c != 0xFF }); n >= 0 {
		return n
	}
	return len(b)
}

// serialless is a certificate with another serial number in the place of its own.
type serialless struct {
	der    []byte   // serial number 1
	tbs    []byte   // the signed part as it was
	serial *big.Int // as it was
	note   string
}

// plainSerial looks at a certificate's serial number (RFC 5280, section 4.1: the
// first INTEGER of tbsCertificate). It returns nil for one that crypto/x509 reads:
// positive and without octets that DER forbids (X.690, section 8.3.2). Genuine EK
// certificates have others, which users of certificates handle gracefully (RFC 5280,
// section 4.1.2.2).
func plainSerial(der []byte) (*serialless, error) {
	var outer, tbs, version, serial asn1.RawValue
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, err
	}
	after, err := asn1.Unmarshal(outer.Bytes, &tbs)
	if err != nil {
		return nil, fmt.Errorf("tbsCertificate: %w", err)
	}
	fields := tbs.Bytes
	if rest, err := asn1.Unmarshal(fields, &version); err == nil && version.Class == asn1.ClassContextSpecific && version.Tag == 0 {
		fields = rest
	} else {
		version.FullBytes = nil
	}
	others, err := asn1.Unmarshal(fields, &serial)
	if err != nil || serial.Class != asn1.ClassUniversal || serial.Tag != asn1.TagInteger || len(serial.Bytes) == 0 {
		return nil, nil // crypto/x509 says what is wrong
	}
	b := serial.Bytes
	s := &serialless{tbs: tbs.FullBytes, serial: new(big.Int).SetBytes(b)}
	switch {
	case b[0]&0x80 != 0: // two's complement
		s.serial.Sub(s.serial, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
		s.note = "the certificate's serial number is negative"
	case len(b) > 1 && b[0] == 0 && b[1]&0x80 == 0:
		s.note = fmt.Sprintf("the certificate's serial number of %d octets has leading zeros", len(b))
	default:
		return nil, nil
	}
	sequence := func(parts ...[]byte) []byte {
		out, _ := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(parts...)}) // raw bytes marshal
		return out
	}
	s.der = sequence(sequence(version.FullBytes, []byte{asn1.TagInteger, 1, 1}, others), after)
	return s, nil
}
