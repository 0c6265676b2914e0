package vectors

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"time"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// Index lists the vectors of a folder. Its form follows that of Project
// Wycheproof's test vectors.
type Index struct {
	Generator     string   `json:"generator"`
	NumberOfTests int      `json:"numberOfTests"`
	Header        []string `json:"header"`
	Options       Options  `json:"options"` // of every test, but for what a test gives itself
	Tests         []Test   `json:"tests"`
}

// Test is one vector: the bundle is in NAME.json.
type Test struct {
	ID        int                        `json:"tcId"`
	Name      string                     `json:"name"`
	Comment   string                     `json:"comment"`
	Flags     []string                   `json:"flags,omitempty"`
	CVEs      []string                   `json:"cves,omitempty"`
	Options   map[string]json.RawMessage `json:"options,omitempty"` // members that replace those of Index.Options
	Result    string                     `json:"result"`            // "valid", "invalid" or "undecided"
	Fails     []string                   `json:"fails,omitempty"`
	Warns     []string                   `json:"warns,omitempty"`
	Undecided []string                   `json:"undecided,omitempty"` // required, and unknown or not run for a reason of their own
	Blocked   map[string]string          `json:"blocked,omitempty"`   // check to the check that kept it from running
}

// Options are verify.Options as data.
type Options struct {
	Challenge     quote.Hex  `json:"challenge"`
	Now           time.Time  `json:"now"`
	Roots         [][]byte   `json:"roots"` // DER
	Hosts         []host     `json:"hosts"`
	Guests        []guest    `json:"guests"`
	Activated     []keys     `json:"activated"`
	Host          expect     `json:"host"`
	Guest         expect     `json:"guest"`
	AnyHost       bool       `json:"anyHost"`
	VM            quote.UUID `json:"vm"`
	LinkMinimum   string     `json:"linkMinimum"`
	Previous      *previous  `json:"previous"`
	UnsafeAny     bool       `json:"unsafeAnyChallenge"`
	Intermediates [][]byte   `json:"intermediates"` // DER

	CRLs              [][]byte `json:"crls,omitempty"` // DER
	RequireRevocation bool     `json:"requireRevocation,omitempty"`

	Registered []registration `json:"registered"`
	Xen        *xenHost       `json:"xen,omitempty"`
}

type host struct {
	Name   string    `json:"name"`
	EK     quote.Hex `json:"ek"` // Names, here and below
	AK     quote.Hex `json:"ak"`
	Source string    `json:"source"`
}

type guest struct {
	Name   string     `json:"name"`
	VM     quote.UUID `json:"vm"`
	AK     quote.Hex  `json:"ak"`
	Source string     `json:"source"`
}

type keys struct {
	EK quote.Hex `json:"ek"`
	AK quote.Hex `json:"ak"`
}

type registration struct {
	EK     quote.Hex `json:"ek"`
	AK     quote.Hex `json:"ak"`
	Source string    `json:"source"`
}

type expect struct {
	Bank quote.Alg `json:"bank"`
	PCRs []int     `json:"pcrs"`
	Log  bool      `json:"log"`
	IMA  bool      `json:"ima"`

	TPM             string `json:"tpm,omitempty"` // "1.2"; empty is "2.0"
	AcceptExpiredEK bool   `json:"acceptExpiredEK,omitempty"`

	AcceptSHA1Padded bool `json:"acceptSHA1Padded,omitempty"`
}

type xenHost struct {
	Labels    []string    `json:"labels,omitempty"`
	Groups    []quote.Hex `json:"groups,omitempty"`
	GroupKeys []quote.Hex `json:"groupKeys,omitempty"`
}

type previous struct {
	HostEK     quote.Hex       `json:"hostEK,omitempty"`
	GuestEK    quote.Hex       `json:"guestEK,omitempty"`
	HostAK     quote.Hex       `json:"hostAK"`
	GuestAK    quote.Hex       `json:"guestAK"`
	HostClock  quote.ClockInfo `json:"hostClock"`
	GuestClock quote.ClockInfo `json:"guestClock"`
	HostID     string          `json:"hostID,omitempty"`
}

func newOptions(o verify.Options) Options {
	v := Options{
		Challenge: o.Challenge, Now: o.Now, AnyHost: o.AnyHost, VM: o.VM, LinkMinimum: o.LinkMinimum,
		RequireRevocation: o.RequireRevocation, UnsafeAny: o.UnsafeAnyChallenge, Host: expect(o.Host), Guest: expect(o.Guest),
	}
	for _, c := range o.Anchors.Roots {
		v.Roots = append(v.Roots, c.Raw)
	}
	for _, c := range o.Anchors.Intermediates {
		v.Intermediates = append(v.Intermediates, c.Raw)
	}
	for _, l := range o.Anchors.CRLs {
		v.CRLs = append(v.CRLs, l.Raw)
	}
	for _, h := range o.Anchors.Hosts {
		v.Hosts = append(v.Hosts, host(h))
	}
	for _, g := range o.Anchors.Guests {
		v.Guests = append(v.Guests, guest(g))
	}
	for _, a := range o.Anchors.Activated {
		v.Activated = append(v.Activated, keys(a))
	}
	for _, r := range o.Anchors.Registered {
		v.Registered = append(v.Registered, registration(r))
	}
	if o.Previous != nil {
		p := previous(*o.Previous)
		v.Previous = &p
	}
	if len(o.Xen.Labels)+len(o.Xen.Groups)+len(o.Xen.GroupKeys) > 0 {
		x := xenHost(o.Xen)
		v.Xen = &x
	}
	return v
}

func (v *Options) options() (verify.Options, error) {
	o := verify.Options{
		Challenge: v.Challenge, Now: v.Now, AnyHost: v.AnyHost, VM: v.VM, LinkMinimum: v.LinkMinimum,
		RequireRevocation: v.RequireRevocation, UnsafeAnyChallenge: v.UnsafeAny, Host: verify.Expect(v.Host), Guest: verify.Expect(v.Guest),
	}
	var err error
	if o.Anchors.Roots, err = certificates(v.Roots); err != nil {
		return o, fmt.Errorf("roots: %w", err)
	}
	if o.Anchors.Intermediates, err = certificates(v.Intermediates); err != nil {
		return o, fmt.Errorf("intermediates: %w", err)
	}
	for i, der := range v.CRLs {
		l, err := quote.ParseCRL(der)
		if err != nil {
			return o, fmt.Errorf("crls: %d: %w", i, err)
		}
		o.Anchors.CRLs = append(o.Anchors.CRLs, l)
	}
	for _, h := range v.Hosts {
		o.Anchors.Hosts = append(o.Anchors.Hosts, verify.EnrolledHost(h))
	}
	for _, g := range v.Guests {
		o.Anchors.Guests = append(o.Anchors.Guests, verify.PinnedGuest(g))
	}
	for _, a := range v.Activated {
		o.Anchors.Activated = append(o.Anchors.Activated, verify.Activation(a))
	}
	for _, r := range v.Registered {
		o.Anchors.Registered = append(o.Anchors.Registered, verify.Registration(r))
	}
	if v.Previous != nil {
		p := verify.Previous(*v.Previous)
		o.Previous = &p
	}
	if v.Xen != nil {
		o.Xen = verify.XenExpect(*v.Xen)
	}
	return o, nil
}

func certificates(ders [][]byte) (list []*x509.Certificate, err error) {
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i, err)
		}
		list = append(list, c)
	}
	return list, nil
}

// members splits options into the members of their JSON object.
func (v Options) members() (map[string]json.RawMessage, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var m map[string]json.RawMessage
	return m, json.Unmarshal(data, &m)
}

// TestOptions returns the options of a test.
func (x *Index) TestOptions(t *Test) (verify.Options, error) {
	m, err := x.Options.members()
	if err != nil {
		return verify.Options{}, err
	}
	for name, value := range t.Options {
		m[name] = value
	}
	data, err := json.Marshal(m)
	if err != nil {
		return verify.Options{}, err
	}
	var v Options
	if err := json.Unmarshal(data, &v); err != nil {
		return verify.Options{}, fmt.Errorf("vector %s: options: %w", t.Name, err)
	}
	return v.options()
}

// Files makes the folder of all vectors: index and bundles by file name. It
// fails when a bundle's outcome is not what its vector says.
func Files() (map[string][]byte, error) {
	files := make(map[string][]byte)
	x := Index{
		Generator: "go run ./internal/testlab/gen",
		Header: []string{
			"Each test is a bundle, NAME.json, with the options of its verification and every check that does not hold.",
			"Members of a test's options replace those of the whole file.",
		},
	}
	var base map[string]json.RawMessage
	for i, v := range Vectors() {
		bundle, opts, err := v.Build()
		if err != nil {
			return nil, err
		}
		options := newOptions(opts)
		if i == 0 {
			x.Options = options
			if base, err = options.members(); err != nil {
				return nil, err
			}
		}
		m, err := options.members()
		if err != nil {
			return nil, err
		}
		for name, value := range base {
			if bytes.Equal(m[name], value) {
				delete(m, name)
			}
		}
		t := Test{ID: i + 1, Name: v.Name, Comment: v.Comment, Flags: v.Flags, CVEs: v.CVEs, Options: m}
		if err := t.judge(&v, bundle, opts); err != nil {
			return nil, err
		}
		if _, dup := files[v.Name+".json"]; dup {
			return nil, fmt.Errorf("vector %s: its name is taken", v.Name)
		}
		files[v.Name+".json"] = bundle
		x.Tests = append(x.Tests, t)
	}
	x.NumberOfTests = len(x.Tests)
	index, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return nil, err
	}
	files["vectors.json"] = append(index, '\n')
	return files, nil
}

// judge fills in the outcome, which has to be the vector's.
func (t *Test) judge(v *Vector, bundle []byte, opts verify.Options) error {
	r, err := verify.Evidence(bundle, opts)
	if err != nil {
		return fmt.Errorf("vector %s: %w", v.Name, err)
	}
	t.Outcome(r)
	for _, s := range []struct {
		what      string
		got, want []string
	}{{"fails", t.Fails, v.Fails}, {"warns", t.Warns, v.Warns}, {"undecided", t.Undecided, v.Undecided}} {
		if !sameSet(s.got, s.want) {
			return fmt.Errorf("vector %s: %s %q, want %q", v.Name, s.what, s.got, s.want)
		}
	}
	return nil
}

// Outcome fills in what a report says, in the order of the catalogue.
func (t *Test) Outcome(r *verify.Report) {
	t.Result, t.Fails, t.Warns, t.Undecided, t.Blocked = "valid", nil, nil, nil, nil
	for _, c := range r.Checks {
		switch {
		case c.Status == verify.Pass, c.Status == verify.NotApplicable:
		case c.Status == verify.Warn:
			t.Warns = append(t.Warns, c.ID)
		case c.Status == verify.Fail:
			t.Fails = append(t.Fails, c.ID)
		case c.BlockedBy != "":
			if t.Blocked == nil {
				t.Blocked = make(map[string]string)
			}
			t.Blocked[c.ID] = c.BlockedBy
		case c.Required:
			t.Undecided = append(t.Undecided, c.ID)
		}
	}
	switch {
	case len(t.Fails) > 0:
		t.Result = "invalid"
	case len(t.Undecided) > 0:
		t.Result = "undecided"
	}
}

func sameSet(a, b []string) bool {
	in := make(map[string]bool, len(a))
	for _, s := range a {
		in[s] = true
	}
	for _, s := range b {
		if !in[s] {
			return false
		}
	}
	return len(a) == len(b)
}
