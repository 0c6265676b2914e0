package lifecycle

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/internal/wording"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/quote/ima"
	"github.com/deepattest/deepattest/verify"
)

// keylimeIMAPCR and keylimePayloadPCR are the PCRs that Keylime itself uses, and
// refuses in a tpm_policy: IMA's, and the one that its agent resets for each quote.
const (
	keylimeIMAPCR     = ima.PCR
	keylimePayloadPCR = 16
	carrierPCR        = 23
)

// KeylimePolicy is a tpm_policy for a Keylime verifier.
type KeylimePolicy struct {
	JSON     string   // {"0": ["hex", ...], ..., "mask": "0x..."}
	PCRs     []int    // that it names, ascending
	Warnings []string // what of the policy it cannot say
}

// ErrNoPCRs reports a policy without a PCR value. Keylime takes such a tpm_policy and
// then looks at no PCR at all.
var ErrNoPCRs = errors.New("the policy names no PCR value: Keylime would look at none; tenant: name at least one, `deepattest policy learn` finds them")

// ExportKeylime writes one layer's PCR values as a tpm_policy. Keylime has one bank
// for all and no profiles, events or command lines: what is lost is in Warnings.
// carrier is the value of PCR 23 that a verdict is carried in, nil for none.
func ExportKeylime(l *policy.LayerPolicy, carrier quote.Hex) (*KeylimePolicy, error) {
	if l == nil {
		return nil, fmt.Errorf("export to Keylime: %w", ErrNoPCRs)
	}
	if l.TPM == quote.Version12 {
		return nil, errors.New("export to Keylime: the layer has a TPM 1.2, and Keylime attests TPM 2.0 only")
	}
	out := &KeylimePolicy{}
	warn := func(format string, args ...any) { out.Warnings = append(out.Warnings, fmt.Sprintf(format, args...)) }
	members := make(map[string]any)
	mask := uint32(0)
	for _, n := range slices.Sorted(maps.Keys(l.PCRs)) {
		if n == keylimeIMAPCR || n == keylimePayloadPCR {
			warn("PCR %d is left out: Keylime refuses it in a tpm_policy; for files use its runtime policy", n)
			continue
		}
		var values []string
		for _, v := range l.PCRs[n] {
			values = append(values, v.Digest.String())
		}
		if len(values) == 0 {
			continue
		}
		members[strconv.Itoa(n)], out.PCRs = values, append(out.PCRs, n)
		mask |= 1 << n
	}
	// A profile's values are good only together, and Keylime would mix them.
	if len(l.Profiles) > 0 {
		warn("%d profiles are left out: Keylime would accept their values in any mixture", len(l.Profiles))
	}
	for _, rule := range []struct {
		has  bool
		what string
	}{
		{l.Log != nil, "the log rule"}, {l.SecureBoot != nil, "the Secure Boot rule"}, {l.CommandLine != nil, "the kernel command line rule"},
		{l.Events != nil, "the event rules"}, {len(l.DenyFirmware) > 0, "the list of denied TPM firmware"},
		{l.IMA != nil, "the IMA rule, which Keylime keeps in its runtime policy"},
	} {
		if rule.has {
			warn("%s is left out: a tpm_policy has no place for it", rule.what)
		}
	}
	// The carrier alone would be what the guest says of itself.
	if len(members) == 0 {
		return nil, fmt.Errorf("export to Keylime: %w", ErrNoPCRs)
	}
	if carrier != nil {
		if len(carrier) != l.Bank.Size() {
			return nil, fmt.Errorf("export to Keylime: value of PCR %d has %d bytes, the %s bank has %d", carrierPCR, len(carrier), l.Bank, l.Bank.Size())
		}
		members[strconv.Itoa(carrierPCR)], out.PCRs = []string{carrier.String()}, append(out.PCRs, carrierPCR)
		mask |= 1 << carrierPCR
	}
	if l.Bank != quote.SHA256 {
		warn("bank %s: the attestation key of the agent must sign with that hash", l.Bank)
	}
	members["mask"] = fmt.Sprintf("0x%x", mask)
	data, err := json.Marshal(members, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("export to Keylime: %w", err)
	}
	out.JSON = string(data)
	return out, nil
}

// ImportedKeylime is what ImportKeylime read.
type ImportedKeylime struct {
	Bank     quote.Alg
	PCRs     map[int][]policy.Value
	Warnings []string
}

// ImportKeylime reads a tpm_policy. It has no bank, so the length of the digests
// tells which; digests of other banks than the strongest are left out with a warning,
// and so are PCRs that any program can reset. The mask says nothing that the values
// do not.
func ImportKeylime(data []byte) (*ImportedKeylime, error) {
	fault := func(format string, args ...any) (*ImportedKeylime, error) {
		return nil, fmt.Errorf("keylime tpm_policy: "+format, args...)
	}
	if len(data) > policy.MaxPolicy {
		return fault("%d bytes, at most %d", len(data), policy.MaxPolicy)
	}
	var members map[string]any
	if err := json.Unmarshal(data, &members); err != nil {
		return fault("not a JSON object: %w", err)
	}
	byBank := make(map[quote.Alg]map[int][]policy.Value)
	out := &ImportedKeylime{}
	warn := func(format string, args ...any) { out.Warnings = append(out.Warnings, fmt.Sprintf(format, args...)) }
	for _, key := range slices.Sorted(maps.Keys(members)) {
		if key == "mask" {
			continue
		}
		n, err := strconv.Atoi(key)
		if err != nil || strconv.Itoa(n) != key || n < 0 || n >= quote.NumPCRs {
			return fault("%q is neither a PCR, 0 to %d, nor mask", wording.Name(key), quote.NumPCRs-1)
		}
		values, err := keylimeValues(members[key])
		if err != nil {
			return fault("PCR %d: %w", n, err)
		}
		if n == keylimePayloadPCR || n == carrierPCR {
			warn("PCR %d is left out: any program can reset it and give it any value", n)
			continue
		}
		if len(values) == 0 {
			warn("PCR %d has an empty list: Keylime takes any value", n)
		}
		for _, v := range values {
			alg := bankOf(len(v))
			if alg == 0 {
				return fault("PCR %d: digest of %d bytes, which is of no bank", n, len(v))
			}
			if byBank[alg] == nil {
				byBank[alg] = make(map[int][]policy.Value)
			}
			if !slices.ContainsFunc(byBank[alg][n], func(o policy.Value) bool { return bytes.Equal(o.Digest, v) }) {
				byBank[alg][n] = append(byBank[alg][n], policy.Value{Digest: v})
			}
		}
	}
	for _, alg := range []quote.Alg{quote.SHA256, quote.SHA384, quote.SHA512} {
		if byBank[alg] != nil && out.PCRs == nil {
			out.Bank, out.PCRs = alg, byBank[alg]
			delete(byBank, alg)
		}
	}
	for _, alg := range slices.Sorted(maps.Keys(byBank)) {
		warn("values of bank %s for PCRs %v are left out: a policy has one bank", alg, slices.Sorted(maps.Keys(byBank[alg])))
	}
	if out.PCRs == nil && byBank[quote.SHA1] != nil {
		return fault("%w; its values are of bank sha1 only, which is refused", ErrNoPCRs)
	}
	if out.PCRs == nil {
		return fault("%w", ErrNoPCRs)
	}
	return out, nil
}

// bankOf returns the bank whose digests have a length.
func bankOf(size int) quote.Alg {
	for _, alg := range []quote.Alg{quote.SHA1, quote.SHA256, quote.SHA384, quote.SHA512} {
		if alg.Size() == size {
			return alg
		}
	}
	return 0
}

// keylimeValues reads a digest or a list of alternatives, in either case and with or
// without 0x.
func keylimeValues(v any) ([]quote.Hex, error) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var values []quote.Hex
	for i, item := range list {
		text, ok := item.(string)
		if !ok {
			return nil, fmt.Errorf("value %d is not a text", i)
		}
		b, err := hex.DecodeString(strings.TrimPrefix(strings.ToLower(text), "0x"))
		if err != nil {
			return nil, fmt.Errorf("value %d: %q is not hexadecimal", i, wording.Name(text))
		}
		values = append(values, b)
	}
	return values, nil
}

// YAML writes what was imported as a layer's section of a policy, for a person to put in
// place and review.
func (i *ImportedKeylime) YAML(layer verify.Layer) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# Imported from a Keylime tpm_policy. Review it: Keylime does not say where its values come from.\n")
	for _, w := range i.Warnings {
		fmt.Fprintf(&b, "# %s\n", w)
	}
	fmt.Fprintf(&b, "%s:\n", layer)
	if i.Bank != quote.SHA256 {
		fmt.Fprintf(&b, "  tpm: {bank: %s}\n", i.Bank)
	}
	fmt.Fprintf(&b, "  pcrs:\n")
	for _, n := range slices.Sorted(maps.Keys(i.PCRs)) {
		fmt.Fprintf(&b, "    %d:\n", n)
		for _, v := range i.PCRs[n] {
			fmt.Fprintf(&b, "      - %s: %s\n", i.Bank, v.Digest)
		}
	}
	return []byte(b.String())
}

// keylimeRuntime is Keylime's IMA runtime policy, as far as an allow-list needs it.
type keylimeRuntime struct {
	Meta struct {
		Version   int    `json:"version"`
		Generator int    `json:"generator"`
		Timestamp string `json:"timestamp,omitempty"`
	} `json:"meta"`
	Release  int                 `json:"release"`
	Digests  map[string][]string `json:"digests"`
	Excludes []string            `json:"excludes"`
	Keyrings map[string][]string `json:"keyrings"`
	IMA      struct {
		Ignored []string `json:"ignored_keyrings"`
		Hash    string   `json:"log_hash_alg"`
		DM      any      `json:"dm_policy"`
	} `json:"ima"`
	Buffers map[string][]string `json:"ima-buf"`
	Keys    string              `json:"verification-keys"`
}

// generatorOther marks a runtime policy that none of Keylime's own tools made; lower
// numbers mean that there is no policy.
const generatorOther = 3

// ImportKeylimeRuntime reads the digests of Keylime's IMA runtime policy as an
// allow-list by path. Excludes are not taken over: they let any file under a path
// pass. Neither are digests of SHA-1, which this program refuses.
func ImportKeylimeRuntime(data []byte) (*policy.IMARule, []string, error) {
	fault := func(format string, args ...any) (*policy.IMARule, []string, error) {
		return nil, nil, fmt.Errorf("keylime runtime policy: "+format, args...)
	}
	if len(data) > policy.MaxPolicy {
		return fault("%d bytes, at most %d", len(data), policy.MaxPolicy)
	}
	var p keylimeRuntime
	if err := json.Unmarshal(data, &p); err != nil {
		return fault("%w", err)
	}
	rule := &policy.IMARule{Required: true, Paths: make(map[string][]quote.Hex)}
	var warnings []string
	weak, empty := 0, 0
	for _, path := range slices.Sorted(maps.Keys(p.Digests)) {
		if len(p.Digests[path]) == 0 {
			empty++
		}
		for i, text := range p.Digests[path] {
			d, err := hex.DecodeString(text)
			if err != nil || bankOf(len(d)) == 0 {
				return fault("digest %d of %q is none", i, wording.Name(path))
			}
			if len(d) == quote.SHA1.Size() {
				weak++
				continue
			}
			rule.Paths[path] = append(rule.Paths[path], d)
		}
	}
	if weak > 0 {
		warnings = append(warnings, fmt.Sprintf("%d SHA-1 digests are left out: files with the same one can be made; boot with ima_hash=sha256", weak))
	}
	if empty > 0 {
		warnings = append(warnings, fmt.Sprintf("%d paths without digests are left out: no file passes under them, there or here", empty))
	}
	if n := len(p.Excludes); n > 0 {
		warnings = append(warnings, fmt.Sprintf("%d excludes are left out: they let any file under a path pass", n))
	}
	if n := len(p.Keyrings) + len(p.Buffers); n > 0 || p.Keys != "" {
		warnings = append(warnings, "keyrings, buffers and signature keys are left out: the allow-list holds digests only")
	}
	if len(rule.Paths) == 0 {
		return fault("no digest that can be used")
	}
	return rule, warnings, nil
}

// ExportKeylimeRuntime writes an allow-list by path as Keylime's IMA runtime policy.
func ExportKeylimeRuntime(rule *policy.IMARule) ([]byte, []string, error) {
	if rule == nil || rule.Listed() == len(rule.Digests) {
		return nil, nil, errors.New("export to Keylime: no IMA allow-list by path; tenant: write ima.allow as a mapping from path to digests")
	}
	var p keylimeRuntime
	p.Meta.Version, p.Meta.Generator = 1, generatorOther
	p.Digests = make(map[string][]string, len(rule.Paths))
	for path, digests := range rule.Paths {
		for _, d := range digests {
			p.Digests[path] = append(p.Digests[path], d.String())
		}
	}
	p.Excludes, p.Keyrings, p.Buffers = []string{}, map[string][]string{}, map[string][]string{}
	p.IMA.Ignored, p.IMA.Hash = []string{}, quote.SHA256.String()
	var warnings []string
	if n := len(rule.Digests); n > 0 {
		warnings = append(warnings, fmt.Sprintf("%d digests without a path are left out: Keylime compares by path", n))
	}
	if n := len(rule.Excludes); n > 0 {
		warnings = append(warnings, fmt.Sprintf("%d excludes are left out: files under them do not pass in Keylime", n))
	}
	data, err := json.Marshal(p, json.Deterministic(true))
	if err != nil {
		return nil, nil, fmt.Errorf("export to Keylime: %w", err)
	}
	return data, warnings, nil
}
