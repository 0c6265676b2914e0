package main

import (
	"reflect"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
)

// Of what a policy rules nothing may be missing from what is shown of it. A new
// field must be shown, or somebody says here why not.
func TestPolicyShowSaysEveryField(t *testing.T) {
	exempt := map[string]string{
		"Value":          "digests and their notes are in the file: counted",
		"ComponentValue": "decides nothing",
	}
	p, err := policy.ParseFiles(testlab.WholePolicy())
	if err != nil {
		t.Fatal(err)
	}
	before, shown := showPolicy(p), make(map[string]bool)
	testlab.Change(p, func(field string) {
		if showPolicy(p) != before {
			shown[field] = true
		}
	})
	for _, field := range testlab.Fields(reflect.TypeFor[policy.Policy]()) {
		owner, _, _ := strings.Cut(field, ".")
		if shown[field] == (exempt[owner] != "") {
			t.Errorf("%s is shown: %t; exempt: %q", field, shown[field], exempt[owner])
		}
	}
}
