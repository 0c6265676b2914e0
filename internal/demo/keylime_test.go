package demo

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
)

func TestKeylime(t *testing.T) {
	testlab.RequireSWTPM(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	steps, err := Keylime(ctx, Options{Now: time.Now})
	if err != nil {
		t.Fatalf("%v after %+v", err, steps)
	}
	var all []string
	for _, s := range steps {
		all = append(all, s.Title+": "+strings.Join(append(s.Guest, s.Admin...), "; "))
	}
	t.Log(strings.Join(all, "\n"))
	want := []string{"verdict trusted", "is active", "status PENDING", "status PASS", "policy.guest.pcr", "status FAIL", "status PASS"}
	for i, words := range want {
		if len(steps) != len(want) || !strings.Contains(all[i], words) {
			t.Errorf("step %d of %d does not say %q: %s", i+1, len(steps), words, all[min(i, len(all)-1)])
		}
	}
}
