package verify

import "slices"

// Actors that a remedy can name.
const (
	Tenant        = "tenant"
	ImageOwner    = "image owner"
	CloudOperator = "cloud operator"
)

// Catalogue returns the entries of every check that Evidence makes, in the order
// in which they run and are reported. IDs and order are stable.
func Catalogue() []Spec {
	specs := make([]Spec, 0, len(known.checks))
	for _, c := range catalogue(known.methods) { // anew: it is the caller's to change
		specs = append(specs, c.Spec)
	}
	return specs
}

// catalogue is host first, then the link, then the guest: trust is built
// bottom-up, and a check runs after those it needs.
func catalogue(methods []*linkMethod) []check {
	host := func(v *verification) *layer { return v.host }
	guest := func(v *verification) *layer { return v.guest }
	return slices.Concat(
		[]check{{
			Spec: Spec{
				ID: "bundle.format", Layer: Format, Title: "The evidence is one well-formed bundle",
				Stops:    "oversized, ambiguous or unreadable evidence: unknown or duplicate members, trailing data, values out of range",
				Citation: "RFC 8259, sections 4 and 9; RFC 7493 (I-JSON), section 2.3",
				Actor:    Tenant, Remedy: "collect the evidence again with `deepattest collect`; look at it with `deepattest inspect`",
			},
			run: (*verification).format,
		}},
		hostChecks(), layerChecks("host", Host, CloudOperator, host, nonceCheck("host", Host, "the leaf under its signature was made for it", linkProof.hostNonce)),
		linkChecks(methods),
		guestChecks(), layerChecks("guest", Guest, ImageOwner, guest, nonceCheck("guest", Guest, "its qualifyingData is the challenge's labelled hash", linkProof.guestNonce)),
		contextChecks(),
	)
}

func (v *verification) format() Check {
	if v.formatErr != nil {
		return fail("the evidence is not a bundle").evidence(v.formatErr.Error(), "an evidence bundle, version 1", "")
	}
	return pass("evidence bundle, version 1")
}

func hostChecks() []check {
	const first = "bundle.format"
	return []check{
		{
			Spec: Spec{
				ID: "host.ek.chain", Layer: Host, Title: "The host's endorsement key certificate chains to a trusted maker",
				Stops:    "a software TPM, or one of an unknown maker, in the place of the host's",
				Citation: "TCG EK Credential Profile 2.5, sections 2 and 3.2; RFC 5280, section 6",
				Actor:    CloudOperator, Remedy: "of an unknown root: show the TPM maker's certificates in NV 0x01c00100 and up, or the tenant adds roots and intermediates to the trust file with `deepattest trust import`; of a certificate that ended: have the tenant enroll the host, for which it then only warns",
				Needs: []string{first},
			},
			run: (*verification).ekChain,
		},
		{
			Spec: Spec{
				ID: "host.ek.revoked", Layer: Host, Title: "No certificate that vouches for the host's TPM was revoked",
				Stops:    "a TPM, or a whole issuer, whose key got out, as far as revocation lists are there: who shows evidence can leave them out, so a policy that must know says trust.revocation: require",
				Citation: "RFC 5280, sections 5 and 6.3",
				Actor:    Tenant, Remedy: "of a revoked certificate: remove the host and ask the cloud operator to exchange the TPM; of a list that is missing or stale: get it with `deepattest trust fetch`, or from the TPM's maker and `deepattest trust import`",
				Needs: []string{"host.ek.chain"},
			},
			run: (*verification).ekRevoked,
		},
		{
			Spec: Spec{
				ID: "host.ek.enrolled", Layer: Host, Title: "The host is one that the tenant enrolled",
				Stops:    "the cuckoo attack: a genuine TPM of another machine answers for this one",
				Citation: "RFC 9334, section 12.1; TPM 2.0 Part 1, section 24",
				Actor:    Tenant, Remedy: "if the host is expected, enroll it with `deepattest host enroll`; if not, ask the cloud operator where the VM runs",
				Needs: []string{first},
			},
			run: (*verification).ekEnrolled,
		},
		{
			Spec: keySpec("host", Host, []string{first}),
			run:  func(v *verification) Check { return v.keyAttributes(v.host) },
		},
		{
			Spec: Spec{
				ID: "host.ak.bound", Layer: Host, Title: "The host's attestation key is in the TPM of its endorsement key",
				Stops:    "an attestation key of another TPM, or of no TPM, beside a genuine endorsement key certificate",
				Citation: "TPM 2.0 Part 1, section 24 (credential protection); Part 3, TPM2_ActivateCredential",
				Actor:    Tenant, Remedy: "enroll the host again with `deepattest host enroll`; its TPM may have been cleared or exchanged",
				Needs: []string{"host.ak.attributes"},
			},
			run: (*verification).hostBound,
		},
	}
}

func guestChecks() []check {
	return []check{
		{
			Spec: keySpec("guest", Guest, []string{"bundle.format"}),
			run:  func(v *verification) Check { return v.keyAttributes(v.guest) },
		},
		{
			Spec: Spec{
				ID: "guest.ak.bound", Layer: Guest, Title: "Somebody the tenant trusts vouches for the guest's attestation key",
				Stops:    "an attestation key of another VM, or of a software TPM inside the guest",
				Citation: "RFC 9334, section 3.2 (layered attestation); TPM 2.0 Part 1, section 24",
				Actor:    CloudOperator, Remedy: "register the VM's vTPM with the host's quote service; the tenant can pin the key in the trust file",
				Needs: []string{"guest.ak.attributes"},
			},
			run: onLink(linkProof.guestBound),
		},
	}
}

// onLink makes a check of what the link's method makes of it.
func onLink(f func(linkProof) Check) func(*verification) Check {
	return func(v *verification) Check { return f(v.link) }
}

// linkChecks are the checks of every link, and those that only one method has.
func linkChecks(methods []*linkMethod) []check {
	const proof = "link.inclusion"
	list := []check{
		{
			Spec: Spec{
				ID: "link.method", Layer: Link, Title: "Something links the guest's quote to the host's, strongly enough",
				Stops:    "two valid quotes of unrelated machines, side by side",
				Citation: "RFC 9334, section 3.2; ETSI GR NFV-SEC 007",
				Actor:    CloudOperator, Remedy: "run the host's quote service and register the VM; the policy's trust.link.minimum names what the tenant accepts",
				Needs: []string{"bundle.format"},
			},
			run: (*verification).linkMethod,
		},
		{
			Spec: Spec{
				ID: proof, Layer: Link, Title: "The host signed for this guest's leaf",
				Stops:    "a forged or borrowed proof; a host quote that was made for others",
				Citation: "RFC 9162, section 2.1.3.2",
				Actor:    CloudOperator, Remedy: "collect again; if it stays, the host's service or the way to it is not honest",
				Needs: []string{"link.method", "host.quote.signature"},
			},
			run: onLink(linkProof.inclusion),
		},
		{
			Spec: Spec{
				ID: "link.guest-key", Layer: Link, Title: "The leaf names this guest's keys",
				Stops:    "relay: the host signed for another guest",
				Citation: "RFC 9334, section 3.2; TPM 2.0 Part 1, section 16 (Names)",
				Actor:    CloudOperator, Remedy: "treat as an attack: a host's quote for one VM was shown beside another VM's",
				Needs: []string{proof},
			},
			run: onLink(linkProof.guestKey),
		},
		{
			Spec: Spec{
				ID: "link.guest-quote", Layer: Link, Title: "The leaf names this guest quote",
				Stops:    "a guest quote exchanged after the host signed",
				Citation: "RFC 9334, section 3.2",
				Actor:    CloudOperator, Remedy: "treat as an attack: the guest's quote is not the one the host saw",
				Needs: []string{proof},
			},
			run: onLink(linkProof.guestQuote),
		},
		{
			Spec: Spec{
				ID: "link.vm", Layer: Link, Title: "The link is about the VM that the tenant means",
				Stops:    "another VM on the same host answering for this one; who says which VM it is depends on the link method, and under nonce-only it is the guest",
				Citation: "RFC 9334, section 3.2",
				Actor:    Tenant, Remedy: "compare the uuid with the one the cloud shows for the server",
				Needs: []string{proof},
			},
			run: onLink(linkProof.vm),
		},
		{
			Spec: Spec{
				ID: "link.host-stable", Layer: Link, Title: "The VM is on the host of the last result",
				Stops:    "an unnoticed move to another host",
				Citation: "RFC 9334, section 10 (freshness)",
				Actor:    CloudOperator, Remedy: "say whether the VM was migrated",
				Needs: []string{proof},
			},
			run: (*verification).hostStable,
		},
	}
	for _, m := range methods {
		if m.checks != nil {
			list = append(list, m.checks()...)
		}
	}
	return list
}

func contextChecks() []check {
	hint := func(id, title, stops, citation, actor, remedy string, run func(*verification) Check) check {
		return check{
			Spec: Spec{
				ID: "context." + id, Layer: Context, Title: title, Stops: stops, Citation: citation,
				Actor: actor, Remedy: remedy, Needs: []string{"bundle.format"},
			},
			run: run,
		}
	}
	return []check{
		hint("instance", "SMBIOS, the cloud and the EK certificate name the VM of the link",
			"mix-ups of instances; a hint that never proves anything",
			"DMTF SMBIOS 3.7, section 7.2.1 (System UUID); swtpm_setup(8), --vmid",
			CloudOperator, "explain why they and the link name different VMs", (*verification).instance),
		hint("vtpm", "The VM was asked to have the vTPM that it shows",
			"a TPM that somebody gave a VM which was not to have one; a hint that never proves anything",
			"OpenStack Nova, admin guide, Emulated Trusted Platform Module",
			Tenant, "make the VM anew with a flavor or image that asks for a vTPM (hw:tpm_version=2.0)", (*verification).vTPM),
		hint("placement", "The host that vouches is the one that the cloud placed the VM on",
			"a host that answers for another's VM; a hint that never proves anything",
			"OpenStack Compute API, servers, hostId",
			CloudOperator, "say on which host the VM runs; give the host service the name that Nova has for the host (--name)", (*verification).placement),
		hint("host-stable", "The cloud says that the VM is on the host of the last result",
			"an unnoticed move to another host; a hint that never proves anything",
			"OpenStack Compute API, servers, hostId",
			CloudOperator, "say whether the VM was moved; `deepattest openstack show` lists what was done to it", (*verification).hostID),
	}
}
