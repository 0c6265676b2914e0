// Package report renders attestation results. Every format is a rendering of the
// same policy.Result; none adds or decides anything.
//
// Much of a result was written by the machine under test: names, paths, command
// lines, error texts. Text makes all of it harmless to a terminal and to the eye.
package report

import (
	"fmt"
	"io"

	"github.com/deepattest/deepattest/policy"
)

// JSON writes a result's canonical form, schemas/result.v1.schema.json: the one
// that all other formats are made from.
func JSON(w io.Writer, r *policy.Result) error {
	data, err := r.Encode()
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return write(w, data)
}

func write(w io.Writer, data []byte) error {
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// VerdictWord is the verdict as people read it: "TRUSTED", "NOT TRUSTED",
// "REJECTED" or "INCONCLUSIVE". Anything that is not a verdict is inconclusive.
func VerdictWord(v policy.Verdict) string {
	switch v {
	case policy.Trusted:
		return "TRUSTED"
	case policy.Untrusted:
		return "NOT TRUSTED"
	case policy.Rejected:
		return "REJECTED"
	}
	return "INCONCLUSIVE"
}

// placeWorth says what a result is worth by where it was computed. A hostile
// hypervisor can lie to any program inside the guest.
func placeWorth(p policy.Place) string {
	switch p {
	case policy.InGuest:
		return "in-guest: shows a host that is honest but wrong (misplaced, unpatched, drifted, unmeasured); " +
			"no proof against a hostile hypervisor, which can lie to any program inside the guest, this one included"
	case policy.OffGuest:
		return "off-guest: computed outside the guest, so neither guest nor host could change the computation; " +
			"it rests on the challenge having been drawn outside as well"
	}
	return "place unknown: worth no more than a result computed inside the guest"
}
