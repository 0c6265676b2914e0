package verify

import (
	"time"

	"github.com/deepattest/deepattest/quote"
)

// Report is the outcome of the authenticity and link checks of one bundle, or of one
// quote by itself.
type Report struct {
	Checks    []Check   // every catalogued check, once, in catalogue order; the host's alone of Quote
	Evidence  quote.Hex // SHA-256 of the bundle's bytes
	Challenge quote.Hex
	Now       time.Time
	// Unsafe names the unsafe options in force; not empty caps the verdict at
	// inconclusive.
	Unsafe []string
	// LinkMethod is the method the evidence proved, quote.LinkNone when none.
	LinkMethod string
	// Anchors describes the trust anchors that were used, in words.
	Anchors []string
	// Cloud is what the cloud's operator asserts of the VM, nil when nothing.
	// Nothing signs it.
	Cloud *quote.Cloud
	// SHA1 tells that a layer of the evidence is of a family of which all that it says
	// rests on SHA-1, whatever became of it.
	SHA1 bool

	host, guest *Claims
}

// Host returns what the host's signature covered, nil when the host layer is not
// authentic.
func (r *Report) Host() *Claims { return r.host }

// Guest returns what the guest's signature covered, nil when the guest layer is
// not authentic or not linked to an authentic host.
func (r *Report) Guest() *Claims { return r.guest }

// Check returns the outcome of a check by id.
func (r *Report) Check(id string) (Check, bool) {
	for _, c := range r.Checks {
		if c.ID == id {
			return c, true
		}
	}
	return Check{}, false
}

// Claims are the statements of one layer that rest on a checked signature. Only
// Evidence and Quote make them; a zero Claims claims nothing.
type Claims struct {
	Name     string          // the enrolled host's or the VM's name; the VM's uuid when it has none
	VM       quote.UUID      // guest only: the VM the link names
	TPM      string          // family, as quote.TPM.Version names it
	EK, AK   quote.Hex       // Names; EK is nil where nothing binds it to the AK, both where the guest has no key of its own
	Maker    string          // EK certificate: TPM manufacturer, "" without certificate
	Model    string          // EK certificate
	Firmware uint64          // TPMS_ATTEST.firmwareVersion; 0: not known, see HOST.quote.signer in the catalogue
	Clock    quote.ClockInfo // TPMS_ATTEST.clockInfo; zero: not known, for the same reason
	Bank     quote.Alg       // the pinned bank
	Covered  []int           // PCRs of that bank in the signed selection
	PCRs     map[int]quote.Hex

	// Log is what the measurement logs explain; nil without a log.
	Log *Log
	// IMA is the part of the IMA list that PCR 10 covers; nil without one.
	IMA []byte
}
