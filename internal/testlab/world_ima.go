package testlab

import (
	"bytes"
	"crypto/sha256"

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
	m.Logs.IMA = entry("sha256:\x00"+string(aggregate), "boot_aggregate")
	for _, f := range files {
		e := entry("sha256:\x00"+string(f.Digest), f.Path)
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
			pcr = extended(pcr, bytes.Repeat([]byte{0xFF}, 32))
		default:
			digest := sha256.Sum256(e.Data)
			pcr = extended(pcr, digest[:])
		}
	}
	bank[ima.PCR] = pcr
	return nil
}
