// Package report renders attestation results. Every format is a rendering of the
// same policy.Result; none adds or decides anything, reads a clock or looks
// elsewhere.
//
// Much of a result was written by the machine under test: names, paths, command
// lines, error texts. Every format makes it harmless to whatever reads that
// format: terminals, browsers, XML and JSON parsers, Prometheus, the eye.
package report

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/deepattest/deepattest/policy"
)

// Options says how to render. The zero value will do for every format but ear,
// which needs a Signer.
type Options struct {
	Text        TextOptions
	Build       string        // the version of this program, for formats that name their maker; empty means "unknown"
	Signer      crypto.Signer // signs ear; the key's kind decides the algorithm
	EARProfile  string        // EARProfileIETF, the default, or EARProfileVeraison
	EARLifetime time.Duration // how long after the appraisal ear may be relied on; 0 is DefaultEARLifetime
	Evidence    []byte        // the bundle, to carry it inside ear; nil leaves it out, as it names the machine
	Controls    *Controls     // the control mapping; nil means the built-in one
}

func (o Options) build() string {
	if o.Build == "" {
		return "unknown"
	}
	return clean(o.Build, maxName)
}

func (o Options) controls() (*Controls, error) {
	if o.Controls != nil {
		return o.Controls, nil
	}
	return BuiltinControls()
}

// errNoTime is for formats in which a time must stand.
var errNoTime = errors.New("the result does not say when it was made: it is none of this program")

// format is one way to render a result.
type format struct {
	name  string
	write func(io.Writer, *policy.Result, Options) error
}

func formats() []format {
	return []format{
		{"text", func(w io.Writer, r *policy.Result, o Options) error { return Text(w, r, o.Text) }},
		{"json", func(w io.Writer, r *policy.Result, _ Options) error { return JSON(w, r) }},
		{"html", HTML},
		{"ear", EAR},
		{"oscal", OSCAL},
		{"junit", JUnit},
		{"prometheus", Prometheus},
		{"markdown", Markdown},
	}
}

// Formats returns the names that Render takes, text first.
func Formats() []string {
	var names []string
	for _, f := range formats() {
		names = append(names, f.name)
	}
	return names
}

// Render writes a result in the format of that name. Nothing is written when the
// rendering fails. Errors: an unknown format, a format that lacks what it needs
// of o, a control mapping that does not fit, w.
func Render(w io.Writer, r *policy.Result, name string, o Options) error {
	i := slices.IndexFunc(formats(), func(f format) bool { return f.name == name })
	if i < 0 {
		return fmt.Errorf("no format is called %.40q: want one of %s", name, strings.Join(Formats(), ", "))
	}
	var b bytes.Buffer
	if err := formats()[i].write(&b, r, o); err != nil {
		return fmt.Errorf("format %s: %w", name, err)
	}
	return write(w, b.Bytes())
}

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
