package policy

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// ResultMediaType names the result format and its version.
const ResultMediaType = "application/vnd.deepattest.result.v1+json"

// Verdict is the one word a relying party acts on. The zero value is not a pass.
type Verdict uint8

// The verdicts.
const (
	Inconclusive Verdict = iota // could not assess
	Trusted                     // authentic, linked, and in a state the policy allows
	Untrusted                   // authentic and linked, in a state the policy does not allow
	Rejected                    // not authentic, or not linked
)

var verdictNames = [...]string{"inconclusive", "trusted", "untrusted", "rejected"}

func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// MarshalText writes the word.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads the word.
func (v *Verdict) UnmarshalText(text []byte) error {
	for i, name := range verdictNames {
		if name == string(text) {
			*v = Verdict(i)
			return nil
		}
	}
	return fmt.Errorf("unknown verdict %q", text)
}

// Place says where a result was computed, which decides what it is worth: a
// hostile hypervisor can lie to any program inside the guest.
type Place string

// The places.
const (
	InGuest  Place = "in-guest"
	OffGuest Place = "off-guest"
)

// Result is an Attestation Result (RFC 9334, section 8.4): a pure function of the
// bundle's bytes, the policy, the anchors, the challenge and the time.
type Result struct {
	MediaType string        `json:"mediaType"`
	Verdict   Verdict       `json:"verdict"`
	Reason    string        `json:"reason"`   // one sentence: the check that decided
	Verified  Place         `json:"verified"` // where this was computed
	Now       time.Time     `json:"now"`      // RFC 3339, UTC, whole seconds
	Challenge quote.Hex     `json:"challenge"`
	Evidence  quote.Hex     `json:"evidence"` // SHA-256 of the bundle
	Policy    PolicyRef     `json:"policy"`
	Anchors   []string      `json:"anchors"` // the trust anchors that were used
	Layers    []LayerResult `json:"layers"`  // host, link, guest: bottom-up
	Checks    []CheckResult `json:"checks"`  // every check, in catalogue order
	Unsafe    []string      `json:"unsafe,omitempty"`
	Cloud     *quote.Cloud  `json:"cloud,omitempty"` // what the cloud's operator asserts; proves nothing
	Limits    []string      `json:"limits"`          // what this verdict does not prove, in words
}

// PolicyRef names the policy a result was made with.
type PolicyRef struct {
	Name   string    `json:"name"`             // metadata.name, "none" without a policy
	Digest quote.Hex `json:"digest,omitempty"` // SHA-256 of the policy file's bytes
}

// LayerResult is one layer's part of the verdict.
type LayerResult struct {
	Layer   verify.Layer `json:"layer"` // host, link or guest
	Verdict Verdict      `json:"verdict"`
	Name    string       `json:"name"`    // host or VM name
	Summary string       `json:"summary"` // one line for people
	// What the signatures covered; absent for the link and for a layer that is
	// not authentic.
	Claims *LayerClaims `json:"claims,omitempty"`
}

// LayerClaims are the signed statements of a layer, as the result shows them.
type LayerClaims struct {
	Maker       string            `json:"maker,omitempty"`
	Model       string            `json:"model,omitempty"`
	Firmware    string            `json:"firmware,omitempty"` // 16 hex digits: vendor specific; absent where it is not known
	EK          quote.Hex         `json:"ek,omitempty"`
	AK          quote.Hex         `json:"ak,omitempty"` // none for a guest under a Xen deep quote
	Bank        quote.Alg         `json:"bank"`
	PCRs        map[int]quote.Hex `json:"pcrs"`
	Replayed    []int             `json:"replayed"`              // PCRs the log explains in full
	Clock       quote.ClockInfo   `json:"clock,omitzero"`        // absent where the counters are not known
	SecureBoot  string            `json:"secureBoot"`            // "enabled", "disabled" or "unknown"
	CommandLine []string          `json:"commandLine,omitempty"` // kernel command lines in the log, whole up to 64 KiB in all
	// Bytes of the lines that are not shown because they exceed that. Kernels take a
	// few KiB, so a log that has such lines hides something.
	CommandLineCut int `json:"commandLineCut,omitzero"`
}

// CheckResult is a check with the advice that goes with a failure.
type CheckResult struct {
	verify.Check
	Remedy string `json:"remedy,omitempty"` // "ACTOR: what to do", for fail, unknown and not-run
}

// ExitCode maps a verdict to the command's exit status, which is an API.
func (v Verdict) ExitCode() int {
	switch v {
	case Trusted:
		return 0
	case Untrusted:
		return 1
	case Rejected:
		return 4
	}
	return 3
}

// MaxResult is the most bytes a stored result may have.
const MaxResult = 16 << 20

// Encode writes the result's one canonical form: members in a fixed order, map
// keys sorted, two spaces of indentation, a final newline.
func (r *Result) Encode() ([]byte, error) {
	out, err := json.Marshal(r, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("encode result: %w", err)
	}
	return append(out, '\n'), nil
}

// DecodeResult reads a stored result. Unknown and duplicate members, trailing data
// and other media types are errors. A stored result is as good as the place it was
// stored in: nothing here signs it.
func DecodeResult(data []byte) (*Result, error) {
	if len(data) > MaxResult {
		return nil, fmt.Errorf("result of %d bytes, at most %d", len(data), MaxResult)
	}
	var r Result
	if err := json.Unmarshal(data, &r, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("not a result of %s: %w", ResultMediaType, err)
	}
	if r.MediaType != ResultMediaType {
		return nil, fmt.Errorf("result of media type %.80q: this version reads %s", r.MediaType, ResultMediaType)
	}
	return &r, nil
}
