// Package vectors makes good and forged evidence, one change of a good bundle each, and
// says what a verifier must find in it.
package vectors

import (
	"fmt"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// Vector is a bundle with one thing changed, and what a verifier must say of it.
type Vector struct {
	Name    string
	Comment string   // what was changed, and why that must not or may pass
	Flags   []string // kinds of attack or mistake
	CVEs    []string // known cases
	// Fails, Warns and Undecided are all the checks with these outcomes. A check
	// is undecided when it is required and unknown, or not run for a reason of its
	// own; those that another check blocks follow from the catalogue.
	Fails, Warns, Undecided []string

	logs   string                // the layers that have their logs, which the options then demand: "host", "guest" or both
	change func(*Scene) error    // nil leaves the bundle as it is
	xen    func(*XenScene) error // the same, in the virtual Xen world and in the place of change
	raw    func(string) string   // edits the encoded bundle
}

// Scene is what a vector's change works on.
type Scene struct {
	World   *testlab.World
	Bundle  *quote.Bundle
	Options verify.Options
	logs    string
}

// Build makes the vector's bundle and options in a new world.
func (v *Vector) Build() ([]byte, verify.Options, error) {
	fault := func(err error) ([]byte, verify.Options, error) {
		return nil, verify.Options{}, fmt.Errorf("vector %s: %w", v.Name, err)
	}
	if v.xen != nil {
		data, opts, err := buildXen(v.xen)
		if err != nil {
			return fault(err)
		}
		return v.edited(data, opts)
	}
	w, err := testlab.NewWorld()
	if err != nil {
		return fault(err)
	}
	s := &Scene{World: w, logs: v.logs}
	if err := s.rebuild(); err != nil {
		return fault(err)
	}
	if v.change != nil {
		if err := v.change(s); err != nil {
			return fault(err)
		}
	}
	data, err := s.Bundle.Encode()
	if err != nil {
		return fault(err)
	}
	return v.edited(data, s.Options)
}

// edited makes the vector's edit of the encoded bundle.
func (v *Vector) edited(data []byte, opts verify.Options) ([]byte, verify.Options, error) {
	if v.raw == nil {
		return data, opts, nil
	}
	edited := v.raw(string(data))
	if edited == string(data) {
		return nil, verify.Options{}, fmt.Errorf("vector %s: the edit of its text changes nothing", v.Name)
	}
	return []byte(edited), opts, nil
}

// rebuild makes bundle and options again, from a changed world.
func (s *Scene) rebuild() (err error) {
	challenge := testlab.Challenge(1)
	if s.Bundle, err = s.World.Bundle(challenge); err != nil {
		return err
	}
	if s.Options, err = s.World.Options(challenge); err != nil {
		return err
	}
	for _, side := range s.sides() {
		if strings.Contains(s.logs, side.prefix) {
			continue
		}
		side.layer().Logs = quote.Logs{}
		for _, what := range []string{quote.MissingUEFI, quote.MissingIMA} {
			side.layer().Missing = append(side.layer().Missing, quote.Missing{What: what, Reason: "left out of this vector, which is not about logs"})
		}
		side.expect().Log, side.expect().IMA = false, false
	}
	return nil
}

// bothLayers is the value of Vector.logs for a bundle with all its logs.
const bothLayers = "host, guest"

// side is the layer of a scene that a change is about.
type side struct {
	*Scene
	prefix string // "host" or "guest"
}

func (s *Scene) host() side    { return side{s, "host"} }
func (s *Scene) guest() side   { return side{s, "guest"} }
func (s *Scene) sides() []side { return []side{s.host(), s.guest()} }

func (s side) machine() *testlab.Machine {
	if s.prefix == "host" {
		return s.World.Host
	}
	return s.World.Guest
}

func (s side) layer() *quote.Layer {
	if s.prefix == "host" {
		return s.Bundle.Host
	}
	return s.Bundle.Guest
}

func (s side) expect() *verify.Expect {
	if s.prefix == "host" {
		return &s.Options.Host
	}
	return &s.Options.Guest
}

// vouch has the host vouch anew when the guest's layer was changed, so that
// nothing but the change is wrong.
func (s side) vouch() error {
	if s.prefix == "host" {
		return nil
	}
	return s.World.Vouch(s.Bundle)
}

// attest edits the layer's attestation and has it signed again.
func (s side) attest(edit func(*quote.Attest)) error {
	a, err := quote.ParseQuote(s.layer().Quote.Attest)
	if err != nil {
		return err
	}
	edit(a)
	return s.signBytes(a.Marshal())
}

func (s side) signBytes(attest []byte) error {
	if err := s.machine().SignBytes(s.layer(), attest); err != nil {
		return err
	}
	return s.vouch()
}

// quote has the machine quote the layer's PCRs as they stand there.
func (s side) quote() error {
	a, err := quote.ParseQuote(s.layer().Quote.Attest)
	if err != nil {
		return err
	}
	if err := s.machine().Quote(s.layer(), a.ExtraData); err != nil {
		return err
	}
	return s.vouch()
}

// boot starts the machine over with other PCR values, which edit makes of what
// it quoted.
func (s side) boot(edit func(bank map[int]quote.Hex)) error {
	edit(s.layer().PCRs[quote.SHA256])
	return s.quote()
}

// select has the machine quote a selection and show its values.
func (s side) selectPCRs(sel quote.Selection) error {
	s.machine().Selection = sel
	s.layer().PCRs = s.machine().Values(sel)
	return s.quote()
}

// key gives the machine another attestation key.
func (s side) key(edit func(*testlab.KeyTemplate)) error {
	t := testlab.AKTemplate(s.machine().Name + " AK")
	edit(&t)
	var err error
	if s.machine().AK, err = testlab.NewKey(t); err != nil {
		return err
	}
	return s.rebuild()
}

// both makes a vector of each layer. In its checks "*" stands for the layer.
func both(v Vector, change func(side) error) []Vector {
	var list []Vector
	for _, prefix := range []string{"host", "guest"} {
		c := v
		if v.logs != "" {
			c.logs = prefix
		}
		c.Name = strings.ToUpper(prefix[:1]) + prefix[1:] + v.Name
		c.Fails, c.Warns, c.Undecided = checks(v.Fails, prefix), checks(v.Warns, prefix), checks(v.Undecided, prefix)
		c.change = func(s *Scene) error { return change(side{s, prefix}) }
		list = append(list, c)
	}
	return list
}

func checks(ids []string, prefix string) []string {
	ids = slices.Clone(ids)
	for i := range ids {
		ids[i] = strings.Replace(ids[i], "*", prefix, 1)
	}
	return ids
}

// Vectors returns all vectors, in an order that does not change.
func Vectors() []Vector {
	return slices.Concat(goodVectors(), quoteVectors(), signerVectors(), pcrVectors(), keyVectors(), ekVectors(), revocationVectors(),
		linkVectors(), keylimeVectors(), contextVectors(), eventLogVectors(), imaVectors(), formatVectors(), xenVectors(), xenKeyVectors())
}
