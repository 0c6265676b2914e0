package mix

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// LogSearch holds scenes with real logs, and what each policy says of them as they
// are.
type LogSearch struct {
	scenes []*judged
	// Progress, when set, is told after each scene of All.
	Progress func(what string, soFar LogOutcome)
}

// judged is a scene with what comes of its logs as they are.
type judged struct {
	*scene
	edits []edit
	whole *judgement
	// bare is the verdict of each rule alone when there is no log: who is root may
	// leave it out, so a verdict that this gives is not better than it should be.
	bare []policy.Verdict
}

// LogOutcome is what came of a search.
type LogOutcome struct {
	Edits    int // of logs
	Verdicts int // one for each rule
	Better   []Better
}

// Better is an edit that makes a verdict better, or what it says of its limits less.
type Better struct {
	Scene, Rule, Edit string
	Was, Is           string
}

func (b Better) String() string {
	return fmt.Sprintf("%s, %s\n  %s\n  was %s\n  is  %s", b.Scene, b.Rule, b.Edit, b.Was, b.Is)
}

// kind is the same of findings that are alike: of the same rule and log, by an edit
// that differs in numbers only.
func (b *Better) kind() string {
	rule, _, _ := strings.Cut(b.Rule, ": ")
	words := strings.FieldsFunc(b.Edit, func(r rune) bool { return '0' <= r && r <= '9' })
	was, _, _ := strings.Cut(b.Was, " ")
	is, _, _ := strings.Cut(b.Is, " ")
	return strings.Join(append(words, b.Scene, rule, was, is), "|")
}

// rank orders verdicts from the worst.
func rank(v policy.Verdict) int {
	return slices.Index([]policy.Verdict{policy.Rejected, policy.Untrusted, policy.Inconclusive, policy.Trusted}, v)
}

// NewLogSearch makes scenes of all logs whose paths match a pattern, for both layers,
// and scenes in which more was measured than a policy may like.
func NewLogSearch(patterns ...string) (*LogSearch, error) {
	var paths []string
	for _, p := range patterns {
		found, err := filepath.Glob(p)
		if err != nil || len(found) == 0 {
			return nil, fmt.Errorf("no log at %s: %v", p, err)
		}
		paths = append(paths, found...)
	}
	s := &LogSearch{}
	seen := make(map[string]bool)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		log, err := quote.ParseEventLog(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if seen[string(data)] || !slices.Contains(log.Banks(), quote.SHA256) {
			continue
		}
		seen[string(data)] = true
		c := captured{name: strings.TrimSuffix(filepath.Base(filepath.Dir(path))+"/"+filepath.Base(path), "/eventlog.bin"), data: data}
		if line, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline")); err == nil {
			c.cmdline = strings.TrimSpace(string(line))
		}
		for _, layer := range []string{"guest", "host"} {
			if err := s.add(c, layer, nil); err != nil {
				return nil, err
			}
		}
		for _, t := range taints(log) {
			if err := s.add(c, "guest", &t); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

func (s *LogSearch) add(log captured, layer string, more *taint) error {
	c, err := newScene(log, layer, more)
	if err != nil {
		return err
	}
	x := &judged{scene: c}
	if x.whole, err = x.judge(c.logs); err != nil {
		return err
	}
	data, err := x.bundle(logs{})
	if err != nil {
		return err
	}
	for _, r := range x.rules {
		p, err := x.parse(r.kind, r.text)
		if err != nil {
			return err
		}
		result, err := p.Verify(data, x.options, policy.Context{})
		if err != nil {
			return err
		}
		x.bare = append(x.bare, result.Verdict)
	}
	x.edits = c.edits()
	s.scenes = append(s.scenes, x)
	return nil
}

// judgement is what comes of evidence: the verdict that each rule would lead to alone,
// with the reason, and the result of the policy that has none.
type judgement struct {
	verdicts []policy.Verdict
	reasons  []string
	open     *policy.Result
}

// judge appraises the scene with such logs by all its policies.
func (x *judged) judge(l logs) (*judgement, error) {
	data, err := x.bundle(l)
	if err != nil {
		return nil, err
	}
	report, err := x.report(data)
	if err != nil {
		return nil, err
	}
	results := make([]*policy.Result, len(x.policies))
	for i, p := range x.policies {
		results[i] = p.Appraise(report, policy.Context{})
	}
	j := &judgement{open: results[0]}
	for _, r := range x.rules {
		v, why := alone(results[r.policy], r.check)
		j.verdicts, j.reasons = append(j.verdicts, v), append(j.reasons, v.String()+": "+why)
	}
	return j, nil
}

// report verifies evidence for all policies at once: each may ask for the log, the IMA
// list and any PCR.
func (x *judged) report(data []byte) (*verify.Report, error) {
	o, err := x.policies[0].Options(x.options)
	if err != nil {
		return nil, err
	}
	wide := &o.Guest
	if x.layer == "host" {
		wide = &o.Host
	}
	wide.Log, wide.IMA, wide.PCRs = true, true, nil
	for n := range 16 {
		wide.PCRs = append(wide.PCRs, n)
	}
	return verify.Evidence(data, o)
}

// alone is the verdict that a result would have if a check of the policy were the
// only one.
func alone(r *policy.Result, check string) (policy.Verdict, string) {
	if r.Verdict == policy.Rejected {
		return r.Verdict, r.Reason
	}
	i := slices.IndexFunc(r.Checks, func(c policy.CheckResult) bool { return c.ID == check })
	if i < 0 {
		return policy.Inconclusive, check + " is not there"
	}
	c := r.Checks[i]
	why := fmt.Sprintf("%s: %s (got %s)", check, c.Detail, c.Got)
	switch c.Status {
	case verify.Pass, verify.Warn, verify.NotApplicable:
		return policy.Trusted, why
	case verify.Fail:
		return policy.Untrusted, why
	}
	return policy.Inconclusive, why
}

// try makes edits one after the other and compares.
func (x *judged) try(o *LogOutcome, edits ...edit) (err error) {
	l := x.logs.clone()
	var names []string
	for _, e := range edits {
		names = append(names, e.name)
		l = e.make(l)
	}
	what := strings.Join(names, "; ")
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("%s: %s: the verifier panics: %v", x.name, what, fault)
		}
	}()
	is, err := x.judge(l)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", x.name, what, err)
	}
	o.Edits++
	name := x.layer + " " + x.name
	for i, r := range x.rules {
		o.Verdicts++
		if rank(is.verdicts[i]) > max(rank(x.whole.verdicts[i]), rank(x.bare[i])) {
			o.Better = append(o.Better, Better{name, r.kind + ": " + r.text, what, x.whole.reasons[i], is.reasons[i]})
		}
	}
	if is.open.Verdict == policy.Trusted {
		if gone := silent(x.whole.open, is.open); gone != "" {
			o.Better = append(o.Better, Better{name, "coverage: ", what, "said " + gone, "does not say that"})
		}
	}
	return nil
}

// silent returns something that a result says of what it leaves open, and another one
// does not.
func silent(was, is *policy.Result) string {
	said := func(r *policy.Result) (list []string) {
		for _, c := range r.Checks {
			if strings.HasSuffix(c.ID, ".coverage") && c.Status == verify.Warn {
				_, open, _ := strings.Cut(c.Detail, ": ")
				for _, part := range strings.Split(open, "; ") {
					list = append(list, c.ID+": "+part)
				}
			}
		}
		for _, l := range r.Limits {
			if !strings.Contains(l, "measured into PCR") { // a list, which coverage has too
				list = append(list, l)
			}
		}
		return list
	}
	still := said(is)
	for _, l := range said(was) {
		if !slices.Contains(still, l) {
			return l
		}
	}
	return ""
}

// taint is something that was measured during the boot and may not be hidden.
type taint struct {
	name  string
	event quote.Event
	at    int // in the log without its header; 0: behind the last event of its PCR
}

// shimVariable is a UEFI_VARIABLE_DATA (PFP 10.4.2.1) of shim's.
func shimVariable(name string, data []byte) []byte {
	b := []byte{0x50, 0xab, 0x5d, 0x60, 0x46, 0xe0, 0x00, 0x43, 0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23}
	b = binary.LittleEndian.AppendUint64(b, uint64(len(name)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	text := wide(name)
	return append(append(b, text[:len(text)-2]...), data...)
}

// taints are those that make sense in a log.
func taints(log *quote.EventLog) (list []taint) {
	add := func(name string, e quote.Event) { list = append(list, taint{name: name, event: e}) }
	grub, sb := false, false
	for _, e := range log.Events {
		grub = grub || bytes.HasPrefix(e.Data, []byte("kernel_cmdline: "))
		v, err := quote.ParseUEFIVariable(e.Data)
		if e.PCR != 7 || err != nil || v.Name != "SecureBoot" || len(v.Data) != 1 || v.Data[0] != 1 {
			continue
		}
		sb = true
		off := bytes.Clone(e.Data)
		off[len(off)-1] = 0
		list = append(list, taint{"SecureBoot 0 beside 1", measuredEvent(7, e.Type, off, off), e.Index})
		mok := shimVariable("MokSBState", []byte{1})
		add("MokSBState", measuredEvent(7, quote.EventEFIVariableAuthority, mok, mok))
		other := shimVariable("Something", []byte("not a certificate"))
		add("an authority that is no certificate", measuredEvent(7, quote.EventEFIVariableAuthority, other, other))
	}
	if grub {
		for _, line := range []string{"/vmlinuz init=/bin/sh", `"/boot dir/vmlinuz" init=/bin/sh`, "0+4096 init=/bin/sh", "(hd0)/vmlinuz init=/bin/sh"} {
			add("line "+line, measuredEvent(8, quote.EventIPL, []byte("kernel_cmdline: "+line+"\x00"), []byte(line)))
		}
	}
	if grub || sb {
		line := "quiet init=/bin/sh"
		add("load options in PCR 9", measuredEvent(9, quote.EventTag, tagged(0x8F3B22ED, wide(line)), wide(line)))
		add("a stub's line in PCR 12", measuredEvent(12, quote.EventIPL, wide(line), wide(line)[:2*len(line)]))
		add("a stub's line in PCR 11", measuredEvent(11, quote.EventIPL, wide(line), wide(line)[:2*len(line)]))
	}
	return list
}

// All makes every edit, and pairs of edits that are drawn.
func (s *LogSearch) All(pairs int) (LogOutcome, error) {
	var total LogOutcome
	for i, x := range s.scenes {
		var units []func(*LogOutcome) error
		for _, e := range x.edits {
			units = append(units, func(o *LogOutcome) error { return x.try(o, e) })
		}
		if err := total.run(units); err != nil {
			return total, err
		}
		if s.Progress != nil {
			s.Progress(fmt.Sprintf("%d of %d: %s of the %s", i+1, len(s.scenes), x.name, x.layer), total)
		}
	}
	drawn, err := s.Sample(1, pairs, 2)
	total.Edits, total.Verdicts, total.Better = total.Edits+drawn.Edits, total.Verdicts+drawn.Verdicts, append(total.Better, drawn.Better...)
	return total, err
}

// Sample draws edits, most at once, by a seed. Only the last one may move others.
func (s *LogSearch) Sample(seed uint64, n, most int) (LogOutcome, error) {
	r := rand.New(rand.NewPCG(seed, 0))
	var units []func(*LogOutcome) error
	for range n {
		x := s.scenes[r.IntN(len(s.scenes))]
		var edits []edit
		for n := 1 + r.IntN(most); n > 0; {
			if e := x.edits[r.IntN(len(x.edits))]; e.keeps || n == 1 {
				edits = append(edits, e)
				n--
			}
		}
		units = append(units, func(o *LogOutcome) error { return x.try(o, edits...) })
	}
	var o LogOutcome
	return o, o.run(units)
}

// run does units on all processors and adds up what comes of them.
func (o *LogOutcome) run(units []func(*LogOutcome) error) error {
	queue := make(chan func(*LogOutcome) error)
	outcomes := make([]LogOutcome, runtime.GOMAXPROCS(0))
	faults := make([]error, len(outcomes))
	var all sync.WaitGroup
	for i := range outcomes {
		all.Go(func() {
			for unit := range queue {
				if faults[i] == nil {
					faults[i] = unit(&outcomes[i])
				}
			}
		})
	}
	for _, u := range units {
		queue <- u
	}
	close(queue)
	all.Wait()
	seen := make(map[string]bool)
	for _, b := range o.Better {
		seen[b.kind()] = true
	}
	for i, one := range outcomes {
		if faults[i] != nil {
			return faults[i]
		}
		o.Edits, o.Verdicts = o.Edits+one.Edits, o.Verdicts+one.Verdicts
		for _, b := range one.Better {
			if k := b.kind(); !seen[k] {
				seen[k] = true
				o.Better = append(o.Better, b)
			}
		}
	}
	return nil
}
