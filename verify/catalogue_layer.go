package verify

import "slices"

// layerChecks are the checks on one layer's quote and logs.
func layerChecks(prefix string, name Layer, actor string, of func(*verification) *layer, nonce check) []check {
	return slices.Concat(quoteChecks(prefix, name, actor, of, nonce), logChecks(prefix, name, actor, of))
}

func keySpec(prefix string, layer Layer, needs []string) Spec {
	return Spec{
		ID: prefix + ".ak.attributes", Layer: layer, Title: "The " + prefix + "'s attestation key signs only what its TPM made",
		Stops:    "an unrestricted, imported, duplicable or weak key that would sign a made-up quote",
		CVEs:     []string{"CVE-2025-49707"},
		Citation: "TPM 2.0 Part 2, section 8.3 (TPMA_OBJECT); Part 1, section 31",
		Actor:    CloudOperator, Remedy: "use the attestation key that deepattest makes; a key of another tool must be restricted, fixed to its TPM and at least RSA-2048 or ECC P-256 with SHA-256",
		Needs: needs,
	}
}

func nonceCheck(prefix string, layer Layer, how string, run func(linkProof) Check) check {
	return check{
		Spec: Spec{
			ID: prefix + ".quote.nonce", Layer: layer, Title: "The " + prefix + "'s quote answers this challenge: " + how,
			Stops:    "replay of an old quote",
			Citation: "RFC 9334, section 10.2 (implicit timekeeping using nonces); TPM 2.0 Part 2, section 10.12.12 (extraData)",
			Actor:    Tenant, Remedy: "collect again with the challenge that is verified with; if it was, somebody replays old evidence",
			Needs: []string{prefix + ".quote.signature"},
		},
		run: onLink(run),
	}
}

// quoteChecks are the checks on one layer's quote.
func quoteChecks(prefix string, name Layer, actor string, of func(*verification) *layer, nonce check) []check {
	on := func(f func(layerProof) Check) func(*verification) Check {
		return func(v *verification) Check { return f(of(v).proof) }
	}
	id := func(s string) string { return prefix + ".quote." + s }
	key := prefix + ".ak.attributes"
	signed := id("signature")
	return []check{
		{
			Spec: Spec{
				ID: id("magic"), Layer: name, Title: "The signed structure was made inside a TPM",
				Stops:    "data that looks like a quote, signed by an ordinary key",
				CVEs:     []string{"CVE-2024-29038"},
				Citation: "TPM 2.0 Part 2, section 6.2 (TPM_GENERATED); Part 1, section 31.2",
				Actor:    actor, Remedy: "find out what made this structure: no TPM did",
				Needs: []string{present(prefix)},
			},
			run: on(layerProof.magic),
		},
		{
			Spec: Spec{
				ID: id("type"), Layer: name, Title: "The signed structure is a quote",
				Stops:    "a certification, time or audit attestation shown as a quote",
				Citation: "TPM 2.0 Part 2, section 10.12.10 (TPMI_ST_ATTEST)",
				Actor:    actor, Remedy: "collect a TPM2_Quote",
				Needs: []string{present(prefix)},
			},
			run: on(layerProof.kind),
		},
		{
			Spec: Spec{
				ID: id("format"), Layer: name, Title: "The quote and its signature are well-formed to the last byte",
				Stops:    "bytes that one parser skips and another reads",
				Citation: "TPM 2.0 Part 2, sections 10.12.12 (TPMS_ATTEST) and 11.3.4 (TPMT_SIGNATURE)",
				Actor:    actor, Remedy: "collect again; if it stays, report the TPM's maker and firmware",
				Needs: []string{id("magic"), id("type")},
			},
			run: on(layerProof.wellFormed),
		},
		{
			Spec: Spec{
				ID: signed, Layer: name, Title: "The attestation key signed the quote, by its own scheme",
				Stops:    "a forged quote; SHA-1 and schemes that are not the key's",
				Citation: "TPM 2.0 Part 3, TPM2_Quote; Part 1, annexes B and C",
				Actor:    actor, Remedy: "the quote or the key was exchanged: collect again, and treat it as an attack if it stays",
				Needs: []string{key, id("format")},
			},
			run: on(layerProof.signed),
		},
		nonce,
		{
			Spec: Spec{
				ID: id("selection"), Layer: name, Title: "The signed selection covers what the policy needs, and nothing unsigned is shown",
				Stops:    "empty or partial selections, and PCR values shown under another number",
				CVEs:     []string{"CVE-2022-0317", "CVE-2024-29039"},
				Citation: "TPM 2.0 Part 2, section 10.9.7 (TPML_PCR_SELECTION)",
				Actor:    actor, Remedy: "quote all PCRs that the policy names; `deepattest collect` does",
				Needs: []string{signed},
			},
			run: on(layerProof.selection),
		},
		{
			Spec: Spec{
				ID: id("bank"), Layer: name, Title: "The quote covers the pinned PCR bank",
				Stops:    "a downgrade to a bank with a weak hash, or to one that firmware does not extend",
				Citation: "TPM 2.0 Part 1, section 17.8 (PCR allocation)",
				Actor:    actor, Remedy: "allocate the bank (TPM2_PCR_Allocate) and reboot, or pin another in the policy's tpm.bank",
				Needs: []string{signed},
			},
			run: on(layerProof.bank),
		},
		{
			Spec: Spec{
				ID: id("pcr-digest"), Layer: name, Title: "The PCR values are the quoted ones",
				Stops:    "PCR values exchanged beside a genuine quote",
				Citation: "TPM 2.0 Part 2, section 10.12.4 (TPMS_QUOTE_INFO)",
				Actor:    actor, Remedy: "collect again: a PCR may have moved between quote and reading; treat it as an attack if it stays",
				Needs: []string{id("selection")},
			},
			run: on(layerProof.pcrDigest),
		},
		{
			Spec: Spec{
				ID: id("bank-extended"), Layer: name, Title: "The pinned bank is not as the TPM started it",
				Stops:    "a bank that is enabled and that nobody extended, as old firmware leaves one; not a bank that firmware left alone and root filled after the boot, which neither quote nor log tells from a measured one",
				Citation: "TCG PC Client PFP 1.06, section 3.3",
				Actor:    actor, Remedy: "update the firmware, or pin a bank that it measures into; what a firmware measures into shows on a machine that was just installed",
				Needs: []string{id("bank"), id("pcr-digest")},
			},
			run: on(layerProof.bankExtended),
		},
		{
			Spec: Spec{
				ID: id("signer"), Layer: name, Title: "The quote's qualified signer is a key for which the TPM signs firmware version and counters as they are",
				Stops:    "a key of another hierarchy, for which the TPM adds secret numbers to them, so that rules on firmware and rollback would decide on noise",
				Citation: "TPM 2.0 Part 1, sections 16 (qualified Names) and 36.7; Part 2, section 10.12.12 (qualifiedSigner)",
				Actor:    CloudOperator, Remedy: "quote with the attestation key that deepattest makes, which is in the endorsement hierarchy, or with one under the endorsement key",
				Needs: []string{signed},
			},
			run: on(layerProof.signer),
		},
		{
			Spec: Spec{
				ID: id("clock"), Layer: name, Title: "The TPM's clock and counters go on from the last result",
				Stops:    "a cloned or rolled back machine, also behind another attestation key of its TPM; an old quote; shows reboots in between",
				Citation: "TPM 2.0 Part 1, section 36; Part 2, section 10.11.1 (TPMS_CLOCK_INFO)",
				Actor:    CloudOperator, Remedy: "explain why the machine's state went back: restored snapshot, clone, or exchanged TPM",
				Needs: []string{signed},
			},
			run: on(layerProof.clock),
		},
	}
}

// present is the first check of a layer, which reports that the layer is absent.
func present(prefix string) string {
	if prefix == "host" {
		return "host.ak.attributes"
	}
	return "guest.ak.attributes"
}

// logChecks are the checks on one layer's logs.
func logChecks(prefix string, name Layer, actor string, of func(*verification) *layer) []check {
	on := func(f func(*layer) Check) func(*verification) Check {
		return func(v *verification) Check { return f(of(v)) }
	}
	id := func(s string) string { return prefix + ".log." + s }
	noLog := func(v *verification) bool { return of(v).noLog() }
	noIMA := func(v *verification) bool { return of(v).noIMA() }
	values := []string{prefix + ".quote.bank", prefix + ".quote.pcr-digest"}
	return []check{
		{
			Spec: Spec{
				ID: id("parse"), Layer: name, Title: "The event log is well-formed",
				Stops:    "hostile logs: sizes, PCR numbers and digest lists that do not fit",
				Citation: "TCG PC Client PFP 1.06, section 10.2",
				Actor:    actor, Remedy: "give the collector read access to the log; without one only PCR values can be appraised",
				Needs: []string{present(prefix)},
			},
			run: on((*layer).logParse), optional: noLog,
		},
		{
			Spec: Spec{
				ID: id("replay"), Layer: name, Title: "The event log gives the quoted PCR values",
				Stops:    "a log of another boot, or one with events changed, added, removed or moved",
				Citation: "TCG PC Client PFP 1.06, sections 10.4 and 10.4.5.3; TPM 2.0 Part 1, section 17.2",
				Actor:    actor, Remedy: "collect log and quote in the same boot; compare with `deepattest log --pcr N`",
				Needs: append([]string{id("parse")}, values...),
			},
			run: on((*layer).logReplay), optional: noLog,
		},
		{
			Spec: Spec{
				ID: id("coverage"), Layer: name, Title: "The event log covers every firmware PCR that holds a measurement",
				Stops:    "a log from which all events of a PCR were removed",
				Citation: "TCG PC Client PFP 1.06, section 3.3",
				Actor:    actor, Remedy: "collect the whole log; if it is whole, ask the firmware's maker why it does not log what it measures",
				Needs: []string{id("replay")},
			},
			run: on((*layer).logCoverage), optional: noLog,
		},
		{
			Spec: Spec{
				ID: id("data"), Layer: name, Title: "Event data is what was measured, where the specification ties the two",
				Stops:    "a log whose texts and variables were rewritten under unchanged digests",
				Citation: "TCG PC Client PFP 1.06, section 10.4.1 (table of events)",
				Actor:    actor, Remedy: "do not believe what the log shows; find out who changed it",
				Needs: []string{id("replay")},
			},
			run: on((*layer).logData), optional: noLog,
		},
		{
			Spec: Spec{
				ID: id("order"), Layer: name, Title: "The firmware's measurements end where firmware ends them",
				Stops:    "separators and Secure Boot variables that were measured later, by whoever ran then",
				Citation: "TCG PC Client PFP 1.06, sections 2.3.4, 3.3.4 and 3.3.4.8; 10.4.1 (EV_SEPARATOR)",
				Actor:    actor, Remedy: "boot the machine again; if it stays, ask the firmware's maker",
				Needs: []string{id("replay")},
			},
			run: on((*layer).logOrder), optional: noLog,
		},
		{
			Spec: Spec{
				ID: prefix + ".ima.replay", Layer: name, Title: "The IMA list gives PCR 10",
				Stops:    "an IMA list with entries changed, added before the quote, removed or moved",
				Citation: "Linux kernel, security/integrity/ima; TPM 2.0 Part 1, section 17.2",
				Actor:    actor, Remedy: "a list that is missing: give the collector read access to it and quote PCR 10; one of an old or oddly built kernel: boot another kernel, or the tenant accepts it in the policy; one that does not give PCR 10: boot the machine again",
				Needs: values,
			},
			run: on((*layer).imaReplay), optional: noIMA,
		},
		{
			Spec: Spec{
				ID: id("repaired"), Layer: name, Title: "Deviations that were let through are listed",
				Stops:    "silent repair of firmware, kernel and certificate faults",
				Citation: "TCG EK Credential Profile 2.5; Linux kernel, security/integrity/ima/ima_crypto.c",
				Actor:    actor, Remedy: "none needed; update the firmware or kernel that deviates when there is one",
				Needs: []string{present(prefix)},
			},
			run: on((*layer).repaired),
		},
	}
}
