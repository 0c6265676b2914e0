package ima

import (
	"bytes"
	"crypto/sha1"
	"fmt"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/internal/wire"
)

// Replayed is what became of a list that was checked against a PCR.
type Replayed struct {
	Matched    int  // entries of the shortest prefix that gives the wanted value, -1 when none does
	Total      int  // entries in the list
	Violations int  // among the first Matched entries, or among all when none match
	Padded     bool // the match rests on SHA-1 template hashes, padded with zeros
	Before58   bool // and only kernels before 5.8 extend this bank so
	PCR        int  // that the list is of: 10 when any entry is, else that of the first; -1 of an empty list
}

// ones is what a kernel extends for a violation.
var ones = wire.Ones()

func newExtender(alg quote.Alg) (wire.Extender, error) {
	if _, ok := alg.Hash(); !ok {
		return wire.Extender{}, fmt.Errorf("no implementation of %s: use a sha256 or sha384 bank", alg)
	}
	return wire.Extender{Size: alg.Size()}, nil
}

// rule says what the kernel extends a bank with for an entry.
type rule int

const (
	// ownHash: SHA-1 banks with the template hash, which must then be that of the
	// data, other banks with their own hash of the data (since 5.8).
	ownHash rule = iota
	// unloaded: a bank whose hash the kernel had not loaded with the template
	// hash, padded with zeros (since 5.8; ima_crypto.c, ima_calc_field_array_hash).
	// SHA-256 is always there.
	unloaded
	// before58: every bank with the template hash, padded with zeros, and so are
	// the ones of a violation (Linux 5.7, ima_queue.c, ima_add_template_entry and
	// ima_pcr_extend).
	before58
)

// of reports whether a bank may have been extended by a rule. One rule holds for a
// whole list: a list that needs two was made up.
func (r rule) of(alg quote.Alg) bool {
	switch alg {
	case quote.SHA1:
		return r == ownHash
	case quote.SHA256:
		return r != unloaded
	}
	return true
}

// Replay extends the entries of PCR 10, one after the other, into a bank that
// starts with start (nil: zeros) and looks for the prefix that gives want. A list
// read after the quote is longer than what was quoted, so entries after the
// prefix are no fault; they are unproven. Data that rests on SHA-1 is compared
// with its template hash.
func Replay(data []byte, alg quote.Alg, want, start []byte) (Replayed, error) {
	x, err := newExtender(alg)
	if err != nil {
		return Replayed{}, fmt.Errorf("IMA list: %w", err)
	}
	if len(want) != x.Size || start != nil && len(start) != x.Size {
		return Replayed{}, fmt.Errorf("IMA list: PCR values of %d and %d bytes, %s has %d", len(want), len(start), alg, x.Size)
	}
	var first Replayed
	for rule := ownHash; rule <= before58; rule++ { // the usual one first
		if !rule.of(alg) {
			continue
		}
		c := replayer{Extender: x, rule: rule}
		copy(c.value[:], start)
		res, err := c.find(data, want)
		if err != nil {
			return Replayed{}, err
		}
		if rule == ownHash {
			first = res
		}
		if res.Matched < 0 {
			continue
		}
		if res.Padded = rule != ownHash; res.Padded || alg == quote.SHA1 {
			err = checkTemplateHashes(data, res.Matched)
		}
		res.Before58 = rule == before58
		return res, err
	}
	return first, nil
}

// replayer computes PCR 10 under a rule.
type replayer struct {
	wire.Extender
	rule  rule
	value [wire.MaxDigest]byte
	old   [oldBytes]byte
}

// find looks for the shortest prefix of a list that gives want.
func (c *replayer) find(data, want []byte) (Replayed, error) {
	res := Replayed{Matched: -1, PCR: -1}
	if bytes.Equal(c.value[:c.Size], want) {
		res.Matched = 0
	}
	for e, err := range Entries(data) {
		if err != nil {
			return Replayed{}, err
		}
		res.Total++
		if res.PCR < 0 || e.PCR == PCR {
			res.PCR = e.PCR
		}
		if e.PCR != PCR || res.Matched >= 0 {
			continue
		}
		if e.Violation() {
			res.Violations++
		}
		c.add(&e)
		if bytes.Equal(c.value[:c.Size], want) {
			res.Matched = res.Total
		}
	}
	return res, nil
}

func (c *replayer) add(e *Entry) {
	var digest [wire.MaxDigest]byte
	switch {
	case e.Violation() && c.rule == before58:
		copy(digest[:], ones[:sha1.Size])
	case e.Violation():
		digest = ones
	case c.rule == ownHash && c.Size != sha1.Size:
		c.Sum(&digest, e.hashed(&c.old))
	default:
		copy(digest[:], e.TemplateHash)
	}
	c.Extend(&c.value, digest[:c.Size])
}

// checkTemplateHashes makes sure that the first n entries' data is what their
// template hashes are of. Only then does a PCR that was extended with those
// hashes prove the data.
func checkTemplateHashes(data []byte, n int) error {
	var old [oldBytes]byte
	for e, err := range Entries(data) {
		if err != nil || e.Index >= n {
			return err
		}
		if !e.Violation() && sha1.Sum(e.hashed(&old)) != [sha1.Size]byte(e.TemplateHash) {
			return &quote.ParseError{Structure: "IMA list", Offset: e.Offset,
				Reason: fmt.Sprintf("entry %d: the template hash is not that of its data", e.Index)}
		}
	}
	return nil
}

// Value returns what a PCR of a bank holds after all its entries of a list, by the
// rule of a kernel that knows the bank's hash (see Replay).
func Value(data []byte, alg quote.Alg, pcr int) (quote.Hex, error) {
	x, err := newExtender(alg)
	if err != nil {
		return nil, fmt.Errorf("IMA list: %w", err)
	}
	c := replayer{Extender: x}
	for e, err := range Entries(data) {
		if err != nil {
			return nil, err
		}
		if e.PCR == pcr {
			c.add(&e)
		}
	}
	return bytes.Clone(c.value[:x.Size]), nil
}
