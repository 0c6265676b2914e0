package vectors

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
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
			for e, err := range ima.Entries(s.layer().Logs.IMA) {
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
		s.layer().Logs.IMA = append(bytes.Clone(s.layer().Logs.IMA), testlab.IMAEntry("sha256:\x00"+string(make([]byte, 32)), "/usr/bin/late")...)
		return nil
	})
	add(Vector{
		Name: "IMAViolation", Comment: "the kernel could not measure a file, and said so", Warns: []string{"*.ima.replay"},
	}, func(s side) error {
		violation := testlab.IMAEntry("sha256:\x00"+string(make([]byte, 32)), "/etc/shadow")
		copy(violation[4:24], make([]byte, 20)) // the template hash
		s.layer().Logs.IMA = append(bytes.Clone(s.layer().Logs.IMA), violation...)
		return s.boot(func(bank map[int]quote.Hex) { bank[10] = testlab.Extended(bank[10], bytes.Repeat([]byte{0xFF}, 32)) })
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
	return slices.Concat(list, imaPaddedVectors(), imaKernelVectors())
}

// imaPaddedVectors are about kernels before 5.8, which extend SHA-1 template hashes,
// padded with zeros, into the SHA-256 bank.
func imaPaddedVectors() []Vector {
	var list []Vector
	padded := func(v Vector, accept bool, digest func(e *ima.Entry) []byte, edit func(list []byte)) {
		v.logs = bothLayers
		list = append(list, both(v, func(s side) error {
			s.expect().AcceptSHA1Padded = accept
			if err := s.extendAs(digest); err != nil || edit == nil {
				return err
			}
			s.layer().Logs.IMA = bytes.Clone(s.layer().Logs.IMA)
			edit(s.layer().Logs.IMA)
			return nil
		})...)
	}
	attack := func(name, comment string, digest func(e *ima.Entry) []byte, edit func(list []byte)) {
		padded(Vector{Name: name, Comment: comment, Flags: []string{"TamperedLog"}, Fails: []string{"*.ima.replay"}}, true, digest, edit)
	}
	with := func(filling byte) func(e *ima.Entry) []byte {
		return func(e *ima.Entry) []byte {
			return append(bytes.Clone(e.TemplateHash), bytes.Repeat([]byte{filling}, 12)...)
		}
	}
	own := func(e *ima.Entry) []byte { d := sha256.Sum256(e.Data); return d[:] }
	padded(Vector{
		Name: "IMAPadded", Comment: "a kernel before 5.8 extended padded SHA-1 template hashes into the SHA-256 bank", Undecided: []string{"*.ima.replay"},
	}, false, with(0), nil)
	padded(Vector{
		Name: "IMAPaddedAccepted", Comment: "a kernel before 5.8, whose padded SHA-1 template hashes the policy accepts", Warns: []string{"*.log.repaired"},
	}, true, with(0), nil)
	attack("IMAPaddedWithOther", "SHA-1 template hashes are padded with other bytes than zeros", with(1), nil)
	attack("IMAPaddedFirst", "the first entry has a padded SHA-1 template hash, the others have SHA-256 digests", func(e *ima.Entry) []byte {
		if e.Index == 0 {
			return with(0)(e)
		}
		return own(e)
	}, nil)
	attack("IMAPaddedLater", "entries behind the first have padded SHA-1 template hashes beside its SHA-256 digest", func(e *ima.Entry) []byte {
		if e.Index == 0 {
			return own(e)
		}
		return with(0)(e)
	}, nil)
	attack("IMAPaddedRewritten", "a file's digest is changed under its SHA-1 template hash", with(0), func(l []byte) { l[len(l)-10] ^= 1 })
	return list
}

// imaKernelVectors are about what other kernels and firmware put into PCR 10.
func imaKernelVectors() []Vector {
	var list []Vector
	add := func(v Vector, change func(side) error) {
		v.logs = bothLayers
		list = append(list, both(v, change)...)
	}
	own := func(e *ima.Entry) []byte { d := sha256.Sum256(e.Data); return d[:] }
	add(Vector{
		Name: "IMAKexec", Comment: "another kernel was started from the running one and took the list over", Warns: []string{"*.ima.replay"},
	}, func(s side) error {
		for e, err := range ima.Entries(s.layer().Logs.IMA) {
			if err != nil {
				return err
			}
			f, err := e.Fields()
			if err != nil {
				return err
			}
			s.layer().Logs.IMA = append(bytes.Clone(s.layer().Logs.IMA), testlab.IMAEntry(f.Alg+":\x00"+string(f.Digest), f.Path)...)
			break
		}
		return s.extendAs(own)
	})
	add(Vector{
		Name: "IMAKexecInserted", Comment: "a second boot aggregate that was not measured is put into the list", Flags: []string{"TamperedLog"}, Fails: []string{"*.ima.replay"},
	}, func(s side) error {
		l := testlab.IMAEntry("sha256:\x00"+string(make([]byte, 32)), ima.BootAggregateName)
		s.layer().Logs.IMA = append(l, s.layer().Logs.IMA...)
		return nil
	})
	add(Vector{
		Name: "IMAOtherPCR", Comment: "the kernel was built to measure into PCR 11", Undecided: []string{"*.ima.replay"},
	}, func(s side) error {
		l := bytes.Clone(s.layer().Logs.IMA)
		for e, err := range ima.Entries(l) {
			if err != nil {
				return err
			}
			l[e.Offset] = 11
		}
		s.layer().Logs.IMA = l
		return s.boot(func(bank map[int]quote.Hex) { bank[ima.PCR] = make(quote.Hex, 32) })
	})
	add(Vector{
		Name: "IMATemplateRelabelled", Comment: "an entry names another template, which nothing protects and no digest rests on",
	}, func(s side) error {
		l := s.layer().Logs.IMA
		s.layer().Logs.IMA = bytes.Replace(l, []byte("ima-sig"), []byte("ima-buf"), 1)
		return nil
	})
	firmware := func(s side) error {
		return s.editLog(func(l *testlab.LogEditor) {
			text := []byte("measured before IMA starts")
			l.Events = append(l.Events, testlab.MeasuredText(ima.PCR, quote.EventEFIAction, text, text))
		})
	}
	add(Vector{Name: "IMABehindFirmware", Comment: "the firmware measured something into PCR 10 before IMA started"}, func(s side) error {
		digest := sha256.Sum256([]byte("measured before IMA starts"))
		value := testlab.Extended(make([]byte, 32), digest[:])
		for e, err := range ima.Entries(s.layer().Logs.IMA) {
			if err != nil {
				return err
			}
			value = testlab.Extended(value, own(&e))
		}
		if err := firmware(s); err != nil {
			return err
		}
		return s.boot(func(bank map[int]quote.Hex) { bank[ima.PCR] = value })
	})
	add(Vector{
		Name: "IMAFirmwareEventInvented", Comment: "the firmware's log has an event of PCR 10 that was not measured", Flags: []string{"TamperedLog"}, Fails: []string{"*.ima.replay"},
	}, firmware)
	add(Vector{
		Name: "IMAFirmwareEventInventedUnused", Comment: "the firmware's log has an event of PCR 10, which nothing was measured into", Flags: []string{"TamperedLog"}, Fails: []string{"*.log.replay", "*.ima.replay"},
	}, func(s side) error {
		if err := firmware(s); err != nil {
			return err
		}
		return s.boot(func(bank map[int]quote.Hex) { bank[ima.PCR] = make(quote.Hex, 32) })
	})
	return list
}

// extendAs starts the machine over with what digests of the list's entries give in PCR
// 10.
func (s side) extendAs(digest func(e *ima.Entry) []byte) error {
	value := quote.Hex(make([]byte, 32))
	for e, err := range ima.Entries(s.layer().Logs.IMA) {
		if err != nil {
			return err
		}
		value = testlab.Extended(value, digest(&e))
	}
	return s.boot(func(bank map[int]quote.Hex) { bank[ima.PCR] = value })
}
