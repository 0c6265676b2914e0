package lifecycle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/bootimage"
	"github.com/deepattest/deepattest/verify"
)

// Roles of what a Replacement replaces. Any other role is the name of a component,
// as the policy has it.
const (
	RoleUKI         = "uki"     // unified kernel image; with @N behind it, profile N of one
	RoleShim        = "shim"    // the first image that the firmware starts
	RoleGRUB        = "grub"    //
	RoleKernel      = "kernel"  // that GRUB or the firmware starts
	RoleInitrd      = "initrd"  // beside that kernel
	RoleCommandLine = "cmdline" // of that kernel
	RoleText        = "text"    // OLD=NEW in what GRUB runs, such as the version in file names
	RolePK          = "PK"      // Secure Boot variables: EFI_SIGNATURE_LISTs
	RoleKEK         = "KEK"
	RoleDB          = "db"
	RoleDBX         = "dbx"
)

// Replacement is a coming change of one thing that a layer measures.
type Replacement struct {
	Role string
	Name string      // for people: the file's name
	Data io.ReaderAt // the new file; nil for RoleCommandLine and RoleText
	Size int64       // of Data, bytes
	Text string      // for RoleCommandLine and RoleText
}

// Prediction is what the PCRs will hold after replacements.
type Prediction struct {
	Values map[int][]policy.Value // new values only, with their components
	Notes  []string               // what could not be predicted, and what the values rest on
	Stale  []int                  // PCRs of the policy that change, or may, and get no new value
}

// Predict computes, from the components that the policy keeps of a layer's values,
// the values after all replacements were made at once: each value with a component
// that is replaced gives one, or several where the machine decides what it uses of
// a file. An error names the replacement that cannot be read or that replaces
// nothing.
func Predict(p *policy.Policy, layer verify.Layer, replacements []Replacement) (*Prediction, error) {
	rules := p.Layer(layer)
	if rules == nil {
		return nil, fmt.Errorf("the policy has no %s section: learn one first", layer)
	}
	s := &stager{rules: rules, alg: rules.Bank, stale: make(map[int]bool), Prediction: Prediction{Values: make(map[int][]policy.Value)}}
	var names []string
	for _, r := range replacements {
		names = append(names, r.String())
		s.roles = append(s.roles, r.Role)
	}
	note := "staged: " + strings.Join(names, ", ")
	ordered := slices.Clone(replacements) // text last: it renames what others go by
	slices.SortStableFunc(ordered, func(a, b Replacement) int {
		switch {
		case a.Role == b.Role:
			return 0
		case a.Role == RoleText:
			return 1
		case b.Role == RoleText:
			return -1
		}
		return 0
	})
	plans := [][]choice{nil}
	for _, r := range ordered {
		choices, err := s.edit(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		var next [][]choice
		for _, c := range choices {
			for _, plan := range plans {
				next = append(next, append(plan[:len(plan):len(plan)], c))
			}
		}
		plans = next
	}
	used := make([]bool, len(ordered))
	for _, n := range slices.Sorted(maps.Keys(rules.PCRs)) {
		for _, v := range rules.PCRs[n] {
			for _, plan := range plans {
				s.stage(n, v, plan, used, note)
			}
		}
	}
	for i, r := range ordered {
		if !used[i] {
			return nil, fmt.Errorf("%s: no component of the policy's %s is replaced by it: %s", r, layer, s.hint(r))
		}
	}
	for _, profile := range rules.Profiles {
		s.note("profile %q keeps no components, so nothing is predicted for it: stage from the evidence of a machine that runs the change", profile.Name)
	}
	s.unexplained()
	for _, n := range slices.Sorted(maps.Keys(s.stale)) {
		if len(s.Values[n]) == 0 {
			s.Stale = append(s.Stale, n)
		}
	}
	return &s.Prediction, nil
}

// String names a replacement as it was asked for.
func (r Replacement) String() string { return strings.TrimSpace(r.Role + " " + r.Name + r.Text) }

// stager is the working state of one prediction.
type stager struct {
	rules *policy.LayerPolicy
	alg   quote.Alg
	roles []string // of all replacements
	stale map[int]bool
	Prediction
}

// choice is one of the ways in which a replacement can be measured.
type choice struct {
	edit  edit
	label string // empty for the first, or only, one
}

// unexplained finds PCRs that the change gives another value by what it is, and
// that have a value without components to compute it from.
func (s *stager) unexplained() {
	for _, role := range s.roles {
		for _, n := range changedBy(role) {
			for _, v := range s.rules.PCRs[n] {
				if len(v.Components) == 0 && !policy.Untouched(v.Digest) {
					s.stale[n] = true
					s.note("PCR %d: the policy keeps no components of the value %.12s.., so nothing is predicted from it", n, v.Digest)
				}
			}
		}
	}
}

// changedBy lists the PCRs that a change of a role shows in.
func changedBy(role string) []int {
	role, _, _ = strings.Cut(role, "@")
	switch role {
	case RoleUKI:
		return []int{4, 9, 11}
	case RoleShim, RoleGRUB:
		return []int{4}
	case RoleKernel:
		return []int{4, 9}
	case RoleInitrd:
		return []int{9}
	case RoleCommandLine:
		return []int{8, 9}
	case RoleText:
		return []int{8}
	case RolePK, RoleKEK, RoleDB, RoleDBX:
		return []int{7}
	}
	return nil
}

// edit changes the components of a PCR in place and reports what it did.
type edit func(pcr int, list []policy.ComponentValue) ([]policy.ComponentValue, touch)

// touch is what an edit did to the components of a PCR.
type touch int

const (
	aside      touch = iota // not about any of them
	replaced                //
	unforeseen              // about them, and what they become is not known: the PCR is not predicted
)

func (s *stager) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(s.Notes, text) {
		s.Notes = append(s.Notes, text)
	}
}

// stage predicts what one value becomes.
func (s *stager) stage(pcr int, v policy.Value, plan []choice, used []bool, note string) {
	list, most := slices.Clone(v.Components), aside
	for i, c := range plan {
		var did touch
		list, did = c.edit(pcr, list)
		used[i] = used[i] || did != aside
		most = max(most, did)
		if c.label != "" {
			note += ", " + c.label
		}
	}
	for i, c := range v.Components {
		if len(list) == len(v.Components) && list[i].Name != c.Name && bytes.Equal(list[i].Digest, c.Digest) {
			most = unforeseen
			if !writtenAnew(c.Name) {
				s.note("PCR %d: %s is named by the change, and its new content was not given", pcr, wording.Clip(c.Name, 120))
			}
		}
	}
	if pcr == 9 && s.rewritten(v.Components, most) {
		most = unforeseen
	}
	switch most {
	case aside:
		return
	case unforeseen:
		s.stale[pcr] = true
		return
	}
	start, ok := s.start(pcr, v)
	if !ok {
		s.stale[pcr] = true
		s.note("PCR %d: the components beside the value %.12s.. do not give it, so nothing is predicted from it", pcr, v.Digest)
		return
	}
	next := policy.Value{Note: wording.Clip(note, policy.MaxText), Components: list}
	var err error
	if next.Digest, err = quote.ExtendAll(s.alg, start, digests(list)); err != nil {
		s.note("PCR %d: %v", pcr, err)
		return
	}
	same := func(o policy.Value) bool { return bytes.Equal(o.Digest, next.Digest) }
	if !slices.ContainsFunc(s.rules.PCRs[pcr], same) && !slices.ContainsFunc(s.Values[pcr], same) {
		s.Values[pcr] = append(s.Values[pcr], next)
	}
}

// start finds the value that a PCR began with, which gives v with its components:
// zeros, and in PCR 0 the locality of TPM2_Startup in the last byte (PFP 10.4.5.3).
func (s *stager) start(pcr int, v policy.Value) (quote.Hex, bool) {
	for _, locality := range []byte{0, 3, 4} {
		start := make(quote.Hex, s.alg.Size())
		start[len(start)-1] = locality
		if got, err := quote.ExtendAll(s.alg, start, digests(v.Components)); err == nil && bytes.Equal(got, v.Digest) {
			return start, true
		}
		if pcr != 0 {
			break
		}
	}
	return nil, false
}

func digests(list []policy.ComponentValue) []quote.Hex {
	out := make([]quote.Hex, len(list))
	for i, c := range list {
		out[i] = c.Digest
	}
	return out
}

// components are those of all values of a PCR.
func (s *stager) components(pcr int) (list []policy.ComponentValue) {
	for _, v := range s.rules.PCRs[pcr] {
		list = append(list, v.Components...)
	}
	return list
}

// hint says what a replacement that found nothing could have meant.
func (s *stager) hint(r Replacement) string {
	names := make(map[string]bool)
	for n := range s.rules.PCRs {
		for _, c := range s.components(n) {
			if k := kindWord(c.Name); k == "image" || k == "file" || k == "initrd" || r.Role == RoleText && k == "GRUB" {
				names[c.Name] = true
			}
		}
	}
	if len(names) == 0 {
		return "the policy keeps no components that a file could replace; `deepattest policy learn` writes a policy with them"
	}
	list := slices.Sorted(maps.Keys(names))
	return "name one of them instead of a role: " + strings.Join(list[:min(len(list), 8)], "; ")
}

// edit prepares a replacement: it reads the new file once.
func (s *stager) edit(r Replacement) ([]choice, error) {
	if role, profile, ok := strings.Cut(r.Role, "@"); role == RoleUKI {
		n, err := strconv.ParseUint(profile, 10, 16)
		if ok && err != nil {
			return nil, fmt.Errorf("profile %q: want a number from 0", profile)
		}
		return s.uki(r, int(n))
	}
	only, err := s.only(r)
	return []choice{{edit: only}}, err
}

func (s *stager) only(r Replacement) (edit, error) {
	switch r.Role {
	case RoleShim, RoleGRUB:
		return s.loader(r)
	case RoleKernel:
		return s.kernel(r)
	case RoleInitrd:
		return s.initrd(r)
	case RoleCommandLine:
		return s.commandLine(r)
	case RoleText:
		return s.text(r)
	case RolePK, RoleKEK, RoleDB, RoleDBX:
		return s.variable(r)
	}
	return s.named(r)
}

func (r Replacement) image() (*bootimage.Image, error) { return bootimage.ParseImage(r.Data, r.Size) }

func (s *stager) authenticode(r Replacement) (quote.Hex, error) {
	i, err := r.image()
	if err != nil {
		return nil, err
	}
	return i.Authenticode(s.alg)
}

// replace returns an edit that gives the components of a PCR which pick chooses a
// new digest.
func replace(pcr int, digest quote.Hex, pick func(c policy.ComponentValue) bool) edit {
	return func(n int, list []policy.ComponentValue) ([]policy.ComponentValue, touch) {
		did := aside
		for i := range list {
			if n == pcr && pick(list[i]) {
				list[i].Digest, did = digest, replaced
			}
		}
		return list, did
	}
}

// all makes one edit of several.
func all(edits ...edit) edit {
	return func(n int, list []policy.ComponentValue) ([]policy.ComponentValue, touch) {
		most := aside
		for _, e := range edits {
			var did touch
			list, did = e(n, list)
			most = max(most, did)
		}
		return list, most
	}
}

// named replaces every component of a name: images by their Authenticode digest,
// anything else by the digest of the file.
func (s *stager) named(r Replacement) (edit, error) {
	var digest quote.Hex
	var err error
	if kindWord(r.Role) == "image" || kindWord(r.Role) == "driver" {
		digest, err = s.authenticode(r)
	} else {
		digest, err = bootimage.FileDigest(r.Data, r.Size, s.alg)
	}
	if err != nil {
		return nil, err
	}
	return func(_ int, list []policy.ComponentValue) ([]policy.ComponentValue, touch) {
		did := aside
		for i := range list {
			if list[i].Name == r.Role {
				list[i].Digest, did = digest, replaced
			}
		}
		return list, did
	}, nil
}

// variable replaces a Secure Boot variable.
func (s *stager) variable(r Replacement) (edit, error) {
	const most = 1 << 20 // real ones have some tens of KiB
	if r.Size > most {
		return nil, fmt.Errorf("%d bytes, at most %d", r.Size, most)
	}
	data := make([]byte, r.Size)
	if _, err := r.Data.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	digest, _, err := quote.SignatureDatabaseDigest(r.Role, data, s.alg)
	if err != nil {
		return nil, err
	}
	s.note("PCR 7: what is started stays signed by the same certificates, and db entries keep their owner")
	return replace(7, digest, func(c policy.ComponentValue) bool { return c.Name == "Secure Boot variable "+r.Role }), nil
}
