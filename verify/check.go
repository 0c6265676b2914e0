package verify

import (
	"fmt"
)

// Layer says what a check is about. Checks of the layers Format, Host, Link and
// Guest decide authenticity and cannot be waived; Policy checks appraise what the
// others established; Context checks only warn.
type Layer string

// The layers, bottom-up.
const (
	Format  Layer = "format"
	Host    Layer = "host"
	Link    Layer = "link"
	Guest   Layer = "guest"
	Policy  Layer = "policy"
	Context Layer = "context"
)

// Status is the outcome of one check. The zero value is not a pass.
type Status uint8

// The outcomes.
const (
	Unknown       Status = iota // the check could not decide: something it needs was not given
	Pass                        //
	Fail                        // the evidence contradicts the check
	Warn                        // worth a look, does not count against the verdict
	NotApplicable               // the check has no subject in this evidence
	NotRun                      // BlockedBy, or Detail, says what stood in the way
	Malfunction                 // the program failed, not the evidence
)

var statusNames = [...]string{"unknown", "pass", "fail", "warn", "not-applicable", "not-run", "malfunction"}

func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// MarshalText writes the name.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the name.
func (s *Status) UnmarshalText(text []byte) error {
	for i, name := range statusNames {
		if name == string(text) {
			*s = Status(i)
			return nil
		}
	}
	return fmt.Errorf("unknown check status %q", text)
}

// Spec is a check's entry in the catalogue. IDs are stable: policies and
// dashboards depend on them.
type Spec struct {
	ID       string   `json:"id"`
	Layer    Layer    `json:"layer"`
	Title    string   `json:"title"`           // what must hold
	Stops    string   `json:"stops"`           // the attack or mistake it catches
	CVEs     []string `json:"cves,omitempty"`  // known cases of that attack
	Citation string   `json:"citation"`        // document and section
	Actor    string   `json:"actor"`           // who can mend a failure: tenant, image owner, cloud operator
	Remedy   string   `json:"remedy"`          // what that actor does next
	Needs    []string `json:"needs,omitempty"` // checks that must not have failed for this one to run
}

// Check is one catalogued check with its outcome for one bundle.
type Check struct {
	ID        string `json:"id"`
	Layer     Layer  `json:"layer"`
	Status    Status `json:"status"`
	Required  bool   `json:"required"`            // an outcome other than pass, warn or not-applicable counts
	Detail    string `json:"detail"`              // what was found, one sentence
	Got       string `json:"got,omitempty"`       // the value that failed
	Want      string `json:"want,omitempty"`      // the value or rule it failed against
	Where     string `json:"where,omitempty"`     // PCR, event index, byte offset, certificate
	BlockedBy string `json:"blockedBy,omitempty"` // for not-run: the check that stood in the way
}
