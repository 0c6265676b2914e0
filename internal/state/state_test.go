package state

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func write(path string, data []byte, mode fs.FileMode) error { return os.WriteFile(path, data, mode) }

func result(v policy.Verdict, resets uint32) *policy.Result {
	claims := func(ak byte) *policy.LayerClaims {
		return &policy.LayerClaims{EK: quote.Hex{0, 0x0b, ak, 1}, AK: quote.Hex{0, 0x0b, ak}, Bank: quote.SHA256, SecureBoot: "unknown", Clock: quote.ClockInfo{ResetCount: resets}}
	}
	return &policy.Result{
		MediaType: policy.ResultMediaType, Verdict: v, Reason: "r", Now: time.Unix(1800000000, 0).UTC(),
		Layers: []policy.LayerResult{
			{Layer: verify.Host, Claims: claims(1)}, {Layer: verify.Link}, {Layer: verify.Guest, Claims: claims(2)},
		},
	}
}

// The accepted result is the last trusted one, whatever came after it.
func TestKeep(t *testing.T) {
	d := Dir(filepath.Join(t.TempDir(), "state"))
	if last, err := d.Last(); last != nil || err != nil {
		t.Fatalf("empty: %v, %v", last, err)
	}
	for i, step := range []struct {
		verdict policy.Verdict
		want    uint32 // resets of the accepted result; 0: none
	}{
		{policy.Untrusted, 0}, {policy.Trusted, 2}, {policy.Rejected, 2}, {policy.Inconclusive, 2}, {policy.Trusted, 5},
	} {
		if err := d.Keep(result(step.verdict, uint32(i+1)), write); err != nil {
			t.Fatal(err)
		}
		last, err := d.Last()
		if err != nil || last.Verdict != step.verdict {
			t.Fatalf("step %d: last %v, %v", i, last, err)
		}
		accepted, err := d.Accepted()
		if err != nil {
			t.Fatal(err)
		}
		p := Previous(accepted)
		if step.want == 0 {
			if p != nil {
				t.Errorf("step %d: previous %+v", i, p)
			}
			continue
		}
		want := &verify.Previous{
			HostEK: quote.Hex{0, 0x0b, 1, 1}, GuestEK: quote.Hex{0, 0x0b, 2, 1},
			HostAK: quote.Hex{0, 0x0b, 1}, GuestAK: quote.Hex{0, 0x0b, 2},
			HostClock: quote.ClockInfo{ResetCount: step.want}, GuestClock: quote.ClockInfo{ResetCount: step.want},
		}
		if diff := cmp.Diff(want, p); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
	}
}

func TestPreviousNeedsATrustedResultWithAHost(t *testing.T) {
	if Previous(nil) != nil || Previous(result(policy.Untrusted, 1)) != nil {
		t.Error("made of nothing, or of an untrusted result")
	}
	r := result(policy.Trusted, 1)
	r.Layers[2].Claims.AK = nil // as under a deep quote
	if p := Previous(r); p == nil || p.GuestAK != nil || len(p.HostAK) == 0 {
		t.Errorf("of a guest without a key: %+v", p)
	}
	r.Layers[0].Claims = nil
	if Previous(r) != nil {
		t.Error("made without a host")
	}
}

func TestBrokenState(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "last.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Dir(dir).Last()
	if err == nil || !strings.Contains(err.Error(), "last.json") || !strings.Contains(err.Error(), "remove") {
		t.Errorf("error %v", err)
	}
}
