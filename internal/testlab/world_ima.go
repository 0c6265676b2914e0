package testlab

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
)

// File is a file as IMA measures it.
type File struct {
	Path      string
	Digest    quote.Hex // SHA-256 of its content
	Violation bool      // it could not be measured
}

// MeasureFiles makes the machine boot with another IMA list: the boot aggregate
// over its SHA-256 PCRs as they stand, and then the files. PCR 10 follows.
func (m *Machine) MeasureFiles(files ...File) error {
	bank := m.PCRs[quote.SHA256]
	aggregate, err := ima.BootAggregate(quote.SHA256, bank)
	if err != nil {
		return err
	}
	m.Logs.IMA = IMAEntry("sha256:\x00"+string(aggregate), "boot_aggregate")
	for _, f := range files {
		e := IMAEntry("sha256:\x00"+string(f.Digest), f.Path)
		if f.Violation {
			clear(e[4:24]) // the template hash
		}
		m.Logs.IMA = append(m.Logs.IMA, e...)
	}
	pcr := quote.Hex(make([]byte, 32))
	for e, err := range ima.Entries(m.Logs.IMA) {
		switch {
		case err != nil:
			return err
		case e.Violation():
			pcr = Extended(pcr, bytes.Repeat([]byte{0xFF}, 32))
		default:
			digest := sha256.Sum256(e.Data)
			pcr = Extended(pcr, digest[:])
		}
	}
	bank[ima.PCR] = pcr
	return nil
}

// IMAEntry makes an entry of the template ima-ng for a file's digest, which begins
// with its algorithm's name, and path. Its template hash is not that of its data,
// which only a SHA-1 bank would show.
func IMAEntry(digest, path string) []byte {
	le := binary.LittleEndian
	var data []byte
	data = append(le.AppendUint32(data, uint32(len(digest))), digest...)
	data = append(le.AppendUint32(data, uint32(len(path)+1)), path...)
	data = append(data, 0)
	b := le.AppendUint32(nil, ima.PCR)
	b = append(b, bytes.Repeat([]byte{1}, 20)...)
	b = append(le.AppendUint32(b, uint32(len("ima-ng"))), "ima-ng"...)
	return append(le.AppendUint32(b, uint32(len(data))), data...)
}

// Extended is a SHA-256 PCR after a digest was extended into it.
func Extended(pcr, digest []byte) quote.Hex {
	d := sha256.Sum256(slices.Concat(pcr, digest))
	return d[:]
}
