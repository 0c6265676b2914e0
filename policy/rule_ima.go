package policy

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
)

// ima compares every measured file with the allow-list. The part of the list that
// PCR 10 proves is all that was measured before the quote.
func (s *section) ima() outcome {
	rule := s.rules.IMA
	if s.claims.IMA == nil {
		if rule.Required {
			return unknown("there is no IMA list that PCR 10 proves")
		}
		return notApplicable("no IMA list, which the policy accepts")
	}
	t := imaTally{section: s, rule: rule, digests: make(map[string]bool, len(rule.Digests))}
	for _, d := range rule.Digests {
		t.digests[string(d)] = true
	}
	for e, err := range ima.Entries(s.claims.IMA) {
		if err != nil {
			return fail("the IMA list cannot be read").evidence(err.Error(), "binary_runtime_measurements", "ima")
		}
		if e.PCR != ima.PCR {
			continue // PCR 10 proves nothing of it, not even its place
		}
		if o, bad := t.judge(&e); bad {
			return o
		}
		t.entries++
	}
	return t.sum()
}

// imaTally counts what the entries of PCR 10 are.
type imaTally struct {
	*section
	rule    *IMARule
	digests map[string]bool // rule.Digests

	entries                 int
	aggregate               quote.Hex // of the first entry; nil: that is another one
	files, others, excluded int
	kernels                 int // that kexec started
}

// judge counts an entry, or says what is wrong with it. A file is what has an
// absolute path. The kernel names by a bare word what is none: its boot aggregate,
// buffers, keyrings, and critical data of itself, SELinux and
// device-mapper (Documentation/ABI/testing/ima_policy). It is the name that tells,
// and not the template: of that no PCR proves anything, and "ima-buf" reads as
// "ima-sig". So whatever it is, it is on the list or fails.
func (t *imaTally) judge(e *ima.Entry) (o outcome, bad bool) {
	where := fmt.Sprintf("IMA entry %d", e.Index)
	if e.Violation() {
		return fail("IMA could not measure a file: it was open for writing, or changed while it was read").evidence("a violation", "a measured file", where), !t.rule.AcceptsAny()
	}
	f, err := e.Fields()
	switch {
	case err != nil:
		return unknown("an IMA entry cannot be read").evidence(err.Error(), "a known template", where), true
	case t.entries == 0 && f.Path == ima.BootAggregateName:
		t.aggregate = f.Digest
		return t.bootAggregate(f)
	case f.Path == ima.BootAggregateName:
		return t.kexec(f, where)
	case t.rule.excludes(f.Path):
		t.excluded++
		return outcome{}, false
	case strings.HasPrefix(f.Path, "/"):
		t.files++
	default:
		t.others++
	}
	if t.accepts(f) {
		return outcome{}, false
	}
	return t.unlisted(f, where)
}

func (t *imaTally) unlisted(f ima.Fields, where string) (outcome, bool) {
	return fail("a measured file is not on the list: %q", wording.Clip(f.Path, MaxText)).evidence(measuredFile(f), t.rule.want(f.Path), where), true
}

func (t *imaTally) accepts(f ima.Fields) bool {
	return t.rule.AcceptsAny() || t.digests[string(f.Digest)] || slices.ContainsFunc(t.rule.Paths[f.Path], func(d quote.Hex) bool { return bytes.Equal(d, f.Digest) })
}

func measuredFile(f ima.Fields) string { return f.Alg + ":" + f.Digest.String() }

// kexec is about a further boot aggregate: another kernel took the list over
// (ima_kexec.c). It is over the PCRs of the boot before it and so says nothing of that
// kernel. For the same reason an allow-list that has it, as one made of a machine's
// own list does, does not mean to accept one.
func (t *imaTally) kexec(f ima.Fields, where string) (outcome, bool) {
	same := bytes.Equal(f.Digest, t.aggregate)
	switch {
	case !same && !t.accepts(f):
		return t.unlisted(f, where)
	case !t.rule.Kexec:
		return fail("a kernel was started from the running one (kexec), and no PCR of the boot tells which").
			evidence(measuredFile(f), "one "+ima.BootAggregateName+", or accept: [kexec]", where), true
	}
	t.kernels++
	if !same && t.rule.AcceptsAny() {
		return t.bootAggregate(f)
	}
	return outcome{}, false
}

// sum is the outcome when no entry is wrong. A list that does not begin with the
// boot aggregate was begun by no kernel: anybody can extend PCR 10 (PC Client
// Platform TPM Profile 1.05, section 4.6).
func (t *imaTally) sum() outcome {
	switch {
	case t.entries > 0 && t.aggregate == nil:
		return unknown("the IMA list does not begin with %s, as every kernel's does", ima.BootAggregateName).evidence("another entry of PCR 10", ima.BootAggregateName, "ima")
	case t.files == 0 && !t.rule.Required:
		return notApplicable("IMA measured no file, which the policy accepts")
	case t.files == 0 && t.excluded > 0:
		return unknown("the list excludes all that IMA measured").evidence(fmt.Sprintf("%d excluded entries", t.excluded), "measured files", "ima")
	case t.files == 0:
		return unknown("IMA measured no file: it runs without a policy, or not at all").evidence("no file in the list", "measured files", "ima")
	case t.rule.AcceptsAny():
		return pass("PCR 10 proves %d files; the policy accepts any%s", t.files, t.later())
	}
	detail := fmt.Sprintf("all %d files", t.files)
	if t.others > 0 {
		detail += fmt.Sprintf(" and %d other measurements", t.others)
	}
	detail += " are on the list"
	if t.excluded > 0 {
		detail += fmt.Sprintf(", besides %d that it excludes", t.excluded)
	}
	return pass("%s%s", detail, t.later())
}

// later names the kernels that kexec started.
func (t *imaTally) later() string {
	if t.kernels == 0 {
		return ""
	}
	return fmt.Sprintf("; kexec started %d kernels from the running one, which the policy accepts", t.kernels)
}

func (r *IMARule) excludes(path string) bool {
	return slices.ContainsFunc(r.Excludes, func(e *regexp.Regexp) bool { return e.MatchString(path) })
}

// bootAggregate compares a boot aggregate with the PCRs that it was made of
// (ima.BootAggregate), when the quote covers them.
func (s *section) bootAggregate(f ima.Fields) (outcome, bool) {
	if f.Alg != s.claims.Bank.String() {
		return outcome{}, false
	}
	want, err := ima.BootAggregate(s.claims.Bank, s.claims.PCRs)
	if err != nil || bytes.Equal(want, f.Digest) {
		return outcome{}, false
	}
	return fail("the IMA list was begun after another boot state").evidence(f.Digest.String(), want.String(), ima.BootAggregateName), true
}

func (r *IMARule) want(path string) string {
	switch known := r.Paths[path]; {
	case len(known) == 1:
		return known[0].String()
	case len(known) > 1:
		return fmt.Sprintf("%s or one of %d others", known[0], len(known)-1)
	case len(r.Paths) > 0:
		return fmt.Sprintf("a digest under one of %d paths", len(r.Paths))
	}
	return fmt.Sprintf("one of %d digests", len(r.Digests))
}
