package keylime

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// TPM is what attesting needs of a *tpm.TPM.
type TPM interface {
	guest.Quoter
	Certify(ctx context.Context, object tpm.SigningKey, ak *tpm.AK, qualifyingData []byte) (quote.Quote, error)
	ResetPCR(ctx context.Context, pcr int) error
	Extend(ctx context.Context, pcr int, digests map[quote.Alg][]byte) error
}

// Agent is a push agent (API 3.0) for the vTPM of the guest that it runs in. It must
// have an id of its own: a Keylime agent of the distribution that uses the same one
// competes for the record. It holds no credentials but the TPM's key.
type Agent struct {
	ID       string
	TPM      TPM
	AK       *tpm.AK   // the key that was registered and enrolled: RSASSA with SHA-256
	Bank     quote.Alg // of the PCRs that are offered; 0: SHA-256
	Verifier *Verifier
}

// Push is one attestation.
type Push struct {
	BootTime time.Time  // mandatory: Keylime tells boots apart by it
	UEFI     []byte     // TCG event log; empty: not offered
	IMA      string     // IMA list as text (ascii_runtime_measurements); empty: not offered
	Known    quote.PCRs // values of the guest's own evidence, which save reading them again
	// Document makes the verdict document for the challenge of this attestation; nil
	// offers none. A verifier without the plug-in does not ask for it.
	Document func(challenge []byte) ([]byte, error)
	// Carrier puts a verdict into PCR 23 first; nil leaves the PCR alone.
	Carrier *Carrier
}

// Receipt is what the verifier confirmed: that it has the evidence, not what it
// thinks of it. That is for the administrator to see.
type Receipt struct {
	Attestation string          `json:"attestation"` // path of the record
	Selection   quote.Selection `json:"selection"`   // PCRs that were asked for
	Document    bool            `json:"document"`    // the verifier took the verdict document
	Next        time.Duration   `json:"next"`        // not before this may the next one come
}

// Push attests once: session, capabilities, evidence. Four requests and two TPM
// commands, one or two more with a Carrier or when PCRs have to be read.
func (a *Agent) Push(ctx context.Context, p Push) (*Receipt, error) {
	if err := a.validate(p); err != nil {
		return nil, err
	}
	if p.Carrier != nil {
		value, err := p.Carrier.put(ctx, a.TPM, a.bank())
		if err != nil {
			return nil, err
		}
		p.Known = withCarrier(p.Known, a.bank(), value)
	}
	s, err := a.Verifier.openSession(ctx, a.ID, func(ctx context.Context, challenge []byte) (quote.Quote, error) {
		return a.TPM.Certify(ctx, a.AK, a.AK, challenge)
	})
	if err != nil {
		return nil, err
	}
	if skew := a.Verifier.skew(s.created); p.Document != nil && skew.Abs() > MaxSkew {
		return nil, fmt.Errorf("%s: %w (by %s)", a.Verifier, ErrClockSkew, skew)
	}
	path, wanted, err := a.negotiate(ctx, s, p)
	if err != nil {
		return nil, err
	}
	evidence, r, err := a.collect(ctx, p, wanted)
	if err != nil {
		return nil, err
	}
	r.Attestation = path
	return r, a.send(ctx, s, r, evidence)
}

func (a *Agent) bank() quote.Alg {
	if a.Bank == 0 {
		return quote.SHA256
	}
	return a.Bank
}

func (a *Agent) validate(p Push) error {
	if err := agentPath(a.ID); err != nil {
		return err
	}
	switch {
	case a.TPM == nil || a.AK == nil || a.Verifier == nil:
		return errors.New("push to Keylime: no TPM, attestation key or verifier given")
	case p.BootTime.IsZero():
		return errors.New("push to Keylime: the boot time is not known")
	case strings.Count(p.IMA, "\n") == 0 && p.IMA != "":
		return errors.New("push to Keylime: the IMA list is not the text form: read ascii_runtime_measurements")
	}
	_, err := a.key()
	return err
}

type collected struct {
	Class string `json:"evidence_class"`
	Type  string `json:"evidence_type"`
	Data  any    `json:"data"`
}

type quoteData struct {
	Subject   []byte `json:"subject_data"`
	Message   []byte `json:"message"`
	Signature []byte `json:"signature"`
}

type logData struct {
	Count   int    `json:"entry_count,omitzero"`
	Entries string `json:"entries"`
}

// collect makes what the verifier wants: as many pieces and in the same order, or it
// refuses them all.
func (a *Agent) collect(ctx context.Context, p Push, list []wanted) ([]collected, *Receipt, error) {
	r := &Receipt{}
	var challenge []byte
	for _, w := range list {
		if w.Type == typeQuote {
			challenge = w.Parameters.Challenge
		}
	}
	// The document names the challenge of this attestation, and the verifier sets it
	// with the quote only.
	if err := checkChallenge(challenge); err != nil {
		return nil, nil, fmt.Errorf("%s: attestation of agent %s without a usable quote: %w; Keylime administrator: enrol it with a tpm_policy that names at least one PCR value", a.Verifier, a.ID, err)
	}
	var out []collected
	for _, w := range list {
		var data any
		switch {
		case w.Type == typeQuote && r.Selection == nil:
			sel, err := a.selection(w)
			if err != nil {
				return nil, nil, err
			}
			q, values, err := a.quote(ctx, challenge, sel, p.Known)
			if err != nil {
				return nil, nil, err
			}
			r.Selection = sel
			data = quoteData{PCRBlob(a.bank(), values[a.bank()]), q.Attest, q.Signature}
		case w.Type == typeUEFI && len(p.UEFI) > 0:
			data = logData{Entries: base64.StdEncoding.EncodeToString(p.UEFI)}
		case w.Type == typeIMA && p.IMA != "":
			entries, err := imaFrom(p.IMA, w.Parameters.Offset, w.Parameters.Count)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", a.Verifier, err)
			}
			data = logData{strings.Count(entries, "\n"), entries}
		case w.Type == EvidenceType && p.Document != nil:
			doc, err := p.Document(challenge)
			if err != nil {
				return nil, nil, fmt.Errorf("verdict document: %w", err)
			}
			r.Document = true
			data = logData{1, string(doc)}
		default:
			return nil, nil, fmt.Errorf("%s: it asks for evidence %q, which was not offered", a.Verifier, printable(w.Type))
		}
		out = append(out, collected{w.Class, w.Type, data})
	}
	return out, r, nil
}

// selection checks what the verifier chose against what was offered.
func (a *Agent) selection(w wanted) (quote.Selection, error) {
	fault := func(format string, args ...any) (quote.Selection, error) {
		return nil, fmt.Errorf("%s: quote that this agent cannot make: "+format, append([]any{a.Verifier}, args...)...)
	}
	key, err := a.key()
	if err != nil {
		return nil, err
	}
	if w.Parameters.Key != nil && w.Parameters.Key.Public != nil && !slices.Equal(w.Parameters.Key.Public, key.Public) {
		return fault("with another key than the one offered")
	}
	if !slices.Contains(key.Schemes, w.Parameters.Scheme) || w.Parameters.Hash != a.bank().String() {
		return fault("scheme %s with %s", printable(w.Parameters.Scheme), printable(w.Parameters.Hash))
	}
	pcrs := slices.Clone(w.Parameters.Subjects[a.bank().String()])
	slices.Sort(pcrs)
	pcrs = slices.Compact(pcrs)
	if len(w.Parameters.Subjects) != 1 || len(pcrs) == 0 || pcrs[0] < 0 || pcrs[len(pcrs)-1] >= quote.NumPCRs {
		return fault("PCRs %v", w.Parameters.Subjects)
	}
	return quote.Selection{{Alg: a.bank(), PCRs: pcrs}}, nil
}

// quote quotes, and reads the PCRs only when the known values are not the quoted
// ones.
func (a *Agent) quote(ctx context.Context, challenge []byte, sel quote.Selection, known quote.PCRs) (quote.Quote, quote.PCRs, error) {
	return guest.QuotePCRs(ctx, &knownFirst{Quoter: a.TPM, known: known}, a.AK, challenge, sel)
}

// knownFirst answers the first reading of PCRs from values that are known already.
// QuotePCRs compares them with the quote, and reads again when they differ.
type knownFirst struct {
	guest.Quoter
	known quote.PCRs
}

// ReadPCRs returns the known values once, if they are all there.
func (k *knownFirst) ReadPCRs(ctx context.Context, sel quote.Selection) (quote.PCRs, error) {
	known := k.known
	k.known = nil
	values := quote.PCRs{}
	for _, bank := range sel {
		values[bank.Alg] = make(map[int]quote.Hex, len(bank.PCRs))
		for _, n := range bank.PCRs {
			v, ok := known[bank.Alg][n]
			if !ok {
				return k.Quoter.ReadPCRs(ctx, sel)
			}
			values[bank.Alg][n] = v
		}
	}
	return values, nil
}

// imaFrom returns the entries of a list from an offset on.
func imaFrom(list string, offset, count int) (string, error) {
	lines := strings.SplitAfter(list, "\n")
	if n := len(lines); lines[n-1] == "" {
		lines = lines[:n-1]
	}
	if offset < 0 || offset > len(lines) {
		return "", fmt.Errorf("it asks for IMA entries from %d on, and there are %d", offset, len(lines))
	}
	lines = lines[offset:]
	if count > 0 {
		lines = lines[:min(count, len(lines))]
	}
	return strings.Join(lines, ""), nil
}

// send delivers the evidence exactly once. An answer that got lost is asked for by
// sending again: a verifier that has the evidence says that it cannot be changed.
func (a *Agent) send(ctx context.Context, s *session, r *Receipt, evidence []collected) error {
	q := request{
		method: http.MethodPatch, path: r.Attestation, content: contentJSONAPI, token: s.token, want: []int{http.StatusAccepted, http.StatusOK},
		body: document{documentData{Type: "attestation", Attributes: struct {
			Collected []collected `json:"evidence_collected"`
		}{evidence}}},
	}
	got, err := a.Verifier.call(ctx, q)
	var lost *transportError
	if errors.As(err, &lost) && ctx.Err() == nil {
		got, err = a.Verifier.call(ctx, q)
		var e *Error
		if errors.As(err, &e) && e.Code == "evidence_immutable" {
			return nil
		}
	}
	if err != nil {
		return err
	}
	res, err := readResource[struct {
		Stage string `json:"stage"`
	}](a.Verifier.client, q, got)
	if err != nil {
		return err
	}
	r.Next = time.Duration(max(0, res.Meta.NextSeconds)) * time.Second
	return nil
}
