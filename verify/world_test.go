package verify_test

import (
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/verify"
)

// TestGoodBundle is the world as it should be: every check holds.
func TestGoodBundle(t *testing.T) {
	w, err := testlab.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	challenge := testlab.Challenge(1)
	b, err := w.Bundle(challenge)
	if err != nil {
		t.Fatal(err)
	}
	opts, err := w.Options(challenge)
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r, err := verify.Evidence(data, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks {
		if c.Status != verify.Pass && c.Status != verify.NotApplicable {
			t.Errorf("%s: %s: %s (got %s, want %s, at %s)", c.ID, c.Status, c.Detail, c.Got, c.Want, c.Where)
		}
	}
	if r.Host() == nil || r.Guest() == nil {
		t.Error("no claims")
	}
	t.Log(len(data))
}
