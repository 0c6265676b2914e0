package verify_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// TestLogOfOtherValuesSaysNothing: what a log says of a PCR counts only while it gives
// that PCR's value.
func TestLogOfOtherValuesSaysNothing(t *testing.T) {
	read := func(name string, edit func(pcrs map[int]quote.Hex)) *verify.Log {
		t.Helper()
		b, err := quote.ParseBundle(find(t, name).bundle)
		if err != nil {
			t.Fatal(err)
		}
		edit(b.Guest.PCRs[quote.SHA256])
		log, err := verify.ReadLog(b.Guest, quote.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return log
	}
	other := func(list ...int) func(map[int]quote.Hex) {
		return func(pcrs map[int]quote.Hex) {
			for n := range pcrs {
				if len(list) == 0 || slices.Contains(list, n) {
					pcrs[n] = make(quote.Hex, 32)
				}
			}
		}
	}
	secureBoot := func(l *verify.Log) bool { state, err := l.SecureBoot(); return state != nil && err == nil }
	kernel := []int{4, 9, 11}
	whole := read("GoodWithLogs", func(map[int]quote.Hex) {})
	if !secureBoot(whole) || len(whole.CommandLines(nil).Lines) == 0 || !whole.MeasuresKernel(kernel...) {
		t.Fatalf("the premise is gone: Secure Boot %t, command lines %v, kernel %t", secureBoot(whole), whole.CommandLines(nil), whole.MeasuresKernel(kernel...))
	}
	if log := read("GoodWithLogs", other(7)); secureBoot(log) || slices.Contains(log.Replayed(), 7) || len(log.Records(7)) != 0 {
		t.Error("Secure Boot by a log that does not give PCR 7")
	}
	if log := read("GoodWithLogs", other(quote.CommandLinePCRs()...)); len(log.CommandLines(nil).Lines) != 0 {
		t.Errorf("command lines %v by a log that does not give their PCRs", log.CommandLines(nil).Lines)
	}
	if log := read("GoodWithLogs", other(kernel...)); log == nil || log.MeasuresKernel(kernel...) {
		t.Error("a kernel in a log that does not give PCRs 4, 9 and 11")
	}
	if log := read("GoodWithLogs", other()); log != nil {
		t.Errorf("a log that gives no value explains %v", log.Replayed())
	}
	if log := read("GuestUserspaceLog", func(map[int]quote.Hex) {}); !slices.Contains(log.Replayed(), 11) && !slices.Contains(log.Replayed(), 15) {
		t.Errorf("with systemd's log only %v", log.Replayed())
	}
}

// TestRecordsLaterThanTheQuote: systemd's log is read after the quote, and what was
// measured in between is in no value that was quoted.
func TestRecordsLaterThanTheQuote(t *testing.T) {
	b, err := quote.ParseBundle(find(t, "GuestUserspaceLog").bundle)
	if err != nil {
		t.Fatal(err)
	}
	records := func() (n int, names []string) {
		t.Helper()
		log, err := verify.ReadLog(b.Guest, quote.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range log.Components() {
			names = append(names, c.Name)
		}
		return len(log.Records(15)), names
	}
	before, names := records()
	if before == 0 {
		t.Fatal("the premise is gone: no record of PCR 15")
	}
	b.Guest.Logs.Userspace = append(b.Guest.Logs.Userspace, "\x1e{\"pcr\":15,\"digests\":[{\"hashAlg\":\"sha256\",\"digest\":\""+strings.Repeat("ab", 32)+"\"}],\"content\":{\"string\":\"later\",\"eventType\":\"filesystem\"}}\n"...)
	if after, more := records(); after != before || !slices.Equal(more, names) {
		t.Errorf("%d records of PCR 15 and then %d; components %q", before, after, more)
	}
}

// TestLoggedPCRThatWasNotExtended: a PCR as the TPM started it does not go with events
// of it, in whichever layer.
func TestLoggedPCRThatWasNotExtended(t *testing.T) {
	for _, layer := range []verify.Layer{verify.Host, verify.Guest} {
		for _, n := range []int{4, 14} { // the firmware's and the boot loader's
			b, opts := changed(t, func(w *testlab.World) error {
				m := w.Host
				if layer == verify.Guest {
					m = w.Guest
				}
				if n == 14 {
					event := testlab.MeasuredText(n, quote.EventIPL, []byte("MokList"), []byte("MokList"))
					if err := m.Remeasure(func(list []quote.Event) []quote.Event { return append(list, event) }); err != nil {
						return err
					}
				}
				m.PCRs[quote.SHA256][n] = make(quote.Hex, 32)
				return nil
			})
			opts.Host.Log, opts.Guest.Log = true, true
			if c, _ := reportOf(t, b, opts).Check(string(layer) + ".log.replay"); c.Status != verify.Fail {
				t.Errorf("%s PCR %d: %s (%s), want fail", layer, n, c.Status, c.Detail)
			}
		}
	}
}

// TestIdentityKeyOf1024Bits: a TPM 1.2 makes identity keys of 2048 bits and no other.
func TestIdentityKeyOf1024Bits(t *testing.T) {
	good := find(t, "XenGood")
	b, err := quote.ParseBundle(good.bundle)
	if err != nil {
		t.Fatal(err)
	}
	modulus := b.Host.AK.Public[len(b.Host.AK.Public)-256:]
	b.Host.AK.Public = quote.NewIdentityPubkey(modulus[:128])
	if _, err := quote.ParsePubkey(b.Host.AK.Public); err != nil {
		t.Fatalf("the premise is gone: %v", err)
	}
	if c, _ := reportOf(t, b, good.options).Check("host.ak.attributes"); c.Status != verify.Fail {
		t.Errorf("RSA-1024: %s (%s)", c.Status, c.Detail)
	}
}

// TestNameIsThatOfThePinnedKey: a guest is called by the pin of its own key and by no
// other.
func TestNameIsThatOfThePinnedKey(t *testing.T) {
	pinned := find(t, "GuestPinned")
	for name, pin := range map[string]verify.PinnedGuest{
		"another key's": {Name: "other", AK: quote.Hex{0, 0x0b, 1}},
		"no key's":      {Name: "other"},
	} {
		opts := pinned.options
		opts.Anchors.Guests = append(slices.Clone(opts.Anchors.Guests), pin)
		r := report(t, vector{Test: pinned.Test, bundle: pinned.bundle, options: opts})
		if r.Guest() == nil || r.Guest().Name != pinned.options.Anchors.Guests[0].Name {
			t.Errorf("with %s pin the guest is %+v", name, r.Guest())
		}
	}
}
