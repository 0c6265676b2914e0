package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
	"github.com/deepattest/deepattest/verify"
)

// The identification that a policy file begins with.
const (
	APIVersion = "deepattest/v1"
	Kind       = "Policy"
)

// MaxPolicy is the most bytes a policy or trust file may have. IMA allow-lists
// make up nearly all of a large one.
const MaxPolicy = 16 << 20

// Builtin is the entry of Trust.Roots that stands for the TPM makers' roots that
// ship with the program.
const Builtin = "builtin"

// Policy is what a tenant accepts. Parse makes it; it is not changed afterwards
// and may be used by many goroutines.
type Policy struct {
	Name        string
	Description string
	Expires     time.Time // zero: never
	Trust       TrustRules
	MaxAge      time.Duration // from drawing the challenge to the appraisal; 0: any
	Host, Guest *LayerPolicy  // nil: the layer is not appraised, so nothing is trusted
	WarnOnly    []string      // ids of policy checks whose failure only warns
	Digest      quote.Hex     // SHA-256 of the file's bytes
}

// TrustRules say who may vouch.
type TrustRules struct {
	AnyHost     bool     // any host with a known maker's TPM, not only enrolled ones
	Roots       []string // Builtin, or names of PEM files beside the policy, for the caller to load
	Guests      []string // how a guest's AK may be bound: BoundVouched, BoundPinned
	LinkMinimum string   // the weakest link method accepted: a quote.Link... name
	Revocation  bool     // current revocation lists must be there for every issuer of the host's EK certificate
	Xen         verify.XenExpect
}

// How a guest's attestation key may be bound to its vTPM.
const (
	BoundVouched = "vouched" // named in the host's signed leaf
	BoundPinned  = "pinned"  // named in the tenant's trust file
)

// LayerPolicy is what one layer, host or guest, must show.
type LayerPolicy struct {
	TPM          string    // family: quote.Version12; empty is 2.0
	Bank         quote.Alg // the only PCR bank that counts; quote.SHA1 for a TPM 1.2 and for no other
	ExpiredEK    bool      // a TPM 1.2's EK certificate may have run out
	DenyFirmware []FirmwareRule
	PCRs         map[int][]Value // alternatives for each PCR
	Profiles     []Profile
	Log          *LogRule
	SecureBoot   *SecureBootRule
	CommandLine  *CommandLineRule
	IMA          *IMARule
	Events       *EventRules
}

// knownLines are the kernel command lines that the policy names whole.
func (l *LayerPolicy) knownLines() []string {
	if l == nil || l.CommandLine == nil {
		return nil
	}
	return l.CommandLine.Allow
}

// Value is one accepted value of a PCR.
type Value struct {
	Digest     quote.Hex
	Note       string
	Components []ComponentValue // what was measured to give Digest, in order; for explanations only
}

// ComponentValue names a measured component behind a PCR value.
type ComponentValue struct {
	Name   string
	Detail string // what else was seen of it; may be empty
	Digest quote.Hex
}

// Profile is a set of PCR values that are good only together.
type Profile struct {
	Name string
	PCRs map[int]quote.Hex
}

// SecureBootRule is about the Secure Boot state in PCR 7's events.
type SecureBootRule struct {
	Required        bool // Secure Boot must be on
	ForbidSetupMode bool // the platform key must be enrolled
	Known           bool // the log must say what the state is, whatever it is
	// Certificates, by SHA-256 of their DER: what was started was verified with
	// these and nothing else. Empty: with any.
	Certificates []quote.Hex
	DBXEntries   int         // hashes and certificates that dbx must have at least
	DBXContains  []quote.Hex // SHA-256 image hashes that must be among them
}

// CommandLineRule is about every kernel command line that boot software measured.
type CommandLineRule struct {
	Allow   []string // whole command lines; also recognised where the log holds a digest only
	Deny    []string // parameters: "init=" with any value, "ima=off" with this one, "single" with any or none
	Require []string // parameters in the same form
}

// IMARule is about the files that IMA measured.
type IMARule struct {
	Required bool
	Digests  []quote.Hex            // accepted under any path
	Paths    map[string][]quote.Hex // accepted under this path
	Excludes []*regexp.Regexp       // paths that are not looked at, from their beginning

	// Accepted by name, because less is proven then.
	Kexec      bool // kernels that the running one started
	SHA1Padded bool // lists of kernels before 5.8, which rest on SHA-1
}

// Listed is how many digests the allow-list accepts.
func (r *IMARule) Listed() int {
	n := len(r.Digests)
	for _, digests := range r.Paths {
		n += len(digests)
	}
	return n
}

// AcceptsAny reports whether there is no allow-list, so that any file will do. A
// list that is there and empty accepts none.
func (r *IMARule) AcceptsAny() bool { return r.Digests == nil && r.Paths == nil && r.Excludes == nil }

// EventRules are about single measurements, by digest: names in a log are not
// protected.
type EventRules struct {
	Require, Deny []EventRule
}

// EventRule names one measurement.
type EventRule struct {
	PCR       int
	Component string // for people: what the digest is of
	Digest    quote.Hex
}

// Layer returns the section of a layer, nil when there is none.
func (p *Policy) Layer(name verify.Layer) *LayerPolicy {
	switch {
	case p == nil:
		return nil
	case name == verify.Host:
		return p.Host
	case name == verify.Guest:
		return p.Guest
	}
	return nil
}

// warnOnly reports whether a failure of a check only warns.
func (p *Policy) warnOnly(id string) bool { return p != nil && slices.Contains(p.WarnOnly, id) }

// expect lists what the rules of a layer rest on. Rules that only warn demand
// nothing: what they need may be missing.
func (p *Policy) expect(name verify.Layer) verify.Expect {
	l := p.Layer(name)
	if l == nil {
		return verify.Expect{}
	}
	e := verify.Expect{TPM: l.TPM, Bank: l.Bank, AcceptExpiredEK: l.ExpiredEK}
	counts := func(check string) bool { return !p.warnOnly(checkID(name, check)) }
	for n := range l.PCRs {
		if counts(fmt.Sprintf("pcr.%d", n)) {
			e.PCRs = append(e.PCRs, n)
		}
	}
	if counts("profile") {
		for _, profile := range l.Profiles {
			e.PCRs = slices.AppendSeq(e.PCRs, maps.Keys(profile.PCRs))
		}
	}
	if l.Log != nil && counts("log") {
		e.PCRs, e.Log = append(e.PCRs, l.Log.Explains...), true
	}
	if l.SecureBoot != nil && counts("secure-boot") {
		e.PCRs, e.Log = append(e.PCRs, 7), true
	}
	if l.CommandLine != nil && counts("cmdline") {
		e.Log = true
	}
	if l.Events != nil && counts("events") {
		e.Log = true
		for _, r := range slices.Concat(l.Events.Require, l.Events.Deny) {
			e.PCRs = append(e.PCRs, r.PCR)
		}
	}
	e.AcceptSHA1Padded = l.IMA != nil && l.IMA.SHA1Padded
	if l.IMA != nil && l.IMA.Required && counts("ima") {
		e.PCRs, e.IMA = append(e.PCRs, ima.PCR), true
	}
	slices.Sort(e.PCRs)
	e.PCRs = slices.Compact(e.PCRs)
	return e
}

// checkID is the id of a layer's policy check.
func checkID(layer verify.Layer, check string) string { return "policy." + string(layer) + "." + check }
