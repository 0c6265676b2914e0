package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/deepattest/deepattest/quote"
)

// The checks of this file compare hints with each other and with what the link
// proves. No signature that the tenant trusts covers a hint, so they warn with both
// sides of a contradiction and never fail or prove anything.

// instance compares every name that the guest has for itself with the VM that the
// link names.
func (v *verification) instance() Check {
	linked := v.bundle.Link.VM
	var said []string
	for _, s := range []struct {
		vm          quote.UUID
		who, member string
	}{
		{v.bundle.Context.VM, "SMBIOS", "context.vm"},
		{v.cloud().VM, "the cloud (" + v.cloud().Source + ")", "context.cloud.vm"},
		{v.certifiedVM(), "the vTPM's EK certificate", "guest.ek.certificates"},
	} {
		switch {
		case s.vm.IsZero() || linked.IsZero():
		case s.vm != linked:
			return warn("%s calls the VM by another uuid than the link", s.who).evidence(s.vm.String(), linked.String(), s.member)
		default:
			said = append(said, s.who)
		}
	}
	if len(said) == 0 {
		return notApplicable("no VM uuid from SMBIOS, the cloud or an EK certificate, or none in the link, to compare")
	}
	return pass("the link's VM %s is also that of %s", linked, strings.Join(said, ", "))
}

// certifiedVM is the uuid in the subject of the vTPM's EK certificate, which
// swtpm_setup writes as NAME:UUID (swtpm_setup(8), --vmid). Zero when there is none.
func (v *verification) certifiedVM() quote.UUID {
	if v.guest.ev == nil || v.guest.ek == nil {
		return quote.UUID{}
	}
	for _, der := range v.guest.ev.EK.Certificates {
		cert, err := parseEKCertificate(der)
		if err != nil || !cert.certifies(v.guest.ek.Key) {
			continue
		}
		_, text, _ := strings.Cut(cert.Identity.CommonName, ":")
		if vm, err := quote.ParseUUID(text); err == nil {
			return vm
		}
	}
	return quote.UUID{}
}

// vTPM: a VM that was not asked to have a vTPM has one of somebody else.
func (v *verification) vTPM() Check {
	switch asked := v.cloud().VTPM; {
	case asked == "":
		return notApplicable("the cloud does not tell whether the VM was to have a vTPM")
	case v.guest.ev == nil:
		return notApplicable("no guest layer to compare with")
	case asked != v.guest.ev.TPM.Version:
		return warn("the guest shows another TPM than the VM was asked to have").
			evidence("TPM "+v.guest.ev.TPM.Version, "as the flavor or image asks for: "+asked, "context.cloud.vtpm")
	}
	return pass("the VM was asked to have a vTPM of version %s", v.cloud().VTPM)
}

// placement: Nova tells a tenant the name of a host only as a hash with the
// project (nova, objects/instance.py via utils.generate_hostid: SHA-224 of both
// names, one after the other).
func (v *verification) placement() Check {
	c, name := v.cloud(), v.bundle.Context.HostName
	if c.HostID == "" || c.Project == "" || name == "" {
		return notApplicable("no hostId and project from the cloud, or no host name in the evidence, to compare")
	}
	sum := sha256.Sum224([]byte(c.Project + name))
	if want := hex.EncodeToString(sum[:]); c.HostID != want {
		return warn("the cloud says that the VM runs on another host than %q", name).
			evidence(c.HostID, fmt.Sprintf("%s, the hostId of %q in project %s", want, name, c.Project), "context.cloud.hostID")
	}
	return pass("the cloud too says that the VM runs on %q", name)
}

// hostID: the cloud's word on whether the VM moved, beside link.host-stable.
func (v *verification) hostID() Check {
	now := v.cloud().HostID
	switch {
	case now == "" || v.opts.Previous == nil || v.opts.Previous.HostID == "":
		return notApplicable("no hostId from the cloud now and in an earlier result to compare")
	case now == v.opts.Previous.HostID:
		return pass("the hostId of the last result")
	}
	moved := warn("the cloud says that the VM moved to another host since the last result")
	if v.host.ak != nil {
		if same, _ := v.sameTPM(v.host, v.opts.Previous.of(Host)); same {
			moved.Detail += ", and the evidence is of the same host as before"
		}
	}
	return moved.evidence(now, v.opts.Previous.HostID, "context.cloud.hostID")
}

// cloud is what the operator asserts; empty when nothing is.
func (v *verification) cloud() quote.Cloud {
	if v.bundle.Context.Cloud == nil {
		return quote.Cloud{}
	}
	return *v.bundle.Context.Cloud
}
