package policy_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
)

// A log of megabytes of text does not become a result of megabytes.
func TestResultOfALongLog(t *testing.T) {
	long := strings.Repeat("\x01", 1<<20)
	text := func(pcr int, s string) quote.Event {
		return testlab.MeasuredText(pcr, quote.EventIPL, []byte(s), []byte(s))
	}
	s := scene{
		policy: "$HOSTguest: {secureBoot: {required: true}, cmdline: {deny: [\"init=\"]}, events: {require: [{pcr: 8, sha256: ${guest.0}}]}}\n",
		world: func(w *testlab.World) error {
			return w.Guest.Remeasure(func(events []quote.Event) []quote.Event {
				events = slices.Insert(events, 0, text(7, long))
				required := text(8, "")
				required.Digests[1].Digest = mustWorld().Guest.PCRs[quote.SHA256][0]
				return append(events, text(8, long), text(8, "\x00"+long), required)
			})
		},
	}
	data, err := json.Marshal(s.result(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 1<<20 {
		t.Errorf("a result of %d bytes", len(data))
	}
}
