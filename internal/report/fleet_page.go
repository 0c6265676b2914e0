package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/deepattest/deepattest/policy"
)

//go:embed fleet.html.tmpl
var fleetTemplate string

var fleetPage = sync.OnceValue(func() *template.Template { return parsePage(fleetTemplate) })

// JSON writes the report in one canonical form: members in a fixed order, two
// spaces of indentation, a final newline.
func (r *FleetReport) JSON(w io.Writer) error {
	data, err := json.Marshal(r, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return fmt.Errorf("encode fleet report: %w", err)
	}
	return write(w, append(data, '\n'))
}

// fleetView is what the template shows of a fleet.
type fleetView struct {
	*FleetReport
	Mark   mark
	Period string
	Counts []fact
	Build  string
}

// HTML writes the report as one self-contained page, as HTML does for a result.
// Every guest has a row, so its size is linear in the number of guests.
func (r *FleetReport) HTML(w io.Writer, build string) error {
	v := fleetView{FleetReport: r, Build: Options{Build: build}.build(), Period: "no results"}
	if r.Results > 0 {
		v.Period = r.From.Format(time.RFC3339) + " to " + r.To.Format(time.RFC3339)
	}
	for _, verdict := range []policy.Verdict{policy.Rejected, policy.Untrusted, policy.Inconclusive, policy.Trusted} {
		v.Counts = append(v.Counts, fact{Name: VerdictWord(verdict), Value: fmt.Sprint(r.Verdicts[verdict.String()])})
	}
	trusted, all := r.Verdicts[policy.Trusted.String()], len(r.Guests)
	word := fmt.Sprintf("%d of %d guests trusted", trusted, all)
	switch {
	case all > 0 && trusted == all && len(r.Unidentified) == 0:
		v.Mark = mark{"ok", word}
	case r.Verdicts[policy.Rejected.String()]+r.Verdicts[policy.Untrusted.String()] > 0:
		v.Mark = mark{"bad", word}
	default:
		v.Mark = mark{"open", word}
	}
	if err := fleetPage().Execute(w, v); err != nil {
		return fmt.Errorf("write fleet report: %w", err)
	}
	return nil
}

// Marks for the template.

// Mark is the sign of a guest's verdict.
func (g FleetGuest) Mark() mark { return verdictMark(g.Verdict) }

// Mark is the sign of a host's verdict.
func (h FleetHost) Mark() mark { return verdictMark(h.Verdict) }

// Mark is the sign of a result's verdict.
func (u FleetUnidentified) Mark() mark { return verdictMark(u.Verdict) }
