package policy

import (
	"slices"

	"github.com/deepattest/deepattest/verify"
)

// pcrTemplate is the last part of the id that stands for one check for each PCR.
const pcrTemplate = "pcr.N"

// Catalogue returns the entries of every check that Appraise makes, in the order
// in which results list them. The entry that ends in "pcr.N" stands for one check
// for each PCR that the policy names or the quote covers, such as
// "policy.guest.pcr.4". IDs and order are stable.
func Catalogue() []verify.Spec {
	return slices.Concat([]verify.Spec{
		{
			ID: "policy.signature", Layer: verify.Policy, Title: "The policy is signed by a key that the tenant demands",
			Stops:    "a policy that somebody else wrote or changed on its way",
			Citation: "RFC 9334, section 8.5 (appraisal policies)",
			Actor:    verify.Tenant, Remedy: "sign the policy with `deepattest policy sign`, or demand no signature where it comes from a trusted place",
		},
		{
			ID: "policy.fresh", Layer: verify.Policy, Title: "The policy has not expired",
			Stops:    "reference values that nobody has looked at for long",
			Citation: "RFC 9334, sections 8.3 and 8.5",
			Actor:    verify.Tenant, Remedy: "review the policy and set a new metadata.expires",
		},
		{
			ID: "policy.age", Layer: verify.Policy, Title: "The challenge was drawn no longer ago than freshness.maxAge",
			Stops:    "evidence that was true once and is acted on much later",
			Citation: "RFC 9334, section 10 (freshness)",
			Actor:    verify.Tenant, Remedy: "attest again with a new challenge, and verify with the time at which it was drawn",
		},
	}, layerSpecs(verify.Host, verify.CloudOperator), layerSpecs(verify.Guest, verify.ImageOwner))
}

// layerSpecs are the entries for one layer; actor owns what was measured there.
func layerSpecs(layer verify.Layer, actor string) []verify.Spec {
	name := string(layer)
	values, log := []string{name + ".quote.pcr-digest"}, []string{name + ".log.replay"}
	spec := func(id string, s verify.Spec) verify.Spec {
		s.ID, s.Layer = checkID(layer, id), verify.Policy
		if s.Actor == "" {
			s.Actor = actor
		}
		return s
	}
	specs := []verify.Spec{
		spec("present", verify.Spec{
			Title:    "The policy says what the " + name + " must show",
			Stops:    "a verdict about two layers that looked at one",
			Citation: "RFC 9334, sections 3.2 and 8.5",
			Actor:    verify.Tenant, Remedy: "add a " + name + " section to the policy; `deepattest policy learn` writes a first one",
		}),
		spec(pcrTemplate, verify.Spec{
			Title:    "PCR N of the " + name + " holds a value that the policy accepts",
			Stops:    "firmware, boot loaders, kernels and settings that are not on the list",
			Citation: "TCG PC Client PFP 1.06, section 3.3.4 (PCR usage); RFC 9334, section 8.3",
			Remedy:   "find the change with `deepattest explain`; if it is wanted, the tenant adds the value to the policy with `deepattest policy update`, for the next update before it is rolled out: --stage",
			Needs:    values,
		}),
		spec("profile", verify.Spec{
			Title:    "The " + name + "'s PCRs match one profile as a whole",
			Stops:    "parts of one good state mixed with parts of another",
			Citation: "RFC 9334, section 8.3 (reference values)",
			Remedy:   "find the change with `deepattest explain`; if it is wanted, the tenant adds a profile to the policy",
			Needs:    values,
		}),
		spec("coverage", verify.Spec{
			Title:    "The policy pins what decides about the " + name + "'s boot",
			Stops:    "a policy that passes because it asks for nothing",
			Citation: "TCG PC Client PFP 1.06, section 3.3.4 (PCR usage)",
			Actor:    verify.Tenant, Remedy: "pin the PCRs named here, or accept in words what stays open; see `deepattest policy show`",
			Needs: values,
		}),
		spec("firmware", verify.Spec{
			Title:    "The " + name + "'s TPM does not run firmware that the policy denies",
			Stops:    "TPMs with known faults",
			CVEs:     []string{"CVE-2017-15361"},
			Citation: "TPM 2.0 Part 2, section 10.12.12 (firmwareVersion)",
			Actor:    verify.CloudOperator, Remedy: "update the TPM's firmware",
			Needs: values,
		}),
		spec("log", verify.Spec{
			Title:    "The " + name + " shows a log, and it explains the PCRs that the policy names",
			Stops:    "values that nobody can name, where the policy wants to know what was measured",
			Citation: "TCG PC Client PFP 1.06, section 10.4; systemd, TPM2_PCR_MEASUREMENTS",
			Remedy:   "collect the firmware's log, systemd's and IMA's with the quote; PCRs 11 to 13 and 15 are explained from systemd 255 on, which logs what it measures",
			Needs:    log,
		}),
		spec("secure-boot", verify.Spec{
			Title:    "Secure Boot of the " + name + " is as the policy wants it",
			Stops:    "boot software that nobody signed; shim's or the firmware's checks turned off",
			Citation: "TCG PC Client PFP 1.06, sections 3.3.4.8 and 10.4.4; shim, mok.c (MokSBState)",
			Remedy:   "turn Secure Boot on, with a platform key enrolled and shim's validation on (`mokutil --enable-validation`); where an event of PCR 7 is not understood, the tenant pins PCR 7 by value",
			Needs:    log,
		}),
		spec("cmdline", verify.Spec{
			Title:    "Every kernel command line of the " + name + " keeps to the rules",
			Stops:    "protection turned off, or another init started, by a parameter",
			Citation: "TCG PC Client PFP 1.06, section 3.3.4; Linux kernel, lib/cmdline.c",
			Remedy:   "mend the boot entry; for an image whose log holds a digest only, the tenant names the whole line in cmdline.allow; a measurement that is not understood is pinned by value",
			Needs:    log,
		}),
		spec("ima", verify.Spec{
			Title:    "Every file that the " + name + "'s IMA measured is on the list",
			Stops:    "programs that run after boot and that nobody listed",
			Citation: "Linux kernel, security/integrity/ima; RFC 9334, section 8.3",
			Remedy:   "find out where the file comes from; if it is wanted, the tenant adds its digest to the policy",
			Needs:    []string{name + ".ima.replay"},
		}),
		spec("events", verify.Spec{
			Title:    "The measurements that the policy requires of the " + name + " are there, and none that it denies",
			Stops:    "a single component that is missing or known to be bad, where the PCR as a whole varies",
			Citation: "TCG PC Client PFP 1.06, section 10.4",
			Remedy:   "find the component with `deepattest log`; install the wanted one; where the running system could have added it, the tenant pins the PCR by value",
			Needs:    log,
		}),
	}
	if layer == verify.Guest {
		specs = append(specs, spec("binding", verify.Spec{
			Title:    "The guest's attestation key is vouched for in a way that the policy accepts",
			Stops:    "a key that is bound to its vTPM by less than the tenant wants",
			Citation: "RFC 9334, section 3.2",
			Actor:    verify.Tenant, Remedy: "pin the key in the trust file, or name how it is bound in trust.guests.accept",
			Needs: []string{"guest.ak.bound"},
		}))
	}
	return specs
}
