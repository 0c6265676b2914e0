package testlab

import (
	"bytes"
	"encoding/binary"

	"github.com/deepattest/deepattest/quote"
)

// imaVectors are about the kernel's list of measured files.
func imaVectors() []Vector {
	var list []Vector
	add := func(v Vector, change func(side) error) {
		v.logs = bothLayers
		list = append(list, both(v, change)...)
	}
	attack := func(name, comment string, edit func(list []byte, at []int) []byte) {
		add(Vector{Name: name, Comment: comment, Flags: []string{"TamperedLog"}, Fails: []string{"*.ima.replay"}}, func(s side) error {
			var at []int
			for e, err := range quote.IMAEntries(s.layer().Logs.IMA) {
				if err != nil {
					return err
				}
				at = append(at, e.Offset)
			}
			s.layer().Logs.IMA = edit(bytes.Clone(s.layer().Logs.IMA), at)
			return nil
		})
	}
	attack("IMATruncated", "the list's last entry is left out", func(l []byte, at []int) []byte { return l[:at[len(at)-1]] })
	attack("IMAEntryRemoved", "the list's second entry is left out", func(l []byte, at []int) []byte { return append(l[:at[1]], l[at[2]:]...) })
	attack("IMAEntryChanged", "a file's digest is changed", func(l []byte, at []int) []byte { l[at[1]+60] ^= 1; return l })
	attack("IMACut", "the list ends in the middle of an entry", func(l []byte, _ []int) []byte { return l[:len(l)-3] })
	add(Vector{
		Name: "IMALonger", Comment: "files were measured between the quote and the reading of the list: the quoted value is that of its beginning",
	}, func(s side) error {
		s.layer().Logs.IMA = append(bytes.Clone(s.layer().Logs.IMA), entry("sha256:\x00"+string(make([]byte, 32)), "/usr/bin/late")...)
		return nil
	})
	add(Vector{
		Name: "IMAViolation", Comment: "the kernel could not measure a file, and said so", Warns: []string{"*.ima.replay"},
	}, func(s side) error {
		violation := entry("sha256:\x00"+string(make([]byte, 32)), "/etc/shadow")
		copy(violation[4:24], make([]byte, 20)) // the template hash
		s.layer().Logs.IMA = append(bytes.Clone(s.layer().Logs.IMA), violation...)
		return s.boot(func(bank map[int]quote.Hex) { bank[10] = extended(bank[10], bytes.Repeat([]byte{0xFF}, 32)) })
	})
	add(Vector{
		Name: "IMAMissing", Comment: "the policy has rules for files, and there is no list", Flags: []string{"MissingLog"},
		Undecided: []string{"*.ima.replay"},
	}, func(s side) error {
		s.layer().Logs.IMA = nil
		s.layer().Missing = append(s.layer().Missing, quote.Missing{What: quote.MissingIMA, Reason: "permission denied"})
		return nil
	})
	add(Vector{
		Name: "IMANotQuoted", Comment: "the list is there, and PCR 10 was not quoted", Flags: []string{"PartialSelection"},
		Undecided: []string{"*.ima.replay"},
	}, func(s side) error {
		e := s.expect()
		e.PCRs = without(10)(quote.Selection{{PCRs: e.PCRs}})[0].PCRs
		return s.selectPCRs(without(10)(s.machine().Selection))
	})
	add(Vector{
		Name: "BankSHA384", Comment: "SHA-384 is pinned; the kernel had not loaded that hash and padded SHA-1 template hashes for PCR 10",
		Warns: []string{"*.log.repaired"},
	}, func(s side) error {
		s.machine().Select(quote.SHA384)
		err := s.rebuild()
		s.expect().Bank = quote.SHA384
		return err
	})
	return list
}

// entry makes an entry of the template ima-ng for a file's digest, which begins
// with its algorithm's name, and path. Its template hash is not that of its data,
// which only a SHA-1 bank would show.
func entry(digest, path string) []byte {
	le := binary.LittleEndian
	var data []byte
	data = append(le.AppendUint32(data, uint32(len(digest))), digest...)
	data = append(le.AppendUint32(data, uint32(len(path)+1)), path...)
	data = append(data, 0)
	b := le.AppendUint32(nil, quote.IMAPCR)
	b = append(b, bytes.Repeat([]byte{1}, 20)...)
	b = append(le.AppendUint32(b, uint32(len("ima-ng"))), "ima-ng"...)
	return append(le.AppendUint32(b, uint32(len(data))), data...)
}
