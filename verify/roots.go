package verify

import (
	"cmp"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/quote"
)

// known is the list of all that evidence can rest on. A new root is one file and one
// line here.
var known = newRoots(
	[]*family{&tpm20, &tpm12}, // the first is what a policy means that names none
	[]*linkMethod{&hostVouched, &ekCertified, &xenDeepQuote, &nonceOnly}, // likewise; their own checks run in this order
)

// MethodOptions are what a tenant asks of one link method alone.
type MethodOptions struct {
	// Xen is what a deep quote of a Xen vTPM must show.
	Xen XenExpect
}

// roots are the families of layers and the methods of links, with the catalogue of
// the checks that are made with them. They are never changed.
type roots struct {
	families []*family
	methods  []*linkMethod
	checks   []check
}

func newRoots(families []*family, methods []*linkMethod) *roots {
	return &roots{families: families, methods: methods, checks: catalogue(methods)}
}

// expected returns the family that a policy names, nil when there is none of that name.
func (r *roots) expected(name string) *family {
	if name == "" {
		return r.families[0]
	}
	for _, f := range r.families {
		if f.name == name {
			return f
		}
	}
	return nil
}

// of returns the family that evidence is read as. What calls itself by another name
// is read as the first, whose checks refuse what is none of it.
func (r *roots) of(ev *quote.Layer) *family {
	if f := r.expected(ev.TPM.Version); f != nil {
		return f
	}
	return r.families[0]
}

// names lists the families that a policy can name.
func (r *roots) names() string {
	var list []string
	for _, f := range r.families {
		list = append(list, f.name)
	}
	return strings.Join(list, " or ")
}

// method returns the link method of a name, unlinked when there is none.
func (r *roots) method(name string) *linkMethod {
	for _, m := range r.methods {
		if m.Name == name {
			return m
		}
	}
	return &unlinked
}

// minimum is the weakest link method that options accept.
func (r *roots) minimum(o *Options) string {
	if o.LinkMinimum == "" {
		return r.methods[0].Name
	}
	return o.LinkMinimum
}

// LinkMethods lists the methods by which a guest can be linked to its host, strongest
// first, and last that there is none.
func LinkMethods() []LinkMethod {
	var list []LinkMethod
	for _, m := range append(slices.Clone(known.methods), &unlinked) {
		list = append(list, m.LinkMethod)
	}
	slices.SortStableFunc(list, func(a, b LinkMethod) int { return cmp.Compare(b.Rank, a.Rank) })
	return list
}

// LinkRank orders the link methods by what they prove, from 1, the weakest; 0 is
// no link.
func LinkRank(method string) int { return known.method(method).Rank }
