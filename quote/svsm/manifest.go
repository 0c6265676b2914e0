// Package svsm reads what a Secure VM Service Module says about the vTPM that it runs
// at VMPL 0 of a confidential VM: the vTPM service manifest, to whose hash an SEV-SNP
// report is bound.
//
// "SVSM" is AMD's Secure VM Service Module for SEV-SNP Guests (publication 58019),
// chapters "Attestation Protocol" and "vTPM Protocol". Nothing here trusts anything:
// the report does that, once it is verified and its report_data is ReportData.
package svsm

import (
	"crypto/sha512"
	"encoding/binary"
	"fmt"

	"github.com/deepattest/deepattest/quote"
)

const (
	// NonceSize is the length of the nonce that a guest gives: the kernel passes on
	// inblob of configfs-tsm, whole.
	NonceSize = 64

	// MaxManifest bounds a manifest: MaxKeys public areas and their lengths.
	MaxManifest = 8 + MaxKeys*(2+quote.MaxPublic)

	// MaxKeys is far above the keys that a vTPM has when it starts: an EK for each
	// algorithm, and an AK.
	MaxKeys = 16
)

// Manifest is the vTPM's manifest. A key in it belongs to the vTPM that the report is
// about; whether it is an EK or an AK show its attributes alone.
type Manifest struct {
	Version uint32
	Keys    []*quote.Public
}

// ReportData is the report_data of a report over a manifest: SHA-512 of the nonce and
// the manifest (SVSM, "SVSM_ATTEST_SINGLE_SERVICE"). Only a nonce of NonceSize bytes is
// taken: with other lengths a byte of the nonce could pass for one of the manifest.
func ReportData(nonce, manifest []byte) ([sha512.Size]byte, error) {
	if len(nonce) != NonceSize {
		return [sha512.Size]byte{}, fmt.Errorf("nonce of %d bytes, want %d", len(nonce), NonceSize)
	}
	h := sha512.New()
	h.Write(nonce)
	h.Write(manifest)
	return [sha512.Size]byte(h.Sum(nil)), nil
}

func refuse(offset int, format string, args ...any) error {
	return &quote.ParseError{Structure: "vTPM manifest", Offset: offset, Reason: fmt.Sprintf(format, args...)}
}

// Parse reads a manifest of version 0 or 1, which holds nothing after its last key.
// Version 0 is one TPMT_PUBLIC, so that it starts with the type of a key; version 1 is
// its number, the number of keys and as many TPM2B_PUBLICs (SVSM, "vTPM Manifest").
// The two numbers of version 1 are read in either byte order: no recording shows which
// one is in use, and neither can be taken for the other or for a type of key.
func Parse(b []byte) (*Manifest, error) {
	if len(b) > MaxManifest {
		return nil, refuse(0, "%d bytes, at most %d", len(b), MaxManifest)
	}
	var order binary.ByteOrder
	switch {
	case len(b) < 8:
		return nil, refuse(0, "%d bytes are too few for a key", len(b))
	case binary.LittleEndian.Uint32(b) == 1:
		order = binary.LittleEndian
	case binary.BigEndian.Uint32(b) == 1:
		order = binary.BigEndian
	default:
		key, err := quote.ParsePublic(b)
		if err != nil {
			return nil, refuse(0, "neither version 1 nor the key of version 0: %v", err)
		}
		return &Manifest{Keys: []*quote.Public{key}}, nil
	}
	m := &Manifest{Version: 1}
	count := order.Uint32(b[4:])
	if count == 0 || count > MaxKeys {
		return nil, refuse(4, "%d keys, want 1 to %d", count, MaxKeys)
	}
	off := 8
	for i := range int(count) {
		if len(b)-off < 2 {
			return nil, refuse(off, "key %d: %d bytes left", i, len(b)-off)
		}
		size := int(binary.BigEndian.Uint16(b[off:]))
		if size > len(b)-off-2 {
			return nil, refuse(off, "key %d: want %d bytes, %d left", i, size, len(b)-off-2)
		}
		key, err := quote.ParsePublic(b[off+2 : off+2+size])
		if err != nil {
			return nil, refuse(off+2, "key %d: %v", i, err)
		}
		m.Keys = append(m.Keys, key)
		off += 2 + size
	}
	if off != len(b) {
		return nil, refuse(off, "%d trailing bytes", len(b)-off)
	}
	return m, nil
}

// Key returns the key of a Name, nil when the manifest has none.
func (m *Manifest) Key(name quote.Hex) *quote.Public {
	for _, k := range m.Keys {
		if string(k.Name()) == string(name) {
			return k
		}
	}
	return nil
}
