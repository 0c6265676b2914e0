package verify_test

import (
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
	"github.com/deepattest/deepattest/verify"
)

// What a list says counts where rules rest on it; the cause is named either way.
func TestIMAListsThatProveNothing(t *testing.T) {
	for _, tt := range []struct {
		vector string
		edit   func(*verify.Expect)
		want   verify.Status
		detail string
		proven bool // entries count
	}{
		{"GuestIMAOtherPCR", nil, verify.Unknown, "the IMA list is of PCR 11: the kernel was built with another CONFIG_IMA_MEASURE_PCR_IDX", false},
		{"GuestIMAOtherPCR", func(e *verify.Expect) { e.IMA = false }, verify.Warn, "the IMA list is of PCR 11", false},
		{"GuestIMAPadded", nil, verify.Unknown, "the kernel is older than 5.8", false},
		{"GuestIMAPadded", func(e *verify.Expect) { e.IMA = false }, verify.Unknown, "the kernel is older than 5.8", false},
		{"GuestIMAPadded", func(e *verify.Expect) { e.AcceptSHA1Padded = true }, verify.Pass, "entries give PCR 10", true},
		{"GuestIMAKexec", nil, verify.Warn, "by 1 of them another kernel was started from the running one (kexec)", true},
		{"GuestIMABehindFirmware", nil, verify.Pass, "entries give PCR 10", true},
		{"GuestIMAFirmwareEventInvented", nil, verify.Fail, "from what the firmware's log leaves there", false},
	} {
		v := find(t, tt.vector)
		if tt.edit != nil {
			tt.edit(&v.options.Guest)
		}
		r := report(t, v)
		c, _ := r.Check("guest.ima.replay")
		if c.Status != tt.want || !strings.Contains(c.Detail, tt.detail) {
			t.Errorf("%s: %s: %s; want %s: %s", tt.vector, c.Status, c.Detail, tt.want, tt.detail)
		}
		if guest := r.Guest(); guest != nil && (len(guest.IMA) > 0) != tt.proven {
			t.Errorf("%s: %d bytes of the list count", tt.vector, len(guest.IMA))
		}
	}
	b, err := quote.ParseBundle(find(t, "GuestIMABehindFirmware").bundle)
	if err != nil {
		t.Fatal(err)
	}
	if log, err := verify.ReadLog(b.Guest, quote.SHA256); err != nil || len(log.Records(ima.PCR)) != 0 {
		t.Errorf("events of PCR 10 without the list that goes on from them: %v", err)
	}
}
