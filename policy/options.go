package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/deepattest/deepattest/verify"
)

// Options returns base with what the policy needs of the evidence filled in: what
// each layer must show, which hosts will do and how strong the link must be. Those are
// the policy's matter: a value of base that the policy has another for is an error
// (verify.ErrOptions), as it would not count. A nil policy leaves base as it is.
func (p *Policy) Options(base verify.Options) (verify.Options, error) {
	if p == nil {
		return base, nil
	}
	opts := base
	opts.Host = p.expect(verify.Host)
	opts.Guest = p.expect(verify.Guest)
	opts.AnyHost = p.Trust.AnyHost
	opts.LinkMinimum = p.Trust.LinkMinimum
	opts.RequireRevocation = p.Trust.Revocation
	opts.Xen = p.Trust.Xen
	if !slices.Contains(p.Trust.Guests, BoundPinned) {
		opts.Anchors.Guests = nil // anchors are often shared, and which of them count is said here
	}
	var lost []string
	for _, f := range []struct {
		name     string
		base, by any
	}{
		{"Host", spelled(base.Host), spelled(opts.Host)}, {"Guest", spelled(base.Guest), spelled(opts.Guest)}, {"AnyHost", base.AnyHost, opts.AnyHost},
		{"LinkMinimum", base.LinkMinimum, p.linkMinimum()}, {"RequireRevocation", base.RequireRevocation, opts.RequireRevocation}, {"Xen", base.Xen, opts.Xen},
	} {
		lost = append(lost, overwritten(f.name, reflect.ValueOf(f.base), reflect.ValueOf(f.by))...)
	}
	if len(lost) > 0 {
		return verify.Options{}, fmt.Errorf("%w: the policy %q decides about %s, and not as the caller did: leave them to the policy, or change it there",
			verify.ErrOptions, p.Name, strings.Join(lost, ", "))
	}
	return opts, nil
}

// spelled gives the default family its one spelling.
func spelled(e verify.Expect) verify.Expect {
	if e.TPM == "2.0" {
		e.TPM = ""
	}
	return e
}

// overwritten names the values of base, or of its fields, that were set and are not
// what the policy has.
func overwritten(name string, base, by reflect.Value) []string {
	if base.Kind() != reflect.Struct {
		if base.IsZero() || reflect.DeepEqual(base.Interface(), by.Interface()) {
			return nil
		}
		return []string{name}
	}
	var lost []string
	for i := range base.NumField() {
		lost = append(lost, overwritten(name+"."+base.Type().Field(i).Name, base.Field(i), by.Field(i))...)
	}
	return lost
}
