package keylime

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// Enrolment is what an administrator decides about a guest. It happens outside of the
// guest, with an administrator's certificate.
type Enrolment struct {
	ID     string
	Policy *policy.Policy // its guest section becomes the tpm_policy
	Carry  bool           // the verdict comes in PCR 23
	Plugin bool           // the verifier has the plug-in: it then fails an attestation without a verdict
	Files  bool           // the policy's IMA allow-list becomes the runtime policy
	// Replace deletes an agent of that id first. Its history goes with it, and so does a
	// failure, which Keylime otherwise keeps for good.
	Replace bool
	// Anchors hold the roots that EK certificates of vTPMs chain to, and Now is the time
	// of the check. A verifier in push mode checks no EK certificate: this is the only
	// place where anybody does.
	Anchors verify.Anchors
	Now     time.Time
	// UnsafeAnyEK enrols a TPM whose EK certificate was not checked.
	UnsafeAnyEK bool
}

// Enrolled is what was enrolled.
type Enrolled struct {
	TPMPolicy string            `json:"tpmPolicy"`
	Metadata  Metadata          `json:"metadata"`
	EK        *verify.CheckedEK `json:"-"` // nil when it was not checked
	Warnings  []string          `json:"warnings,omitempty"`
}

// Metadata is what is stored beside an agent, for whoever reads its status and for the
// plug-in.
type Metadata struct {
	Deep DeepMetadata `json:"deep_attestation"`
}

// DeepMetadata says what the agent's verdicts rest on.
type DeepMetadata struct {
	Carrier int       `json:"carrier,omitzero"` // PCR that carries the verdict; 0: none does
	Digest  quote.Hex `json:"digest"`           // of the policy
	EK      string    `json:"ek"`               // "checked" or "unchecked": its certificate
	Plugin  bool      `json:"plugin"`           // an attestation without a verdict document fails
	Policy  string    `json:"policy"`           // its name, cut to 40 bytes
	Version int       `json:"v"`
}

// maxMetadata is the room that Keylime's database has (keylime/db/verifier_db.py).
const maxMetadata = 200

// encode writes the metadata in the room that there is for it.
func (m Metadata) encode() (string, error) {
	const longest = 40
	if len(m.Deep.Policy) > longest {
		m.Deep.Policy = strings.ToValidUTF8(m.Deep.Policy[:longest], "")
	}
	data, err := json.Marshal(m, json.Deterministic(true))
	if err != nil {
		return "", err
	}
	if len(data) > maxMetadata {
		return "", fmt.Errorf("metadata of %d bytes, and Keylime keeps %d; tenant: give the policy a name without characters that need escapes", len(data), maxMetadata)
	}
	return string(data), nil
}

// Enrol adds a registered agent to a verifier in push mode: the key from the
// registrar's record, whose EK certificate it checks itself, and the policy.
func Enrol(ctx context.Context, r *Registrar, v *Verifier, e Enrolment) (*Enrolled, error) {
	fault := func(err error) (*Enrolled, error) { return nil, fmt.Errorf("enrol agent %s: %w", e.ID, err) }
	if e.Policy == nil {
		return fault(lifecycle.ErrNoPCRs)
	}
	var carrier quote.Hex
	if e.Carry {
		carrier = CarrierValue(e.Policy.Digest)
	}
	exported, err := lifecycle.ExportKeylime(e.Policy.Guest, carrier)
	if err != nil {
		return fault(err)
	}
	out := &Enrolled{TPMPolicy: exported.JSON, Warnings: exported.Warnings}
	add := NewAgent{TPMPolicy: exported.JSON}
	if e.Files {
		runtime, warnings, err := lifecycle.ExportKeylimeRuntime(e.Policy.Guest.IMA)
		if err != nil {
			return fault(err)
		}
		add.RuntimePolicy, out.Warnings = runtime, append(out.Warnings, warnings...)
	}
	mode, err := v.Mode(ctx)
	if err != nil {
		return fault(err)
	}
	if mode != ModePush {
		return fault(fmt.Errorf("%s: %w", v, ErrPullMode))
	}
	rec, err := r.Show(ctx, e.ID)
	if err != nil {
		return fault(err)
	}
	add.AK = rec.AK
	if out.EK, err = e.checkEK(rec); err != nil {
		return fault(err)
	}
	out.Metadata.Deep = DeepMetadata{Version: 1, Policy: e.Policy.Name, Digest: e.Policy.Digest, EK: "checked", Plugin: e.Plugin}
	if out.EK == nil {
		out.Metadata.Deep.EK = "unchecked"
		out.Warnings = append(out.Warnings, "the EK certificate was not checked: whoever registered this agent may have a TPM of their own making")
	} else {
		out.Warnings = append(out.Warnings, out.EK.Notes...)
	}
	if e.Carry {
		out.Metadata.Deep.Carrier = CarrierPCR
		out.Warnings = append(out.Warnings, "whoever is root in the guest can put the verdict into PCR 23: it says no more than the guest's own software does")
	}
	if add.Metadata, err = out.Metadata.encode(); err != nil {
		return fault(err)
	}
	if e.Replace {
		var known *Error
		if err := v.Delete(ctx, e.ID); err != nil && !(errors.As(err, &known) && known.Status == http.StatusNotFound) {
			return fault(err)
		}
	}
	if err := v.Add(ctx, e.ID, add); err != nil {
		return fault(err)
	}
	return out, nil
}

// checkEK checks the EK certificate in a record, nil when that was waived.
func (e *Enrolment) checkEK(rec *Record) (*verify.CheckedEK, error) {
	public, err := rec.EKPublic()
	if err != nil {
		return nil, err
	}
	cert, err := rec.EKCertificate()
	if err != nil {
		return nil, err
	}
	checked, err := CheckEK(public, cert, e.Anchors, e.Now)
	if err != nil && e.UnsafeAnyEK {
		return nil, nil
	}
	return checked, err
}

// CheckEK checks that a certificate is for an endorsement key (TPMT_PUBLIC) and chains to
// one of the roots.
func CheckEK(public, cert []byte, anchors verify.Anchors, now time.Time) (*verify.CheckedEK, error) {
	p, err := quote.ParsePublic(public)
	if err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	switch {
	case len(cert) == 0:
		return nil, errors.New("the TPM has no EK certificate; cloud operator: set up the VM's vTPM with a CA (swtpm_setup --create-ek-cert)")
	case len(anchors.Roots) == 0:
		return nil, errors.New("no root was given for EK certificates; Keylime administrator: give the CA of the cloud's vTPMs")
	}
	checked, err := verify.CheckEK(cert, nil, anchors, now)
	if err != nil {
		return nil, err
	}
	key, ok := p.Key.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !key.Equal(checked.Cert.PublicKey) {
		return nil, fmt.Errorf("the EK certificate %q is for another key than %s", checked.Cert.Subject, p.Name())
	}
	return checked, nil
}
