package docs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/verify"
)

// The table of link methods says of each what its definition does, in the order of
// rank; so does the list of a policy's key.
func TestLinkMethodsAreThoseOfTheCode(t *testing.T) {
	docs := documents(t)
	_, table, _ := strings.Cut(docs["docs/protocol.md"], "| method | rank | who vouches | in this version |\n|---|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(table, "\n")
	methods := verify.LinkMethods()
	if len(rows) != len(methods) {
		t.Fatalf("docs/protocol.md: %d methods in the table, and there are %d", len(rows), len(methods))
	}
	var names []string
	for i, m := range methods {
		if want := fmt.Sprintf("| `%s` | %d | %s | ", m.Name, m.Rank, m.Vouches); !strings.HasPrefix(rows[i], want) {
			t.Errorf("docs/protocol.md: want %q, have %q", want, rows[i])
		}
		if m.Rank > 0 {
			names = append(names, "`"+m.Name+"`")
		}
	}
	if want := "weakest accepted link: " + strings.Join(names, ", ") + " |"; !strings.Contains(docs["docs/policy.md"], want) {
		t.Errorf("docs/policy.md: want %q", want)
	}
}
