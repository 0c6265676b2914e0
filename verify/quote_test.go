package verify_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// plain is a quote that a TPM made over the verifier's own qualifying data, with what a
// verifier that pinned its attestation key knows.
func plain(t *testing.T) (*quote.Layer, verify.QuoteOptions) {
	t.Helper()
	w, err := testlab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	b, err := w.Bundle(testlab.Challenge(1))
	if err != nil {
		t.Fatal(err)
	}
	asked := testlab.Challenge(9)
	a, err := quote.ParseAttest(b.Guest.Quote.Attest)
	if err != nil {
		t.Fatal(err)
	}
	a.ExtraData = asked
	if err := w.SignGuest(b, a); err != nil {
		t.Fatal(err)
	}
	ak, err := w.Guest.AK.Name()
	if err != nil {
		t.Fatal(err)
	}
	return b.Guest, verify.QuoteOptions{
		QualifyingData: asked, Now: w.Now,
		Anchors: verify.Anchors{Hosts: []verify.EnrolledHost{{Name: "server", AK: ak, Source: "pins.txt"}}},
		Expect:  verify.Expect{Bank: quote.SHA256, PCRs: []int{0, 4, 7}, Log: true},
	}
}

func names(checks []verify.Check) []string {
	var list []string
	for _, c := range checks {
		list = append(list, c.ID+" "+c.Status.String())
	}
	return list
}

// TestQuote: each way to know a key, and whatever is wrong with a quote, shows by the
// check of the catalogue that is about it.
func TestQuote(t *testing.T) {
	otherKey := func(t *testing.T) quote.Hex {
		t.Helper()
		w, err := testlab.NewWorld()
		if err != nil {
			t.Fatal(err)
		}
		ak, err := w.Host.AK.Name()
		if err != nil {
			t.Fatal(err)
		}
		return ak
	}
	ekName := func(t *testing.T, l *quote.Layer) quote.Hex {
		t.Helper()
		ek, err := quote.ParsePublic(l.EK.Public)
		if err != nil {
			t.Fatal(err)
		}
		return ek.Name()
	}
	for name, c := range map[string]struct {
		edit func(t *testing.T, l *quote.Layer, o *verify.QuoteOptions)
		want []string // of Failed
	}{
		"the key is pinned":      {func(*testing.T, *quote.Layer, *verify.QuoteOptions) {}, nil},
		"pinned, no EK is shown": {func(_ *testing.T, l *quote.Layer, _ *verify.QuoteOptions) { l.EK = quote.EK{} }, nil},
		"both keys enrolled": {func(t *testing.T, l *quote.Layer, o *verify.QuoteOptions) {
			o.Anchors.Hosts[0].EK = ekName(t, l)
		}, nil},
		"the EK enrolled, the AK activated": {func(t *testing.T, l *quote.Layer, o *verify.QuoteOptions) {
			h := &o.Anchors.Hosts[0]
			h.EK = ekName(t, l)
			o.Anchors.Activated = []verify.Activation{{EK: h.EK, AK: h.AK}}
			h.AK = nil
		}, nil},
		"the EK enrolled and nothing said of the AK": {func(t *testing.T, l *quote.Layer, o *verify.QuoteOptions) {
			o.Anchors.Hosts[0].EK, o.Anchors.Hosts[0].AK = ekName(t, l), nil
		}, []string{"host.ak.bound unknown"}},
		"both enrolled, no EK is shown": {func(t *testing.T, l *quote.Layer, o *verify.QuoteOptions) {
			o.Anchors.Hosts[0].EK, l.EK = ekName(t, l), quote.EK{}
		}, []string{"host.ek.chain fail", "host.ek.enrolled fail", "host.ak.bound fail"}},
		"pinned, half an EK": {func(_ *testing.T, l *quote.Layer, _ *verify.QuoteOptions) { l.EK.Public = l.EK.Public[:9] },
			[]string{"host.ek.chain fail", "host.ak.bound fail"}},
		"nothing is trusted": {func(_ *testing.T, _ *quote.Layer, o *verify.QuoteOptions) { o.Anchors = verify.Anchors{} },
			[]string{"host.ek.chain unknown", "host.ek.enrolled unknown", "host.ak.bound unknown"}},
		"any TPM, of which no maker is known": {func(_ *testing.T, _ *quote.Layer, o *verify.QuoteOptions) {
			o.Anchors, o.AnyHost = verify.Anchors{}, true
		}, []string{"host.ek.chain unknown", "host.ak.bound unknown"}},
		"another key is pinned": {func(t *testing.T, _ *quote.Layer, o *verify.QuoteOptions) { o.Anchors.Hosts[0].AK = otherKey(t) },
			[]string{"host.ek.enrolled fail"}},
		"other qualifying data": {func(_ *testing.T, _ *quote.Layer, o *verify.QuoteOptions) { o.QualifyingData = testlab.Challenge(8) },
			[]string{"host.quote.nonce fail"}},
		"the start of the qualifying data": {func(_ *testing.T, _ *quote.Layer, o *verify.QuoteOptions) { o.QualifyingData = o.QualifyingData[:16] },
			[]string{"host.quote.nonce fail"}},
		"another signature": {func(_ *testing.T, l *quote.Layer, _ *verify.QuoteOptions) { l.Quote.Signature[40] ^= 1 },
			[]string{"host.quote.signature fail"}},
		"another PCR value": {func(_ *testing.T, l *quote.Layer, _ *verify.QuoteOptions) { l.PCRs[quote.SHA256][4][0] ^= 1 },
			[]string{"host.quote.pcr-digest fail"}},
		"a PCR that is not quoted": {func(_ *testing.T, _ *quote.Layer, o *verify.QuoteOptions) { o.Expect.PCRs = []int{23} },
			[]string{"host.quote.selection fail"}},
		"another bank": {func(_ *testing.T, _ *quote.Layer, o *verify.QuoteOptions) { o.Expect.Bank = quote.SHA384 },
			[]string{"host.quote.bank fail"}},
		"another family": {func(_ *testing.T, _ *quote.Layer, o *verify.QuoteOptions) {
			o.Expect = verify.Expect{TPM: quote.Version12, Bank: quote.SHA1}
		}, []string{"host.ak.attributes fail"}},
		"no log where one is needed": {func(_ *testing.T, l *quote.Layer, _ *verify.QuoteOptions) { l.Logs = quote.Logs{} },
			[]string{"host.log.parse not-run"}},
		"no quote": {func(_ *testing.T, l *quote.Layer, _ *verify.QuoteOptions) { l.Quote = quote.Quote{} },
			[]string{"host.quote.magic fail", "host.quote.type fail"}},
		"nothing at all": {func(_ *testing.T, l *quote.Layer, _ *verify.QuoteOptions) { *l = quote.Layer{} },
			[]string{"host.ek.chain fail", "host.ek.enrolled fail", "host.ak.attributes fail"}},
		"a value that no bundle may have": {func(_ *testing.T, l *quote.Layer, _ *verify.QuoteOptions) { l.PCRs[quote.SHA256][4] = quote.Hex{} },
			[]string{"bundle.format fail"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, o := plain(t)
			c.edit(t, l, &o)
			r, err := verify.Quote(l, o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, names(r.Failed())); diff != "" {
				t.Errorf("failed (-want +got):\n%s", diff)
			}
			if (r.Host() != nil) != (c.want == nil) || r.Guest() != nil || r.LinkMethod != quote.LinkNone {
				t.Errorf("claims of the host %t, of a guest %t, link %s", r.Host() != nil, r.Guest() != nil, r.LinkMethod)
			}
			if h := r.Host(); h != nil && (h.Name != "server" || !slices.Equal(h.PCRs[4], l.PCRs[quote.SHA256][4])) {
				t.Errorf("claims %+v", h)
			}
			var want []string
			for _, s := range verify.Catalogue() {
				if s.Layer == verify.Format || s.Layer == verify.Host {
					want = append(want, s.ID)
				}
			}
			var got []string
			for _, c := range r.Checks {
				got = append(got, c.ID)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("checks (-want +got):\n%s", diff)
			}
		})
	}
}

// TestQuoteNamesWhatIsMalformed: a layer that no bundle may hold fails with its place.
func TestQuoteNamesWhatIsMalformed(t *testing.T) {
	l, o := plain(t)
	l.PCRs[quote.SHA256][4] = quote.Hex{}
	r, err := verify.Quote(l, o)
	if err != nil {
		t.Fatal(err)
	}
	if c, _ := r.Check("bundle.format"); !strings.Contains(c.Got, "/host/pcrs: sha256 PCR 4: 0 bytes") {
		t.Errorf("%+v", c)
	}
}

// TestQuoteIsNotTheProtocols: what a host signed for a bundle's leaf is over a
// challenge of the protocol, which is not the qualifying data.
func TestQuoteIsNotTheProtocols(t *testing.T) {
	good := find(t, "Good")
	b, err := quote.ParseBundle(good.bundle)
	if err != nil {
		t.Fatal(err)
	}
	o := verify.QuoteOptions{QualifyingData: good.options.Challenge, Now: good.options.Now, Anchors: good.options.Anchors}
	for qualifier, want := range map[string][]string{
		string(good.options.Challenge): {"host.quote.nonce fail"},
		string(qualifierOf(t, b)):      nil,
	} {
		o.QualifyingData = []byte(qualifier)
		r, err := verify.Quote(b.Host, o)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, names(r.Failed())); diff != "" {
			t.Errorf("%x (-want +got):\n%s", qualifier, diff)
		}
	}
}

func qualifierOf(t *testing.T, b *quote.Bundle) []byte {
	t.Helper()
	root, err := b.Link.Root(b.Challenge)
	if err != nil {
		t.Fatal(err)
	}
	return quote.HostQualifier(b.Link.TreeSize, root)
}

// TestQuoteTPM12: a TPM 1.2's quote over externalData is held to the same catalogue.
func TestQuoteTPM12(t *testing.T) {
	s := find(t, "XenGood")
	b, err := quote.ParseBundle(s.bundle)
	if err != nil {
		t.Fatal(err)
	}
	info, err := quote.ParseQuoteInfo(b.Host.Quote.Attest)
	if err != nil {
		t.Fatal(err)
	}
	o := verify.QuoteOptions{QualifyingData: info.ExternalData, Now: s.options.Now, Anchors: s.options.Anchors, Expect: s.options.Host}
	r, err := verify.Quote(b.Host, o)
	if err != nil || r.Host() == nil || len(r.Failed()) > 0 || !r.SHA1 {
		t.Fatalf("%v, %v", err, names(r.Failed()))
	}
	o.QualifyingData = testlab.Challenge(1)
	if r, err = verify.Quote(b.Host, o); err != nil || r.Host() != nil || !slices.Equal(names(r.Failed()), []string{"host.quote.nonce fail"}) {
		t.Errorf("other data: %v, %v", err, names(r.Failed()))
	}
}

// TestQuoteOptionsRefused: misuse is an error that names what to mend.
func TestQuoteOptionsRefused(t *testing.T) {
	for want, edit := range map[string]func(l **quote.Layer, o *verify.QuoteOptions){
		"no layer":                         func(l **quote.Layer, _ *verify.QuoteOptions) { *l = nil },
		"qualifying data: ":                func(_ **quote.Layer, o *verify.QuoteOptions) { o.QualifyingData = nil },
		"qualifying data: challenge of 15": func(_ **quote.Layer, o *verify.QuoteOptions) { o.QualifyingData = o.QualifyingData[:15] },
		"time of appraisal":                func(_ **quote.Layer, o *verify.QuoteOptions) { o.Now = time.Time{} },
		"Anchors.Guests":                   func(_ **quote.Layer, o *verify.QuoteOptions) { o.Anchors.Guests = make([]verify.PinnedGuest, 1) },
		"bank sha384": func(_ **quote.Layer, o *verify.QuoteOptions) {
			o.Expect = verify.Expect{TPM: quote.Version12, Bank: quote.SHA384}
		},
	} {
		l, o := plain(t)
		edit(&l, &o)
		if r, err := verify.Quote(l, o); !errors.Is(err, verify.ErrOptions) || r != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: report %t, %v", want, r != nil, err)
		}
	}
}

// TestDeciding: causes, the worst kind of them, and nothing that follows from them.
func TestDeciding(t *testing.T) {
	check := func(id string, layer verify.Layer, status verify.Status, required bool, by string) verify.Check {
		return verify.Check{ID: id, Layer: layer, Status: status, Required: required, BlockedBy: by}
	}
	good := check("good", verify.Host, verify.Pass, true, "")
	unknown := check("unknown", verify.Host, verify.Unknown, true, "")
	blocked := check("blocked", verify.Host, verify.NotRun, true, "unknown")
	again := check("again", verify.Policy, verify.NotRun, true, "blocked")
	idle := check("idle", verify.Host, verify.Unknown, false, "")
	middle := check("middle", verify.Host, verify.NotRun, false, "idle")
	orphan := check("orphan", verify.Policy, verify.NotRun, true, "middle")
	child := check("child", verify.Policy, verify.NotRun, true, "orphan")
	untrusted := check("untrusted", verify.Policy, verify.Fail, true, "")
	tolerated := check("tolerated", verify.Policy, verify.Fail, false, "")
	forged := check("forged", verify.Link, verify.Fail, false, "")
	hint := check("hint", verify.Context, verify.Fail, false, "")
	fault := check("fault", verify.Guest, verify.Malfunction, true, "")
	for name, c := range map[string]struct {
		checks []verify.Check
		want   string
	}{
		"nothing":                            {nil, ""},
		"all hold":                           {[]verify.Check{good, idle, tolerated, hint, check("w", verify.Host, verify.Warn, true, ""), check("n", verify.Host, verify.NotApplicable, true, "")}, ""},
		"a failure is proof":                 {[]verify.Check{good, unknown, untrusted, forged, blocked}, "forged"},
		"all failures":                       {[]verify.Check{forged, check("f", verify.Format, verify.Fail, true, ""), check("later", "a layer of a later version", verify.Fail, true, "")}, "forged f later"},
		"the policy's":                       {[]verify.Check{unknown, untrusted, tolerated, blocked}, "untrusted"},
		"causes":                             {[]verify.Check{blocked, again, unknown, fault}, "unknown fault"},
		"a cause that does not count":        {[]verify.Check{idle, middle, orphan, child}, "orphan"},
		"both":                               {[]verify.Check{orphan, idle, middle, unknown, blocked, child}, "unknown orphan"},
		"by something that is not there":     {[]verify.Check{again}, "again"},
		"a circle":                           {[]verify.Check{check("a", verify.Host, verify.NotRun, true, "b"), check("b", verify.Host, verify.NotRun, true, "a")}, "a b"},
		"a circle of those that don't count": {[]verify.Check{check("a", verify.Host, verify.NotRun, false, "b"), check("b", verify.Host, verify.NotRun, false, "a"), check("c", verify.Host, verify.NotRun, true, "a")}, "c"},
	} {
		var got []string
		for _, d := range verify.Deciding(c.checks) {
			got = append(got, d.ID)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
