package verify_test

import (
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// TestHintsWithoutASubject: a hint that is not there agrees with nothing. Each check
// of the context needs all of its sides to say more than that it has no subject.
func TestHintsWithoutASubject(t *testing.T) {
	whole := find(t, "ContextCloud")
	for name, c := range map[string]struct {
		edit func(b *quote.Bundle, o *verify.Options)
		id   string
		want verify.Status
		says string
	}{
		"all":           {func(*quote.Bundle, *verify.Options) {}, "context.instance", verify.Pass, "SMBIOS, the cloud"},
		"placement":     {func(*quote.Bundle, *verify.Options) {}, "context.placement", verify.Pass, "runs on"},
		"the same host": {func(*quote.Bundle, *verify.Options) {}, "context.host-stable", verify.Pass, "the last result"},
		"a vTPM":        {func(*quote.Bundle, *verify.Options) {}, "context.vtpm", verify.Pass, "asked to have"},
		"no uuid of anybody": {func(b *quote.Bundle, _ *verify.Options) {
			b.Context.VM, b.Context.Cloud.VM = quote.UUID{}, quote.UUID{}
		}, "context.instance", verify.NotApplicable, ""},
		"no uuid in the link": {func(b *quote.Bundle, _ *verify.Options) { b.Link.VM = quote.UUID{} }, "context.instance", verify.NotApplicable, ""},
		"no guest":            {func(b *quote.Bundle, _ *verify.Options) { b.Guest = nil }, "context.vtpm", verify.NotApplicable, "no guest layer"},
		"no guest, and a VM":  {func(b *quote.Bundle, _ *verify.Options) { b.Guest = nil }, "context.instance", verify.Pass, ""},
		"a guest without EK":  {func(b *quote.Bundle, _ *verify.Options) { b.Guest.EK.Public = nil }, "context.instance", verify.Pass, ""},
		"no cloud":            {func(b *quote.Bundle, _ *verify.Options) { b.Context.Cloud = nil }, "context.vtpm", verify.NotApplicable, "does not tell"},
		"no hostId":           {func(b *quote.Bundle, _ *verify.Options) { b.Context.Cloud.HostID = "" }, "context.placement", verify.NotApplicable, ""},
		"no project":          {func(b *quote.Bundle, _ *verify.Options) { b.Context.Cloud.Project = "" }, "context.placement", verify.NotApplicable, ""},
		"no host's name":      {func(b *quote.Bundle, _ *verify.Options) { b.Context.HostName = "" }, "context.placement", verify.NotApplicable, ""},
		"no hostId now":       {func(b *quote.Bundle, _ *verify.Options) { b.Context.Cloud.HostID = "" }, "context.host-stable", verify.NotApplicable, ""},
		"no hostId before":    {func(_ *quote.Bundle, o *verify.Options) { o.Previous.HostID = "" }, "context.host-stable", verify.NotApplicable, ""},
		"no result before":    {func(_ *quote.Bundle, o *verify.Options) { o.Previous = nil }, "context.host-stable", verify.NotApplicable, ""},
		"moved":               {func(_ *quote.Bundle, o *verify.Options) { o.Previous.HostID = strings.Repeat("0", 56) }, "context.host-stable", verify.Warn, "the evidence is of the same host"},
		"moved, host too": {func(_ *quote.Bundle, o *verify.Options) {
			o.Previous.HostID, o.Previous.HostAK, o.Previous.HostEK = strings.Repeat("0", 56), quote.Hex{1}, quote.Hex{2}
		}, "context.host-stable", verify.Warn, "since the last result"},
		"moved, and no EK before": {func(_ *quote.Bundle, o *verify.Options) {
			o.Previous.HostID, o.Previous.HostAK, o.Previous.HostEK = strings.Repeat("0", 56), quote.Hex{1}, nil
		}, "context.host-stable", verify.Warn, "since the last result"},
		"another AK of the host": {func(_ *quote.Bundle, o *verify.Options) {
			o.Previous.HostID, o.Previous.HostAK = strings.Repeat("0", 56), quote.Hex{1}
		}, "context.host-stable", verify.Warn, "the evidence is of the same host"},
		"moved, and no host": {func(b *quote.Bundle, o *verify.Options) {
			b.Host, o.Previous.HostID = nil, strings.Repeat("0", 56)
		}, "context.host-stable", verify.Warn, "since the last result"},
	} {
		b, err := quote.ParseBundle(whole.bundle)
		if err != nil {
			t.Fatal(err)
		}
		opts := whole.options
		if opts.Previous != nil {
			previous := *opts.Previous
			opts.Previous = &previous
		}
		c.edit(b, &opts)
		got, _ := reportOf(t, b, opts).Check(c.id)
		if got.Status != c.want || !strings.Contains(got.Detail, c.says) {
			t.Errorf("%s: %s is %s: %s; want %s with %q", name, c.id, got.Status, got.Detail, c.want, c.says)
		}
		if strings.HasPrefix(name, "moved,") && strings.Contains(got.Detail, "same host") {
			t.Errorf("%s: %s", name, got.Detail)
		}
	}
}

// TestEKCertificateOfAnotherKeyNamesNobody: the uuid in a certificate counts only when
// it is the vTPM's own.
func TestEKCertificateOfAnotherKeyNamesNobody(t *testing.T) {
	other := find(t, "ContextEKCertificateVMOther")
	b, err := quote.ParseBundle(other.bundle)
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(){
		"another key's": func() { b.Guest.EK.Public = b.Host.EK.Public },
		"not X.509":     func() { b.Guest.EK.Certificates = [][]byte{{0x30, 0}} },
	} {
		edit()
		if c, _ := reportOf(t, b, other.options).Check("context.instance"); c.Status != verify.Pass {
			t.Errorf("%s: %s: %s", name, c.Status, c.Detail)
		}
	}
}
