package report

import (
	"crypto/sha256"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func digest(of string) quote.Hex {
	d := sha256.Sum256([]byte(of))
	return d[:]
}

func name(of string) quote.Hex { return append(quote.Hex{0x00, 0x0b}, digest(of)...) }

func layerClaims(who string, pcrs ...int) *policy.LayerClaims {
	c := &policy.LayerClaims{
		Firmware: "0001010200000000", EK: name(who + " ek"), AK: name(who + " ak"), Bank: quote.SHA256,
		PCRs: map[int]quote.Hex{}, Replayed: pcrs, SecureBoot: "enabled",
		Clock: quote.ClockInfo{Clock: 86_400_000, ResetCount: 17, RestartCount: 2, Safe: true},
	}
	for _, n := range pcrs {
		c.PCRs[n] = digest(who + string(rune('0'+n)))
	}
	return c
}

// check makes a required check of verify's or policy's catalogue.
func check(id string, layer verify.Layer, s verify.Status, detail string) policy.CheckResult {
	return policy.CheckResult{Check: verify.Check{ID: id, Layer: layer, Status: s, Required: s != verify.NotApplicable, Detail: detail}}
}

// trusted is a result in which everything holds.
func trusted() *policy.Result {
	r := &policy.Result{
		MediaType: policy.ResultMediaType, Verdict: policy.Trusted,
		Reason:   "every check that counts holds: 29 passed, 1 warned",
		Verified: policy.InGuest, Now: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC),
		Challenge: digest("challenge"), Evidence: digest("evidence"),
		Policy:  policy.PolicyRef{Name: "web-tier", Digest: digest("policy")},
		Anchors: []string{"EK root Example Root, SHA-256 4f2a", "host enrolled in trust.yaml: hosts[0]"},
		Layers: []policy.LayerResult{
			{Layer: verify.Host, Verdict: policy.Trusted, Name: "node-17", Summary: "every check that counts holds", Claims: layerClaims("node-17", 0, 2, 4, 7)},
			{Layer: verify.Link, Verdict: policy.Trusted, Name: quote.LinkHostVouched, Summary: "every check that counts holds"},
			{Layer: verify.Guest, Verdict: policy.Trusted, Name: "web-3", Summary: "every check that counts holds", Claims: layerClaims("web-3", 0, 2, 4, 7, 9)},
		},
		Limits: []string{"programs that run after boot: the policy has no IMA rule", "memory and physical access"},
	}
	r.Layers[0].Claims.Maker, r.Layers[0].Claims.Model = "STMicroelectronics", "ST33HTPHAHD4"
	r.Layers[2].Claims.CommandLine = []string{"root=/dev/vda2 ro quiet"}
	for _, l := range []verify.Layer{verify.Format, verify.Host, verify.Link, verify.Guest} {
		for _, id := range map[verify.Layer][]string{
			verify.Format: {"bundle.format"},
			verify.Host:   {"host.ek.chain", "host.ek.enrolled", "host.ak.attributes", "host.ak.bound", "host.quote.signature", "host.quote.nonce", "host.quote.pcr-digest", "host.log.replay"},
			verify.Link:   {"link.method", "link.inclusion", "link.guest-key", "link.guest-quote"},
			verify.Guest:  {"guest.ak.attributes", "guest.ak.bound", "guest.quote.signature", "guest.quote.nonce", "guest.quote.pcr-digest", "guest.log.replay"},
		}[l] {
			r.Checks = append(r.Checks, check(id, l, verify.Pass, "as it should be"))
		}
		if l == verify.Host || l == verify.Guest {
			r.Checks = append(r.Checks, check(string(l)+".ima.replay", l, verify.NotApplicable, "no IMA list"))
		}
	}
	r.Checks = append(r.Checks,
		check("policy.signature", verify.Policy, verify.NotApplicable, "no signature is demanded"),
		check("policy.fresh", verify.Policy, verify.Pass, "valid until 2027-01-01T00:00:00Z"),
		check("policy.host.present", verify.Policy, verify.Pass, "the policy has a host section"),
		check("policy.host.pcr.0", verify.Policy, verify.Pass, "an accepted value"),
		check("policy.host.pcr.4", verify.Policy, verify.Pass, "an accepted value"),
		check("policy.host.pcr.7", verify.Policy, verify.NotApplicable, "not in the policy"),
		check("policy.host.coverage", verify.Policy, verify.Warn, "PCR 7 is open: another Secure Boot configuration would pass"),
		check("policy.guest.present", verify.Policy, verify.Pass, "the policy has a guest section"),
		check("policy.guest.pcr.4", verify.Policy, verify.Pass, "an accepted value"),
		check("policy.guest.pcr.9", verify.Policy, verify.Pass, "an accepted value"),
		check("policy.guest.secure-boot", verify.Policy, verify.Pass, "Secure Boot is on"),
		check("context.instance", verify.Context, verify.Pass, "SMBIOS uuid is the link's"),
	)
	return r
}

// change gives a check of r another outcome.
func change(r *policy.Result, id string, edit func(*policy.CheckResult)) {
	for i := range r.Checks {
		if r.Checks[i].ID == id {
			edit(&r.Checks[i])
			return
		}
	}
	panic("no check " + id)
}

// untrusted is a genuine guest with another boot loader and kernel.
func untrusted() *policy.Result {
	r := trusted()
	r.Verdict, r.Reason = policy.Untrusted, "policy.guest.pcr.4: a value that the policy does not accept"
	r.Layers[2].Verdict, r.Layers[2].Summary = policy.Untrusted, r.Reason
	for id, n := range map[string]string{"policy.guest.pcr.4": `event 31, image \EFI\debian\grubx64.efi`, "policy.guest.pcr.9": "event 40, kernel /boot/vmlinuz"} {
		change(r, id, func(c *policy.CheckResult) {
			c.Status, c.Detail = verify.Fail, "a value that the policy does not accept"
			c.Got, c.Want, c.Where = digest("now"+id).String(), digest("then"+id).String()+" (grub 2.12-1)", "sha256 "+n
			c.Remedy = "image owner: find the change with `deepattest explain`; if it is wanted, the tenant adds the value to the policy"
		})
	}
	return r
}

// moved is a trusted guest that the cloud says is on another host.
func moved() *policy.Result {
	r := trusted()
	r.Cloud = &quote.Cloud{Source: quote.CloudAPI, VM: quote.UUID{1}, VTPM: "2.0", Missing: "image: the cloud answers 403"}
	r.Checks = append(r.Checks,
		check("context.vtpm", verify.Context, verify.Pass, "asked for"),
		check("context.placement", verify.Context, verify.Warn, "the cloud says that the VM runs on another host than \"node-17\""),
		check("context.host-stable", verify.Context, verify.NotApplicable, "no earlier result"))
	return r
}

// rejected is evidence whose host quote is for another guest.
func rejected() *policy.Result {
	r := trusted()
	r.Verdict, r.Reason = policy.Rejected, "link.inclusion: the host did not sign for this leaf"
	r.Layers[1].Verdict, r.Layers[1].Summary, r.Layers[1].Name = policy.Rejected, r.Reason, quote.LinkNone
	r.Layers[2] = policy.LayerResult{Layer: verify.Guest, Verdict: policy.Inconclusive, Summary: "the link under it is not trusted"}
	change(r, "link.inclusion", func(c *policy.CheckResult) {
		c.Status, c.Detail, c.Got, c.Want, c.Where = verify.Fail, "the host did not sign for this leaf", digest("a").String(), digest("b").String(), "host extraData"
		c.Remedy = "cloud operator: collect again; if it stays, the host's service or the way to it is not honest"
	})
	for i := range r.Checks {
		c := &r.Checks[i]
		switch c.ID {
		case "link.guest-key", "link.guest-quote", "guest.ak.bound", "policy.guest.pcr.4", "policy.guest.pcr.9", "policy.guest.secure-boot":
			c.Status, c.BlockedBy, c.Detail = verify.NotRun, "link.inclusion", "not run: link.inclusion did not pass"
			c.Remedy = "cloud operator: mend link.inclusion first"
		}
	}
	return r
}

// inconclusive is evidence without a host, looked at with an unsafe option and
// without anchors.
func inconclusive() *policy.Result {
	r := trusted()
	r.Verdict, r.Reason = policy.Inconclusive, "host.ak.attributes: there is no host layer"
	r.Verified = policy.OffGuest
	r.Policy, r.Anchors, r.Limits = policy.PolicyRef{Name: "none"}, nil, nil
	r.Unsafe = []string{"any-challenge: the challenge was taken from the evidence; a replay looks the same"}
	for i := range r.Layers {
		r.Layers[i] = policy.LayerResult{Layer: r.Layers[i].Layer, Verdict: policy.Inconclusive, Summary: "no policy: nothing was appraised"}
	}
	for i := range r.Checks {
		c := &r.Checks[i]
		switch {
		case c.ID == "host.ak.attributes":
			c.Status, c.Detail, c.Remedy = verify.Unknown, "there is no host layer: connection refused", "cloud operator: run the host's quote service"
		case c.ID == "policy.fresh":
			c.Status, c.Detail = verify.Malfunction, "the check itself failed"
		case c.ID == "context.instance":
			c.Status, c.Detail, c.Got, c.Want = verify.Warn, "the VM calls itself by another uuid", "a", "b"
		case c.Layer == verify.Host || c.Layer == verify.Link:
			c.Status, c.BlockedBy, c.Detail = verify.NotRun, "host.ak.attributes", "not run: host.ak.attributes did not pass"
		case c.Layer == verify.Policy:
			c.Status, c.Detail = verify.NotApplicable, "no policy"
		}
	}
	return r
}
