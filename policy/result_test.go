package policy_test

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func goodResult(t testing.TB) []byte {
	t.Helper()
	data, err := (&scene{context: policy.Context{Verified: policy.OffGuest}}).result(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestResultRoundTrip: reading gives back what was written, all of it.
func TestResultRoundTrip(t *testing.T) {
	full := &policy.Result{
		MediaType: policy.ResultMediaType, Verdict: policy.Untrusted, Reason: "because <&> \u2028", Verified: policy.OffGuest,
		Now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), Challenge: quote.Hex{1, 2}, Evidence: quote.Hex{3},
		Policy: policy.PolicyRef{Name: "p", Digest: quote.Hex{4}}, Anchors: []string{"a", "b"},
		Layers: []policy.LayerResult{{
			Layer: verify.Host, Verdict: policy.Trusted, Name: "h", Summary: "s",
			Claims: &policy.LayerClaims{
				Maker: "IFX", Model: "m", Firmware: "0010001200000000", EK: quote.Hex{5}, AK: quote.Hex{6}, Bank: quote.SHA384,
				PCRs: map[int]quote.Hex{0: {7}, 10: {8}, 2: {9}}, Replayed: []int{0, 2},
				Clock: quote.ClockInfo{Clock: 1 << 63, ResetCount: 2, RestartCount: 3, Safe: true}, SecureBoot: "enabled", CommandLine: []string{"ro \"x\""},
			},
		}, {Layer: verify.Link, Verdict: policy.Rejected, Name: quote.LinkNone, Summary: "s"}},
		Checks: []policy.CheckResult{
			{Check: verify.Check{ID: "a", Layer: verify.Host, Status: verify.Malfunction, Required: true, Detail: "d", Got: "g", Want: "w", Where: "x", BlockedBy: "b"}, Remedy: "tenant: r"},
			{Check: verify.Check{ID: "b", Layer: verify.Policy, Status: verify.NotRun, Detail: "d"}},
		},
		Unsafe: []string{"u"}, Limits: []string{"l"},
	}
	data, err := full.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := policy.DecodeResult(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(full, back); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
	for _, data := range [][]byte{data, goodResult(t)} {
		if !bytes.HasSuffix(data, []byte("}\n")) || !json.Valid(data) {
			t.Errorf("%.80q", data)
		}
		if order := regexp.MustCompile(`(?m)^  "(\w+)"`).FindAllStringSubmatch(string(data), -1); order[0][1] != "mediaType" || order[1][1] != "verdict" {
			t.Errorf("order %v", order)
		}
	}
}

// TestResultFields: what programs read out of a result is where the schema has it.
func TestResultFields(t *testing.T) {
	var r struct {
		MediaType, Verdict, Verified, Now, Challenge string
		Policy                                       struct{ Name, Digest string }
		Anchors                                      []string
		Layers                                       []struct {
			Layer, Verdict, Name string
			Claims               *struct {
				Firmware, SecureBoot, Bank, Maker string
				PCRs                              map[string]string
				Replayed                          []int
			}
		}
		Checks []struct {
			ID, Layer, Status string
			Required          *bool
		}
	}
	if err := json.Unmarshal(goodResult(t), &r); err != nil {
		t.Fatal(err)
	}
	if r.Verdict != "trusted" || r.Verified != "off-guest" || r.Now != "2026-11-24T12:00:00Z" || len(r.Anchors) != 2 || len(r.Policy.Digest) != 64 {
		t.Errorf("%+v", r)
	}
	host, link, guest := r.Layers[0], r.Layers[1], r.Layers[2]
	if host.Claims.Firmware != "0010001200000000" || host.Claims.Maker != "IFX" || host.Claims.SecureBoot != "disabled" || host.Claims.Bank != "sha256" || len(host.Claims.PCRs) != 16 || host.Name != "host-a" {
		t.Errorf("host %+v", host)
	}
	if link.Name != quote.LinkHostVouched || link.Claims != nil || guest.Claims.SecureBoot != "enabled" || len(guest.Claims.Replayed) == 0 || guest.Name != "4b1ee5d8-5f0c-4a52-9d53-3c6f4d1f6f01" {
		t.Errorf("link %+v, guest %+v", link, guest)
	}
	for _, c := range r.Checks {
		if c.ID == "" || c.Status == "" || c.Required == nil {
			t.Errorf("check %+v", c)
		}
	}
}

// TestDecodeResultRefuses: a stored result that is not exactly one of this version
// is none.
func TestDecodeResultRefuses(t *testing.T) {
	good := string(goodResult(t))
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in the result", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, c := range map[string]struct{ data, reason string }{
		"nothing":              {"", "not a result"},
		"not JSON":             {"trusted\n", "not a result"},
		"null":                 {"null\n", "media type"},
		"empty":                {"{}\n", "media type"},
		"cut":                  {good[:len(good)/2], "not a result"},
		"trailing":             {good + "{}", "not a result"},
		"other version":        {replace("result.v1+json", "result.v2+json"), "media type"},
		"evidence":             {replace("deepattest.result.v1", "deepattest.evidence.v1"), "media type"},
		"long media type":      {replace("application/", strings.Repeat("x", 5000)), "media type"},
		"unknown member":       {replace(`"verdict"`, `"approved": true, "verdict"`), "approved"},
		"unknown member deep":  {replace(`"firmware"`, `"signed": true, "firmware"`), "signed"},
		"duplicate member":     {replace(`"verdict": "trusted"`, `"verdict": "rejected", "verdict": "trusted"`), "verdict"},
		"member in other case": {replace(`"verdict"`, `"Verdict"`), "Verdict"},
		"unknown verdict":      {replace(`"verdict": "trusted"`, `"verdict": "fine"`), "fine"},
		"verdict is a number":  {replace(`"verdict": "trusted"`, `"verdict": 1`), "verdict"},
		"unknown status":       {replace(`"status": "pass"`, `"status": "ok"`), "ok"},
		"bad time":             {replace("2026-11-24T12:00:00Z", "yesterday"), "now"},
		"bad hex":              {replace(`"challenge": "`, `"challenge": "zz`), "challenge"},
		"upper-case hex":       {replace(`"challenge": "`, `"challenge": "AA`), "challenge"},
		"PCR name":             {replace(`"0": "`, `"00": "`), "pcrs"},
		"invalid UTF-8":        {replace("host-a", "host-\xff"), "UTF-8"},
		"too long":             {good + strings.Repeat(" ", policy.MaxResult), "at most"},
	} {
		r, err := policy.DecodeResult([]byte(c.data))
		if err == nil || r != nil {
			t.Errorf("%s: is read as %+v", name, r)
			continue
		}
		if !strings.Contains(err.Error(), c.reason) || len(err.Error()) > 1000 {
			t.Errorf("%s: %v; want %q in it", name, err, c.reason)
		}
	}
}

// FuzzDecodeResult: what is read is written again as something that reads the same.
func FuzzDecodeResult(f *testing.F) {
	f.Add(goodResult(f))
	f.Add([]byte(`{"mediaType": "` + policy.ResultMediaType + `"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := policy.DecodeResult(data)
		if err != nil {
			return
		}
		out, err := r.Encode()
		if err != nil {
			t.Skip(err) // a time or algorithm that has no written form
		}
		again, err := policy.DecodeResult(out)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := again.Encode(); err != nil || !bytes.Equal(out, second) {
			t.Errorf("%v: %s", err, cmp.Diff(string(out), string(second)))
		}
	})
}
