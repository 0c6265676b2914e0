package verify

import "testing"

// TestListIsComplete: every family and method of the list has a name of its own and what
// the verifier calls without asking.
func TestListIsComplete(t *testing.T) {
	names := make(map[string]bool)
	once := func(name string) {
		if name == "" || names[name] {
			t.Errorf("%q is no name, or one that two have", name)
		}
		names[name] = true
	}
	for _, f := range known.families {
		if once(f.name); f.admits == nil || f.read == nil {
			t.Errorf("family %s lacks admits or read", f.name)
		}
	}
	for _, m := range known.methods {
		if once(m.Name); m.Rank < 1 || m.Vouches == "" || m.prove == nil {
			t.Errorf("link method %s lacks a rank, who vouches or prove", m.Name)
		}
	}
	if last := LinkMethods()[len(known.methods)]; last != unlinked.LinkMethod || last.Rank != 0 {
		t.Errorf("the last of the methods is %+v", last)
	}
}
