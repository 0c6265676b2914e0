// Package archive writes and reads evidence packages: a result with everything
// that it was made from, in one file that another verifier, or the same one years
// later, can check and verify again.
//
// A package is a tar archive (POSIX.1-2001, pax) under zstd (RFC 8878). Its first
// member is MANIFEST.json with the SHA-256 of every other; MANIFEST.dsse.json, if
// it is there, is a DSSE envelope around the same manifest.
package archive

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// MediaType names the manifest, and so the package, and its version.
const MediaType = "application/vnd.deepattest.package.v1+json"

// Names of a package's members. Trust anchors stand in the folder of trust.
const (
	manifestName = "MANIFEST.json"
	envelopeName = "MANIFEST.dsse.json"
	resultName   = "result.json"
	evidenceName = "evidence.json"
	policyName   = "policy.yaml"
	policySigned = "policy.yaml.sig"
	trustFolder  = "trust/"
)

// Bounds of a package, which hold for writing and for reading.
const (
	maxManifest = 1 << 20
	maxMembers  = 256
	maxMember   = 64 << 20
	maxPackage  = 256 << 20 // of all members together
	maxName     = 200
)

// Package is a result with what it was made from.
type Package struct {
	Result   []byte // policy.Result, as Encode writes it
	Evidence []byte // the bundle, byte for byte as it was verified
	Policy   []byte // the policy file; nil if there was none
	Trust    []File // trust file, certificates: the anchors of the verification

	PolicySignature []byte // DSSE envelope around the policy; nil if there was none
	Signer          string // key that Read found to have signed the manifest; no part of it
}

// File is one file of the trust anchors.
type File struct {
	Name string // slash-separated, within the package's trust folder
	Data []byte
}

// manifest lists a package's members, sorted by name.
type manifest struct {
	MediaType string   `json:"mediaType"`
	Members   []member `json:"members"`
}

type member struct {
	Name   string    `json:"name"`
	Size   int       `json:"size"`
	SHA256 quote.Hex `json:"sha256"`
}

// files are the members of a package but for its manifest, sorted by name.
func (p *Package) files() []File {
	list := []File{{resultName, p.Result}, {evidenceName, p.Evidence}}
	if p.Policy != nil {
		list = append(list, File{policyName, p.Policy})
	}
	if p.PolicySignature != nil {
		list = append(list, File{policySigned, p.PolicySignature})
	}
	for _, f := range p.Trust {
		list = append(list, File{trustFolder + f.Name, f.Data})
	}
	slices.SortStableFunc(list, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// put takes in one member that was read.
func (p *Package) put(name string, data []byte) error {
	switch name {
	case resultName:
		p.Result = data
	case evidenceName:
		p.Evidence = data
	case policyName:
		p.Policy = data
	case policySigned:
		p.PolicySignature = data
	default:
		rest, ok := strings.CutPrefix(name, trustFolder)
		if !ok {
			return fmt.Errorf("%s: this version knows no such member", shown(name))
		}
		p.Trust = append(p.Trust, File{rest, data})
	}
	return nil
}

// check reports whether the parts belong together: the result names evidence and
// policy by their digests.
func (p *Package) check() (*policy.Result, error) {
	if len(p.Result) == 0 || len(p.Evidence) == 0 {
		return nil, fmt.Errorf("%s or %s is missing", resultName, evidenceName)
	}
	r, err := policy.DecodeResult(p.Result)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", resultName, err)
	}
	if sum := sha256.Sum256(p.Evidence); !bytes.Equal(sum[:], r.Evidence) {
		return nil, fmt.Errorf("%s: SHA-256 %x, but the result is about %s", evidenceName, sum, r.Evidence)
	}
	switch sum := sha256.Sum256(p.Policy); {
	case p.Policy == nil && len(r.Policy.Digest) > 0:
		return nil, fmt.Errorf("%s is missing: the result was made with a policy of SHA-256 %s", policyName, r.Policy.Digest)
	case p.Policy == nil && p.PolicySignature != nil:
		return nil, fmt.Errorf("%s is there, but no %s", policySigned, policyName)
	case p.Policy != nil && !bytes.Equal(sum[:], r.Policy.Digest):
		return nil, fmt.Errorf("%s: SHA-256 %x, but the result was made with %s", policyName, sum, r.Policy.Digest)
	}
	return r, nil
}

// newManifest lists files, which must be sorted by name.
func newManifest(files []File) (*manifest, error) {
	m := &manifest{MediaType: MediaType}
	for _, f := range files {
		sum := sha256.Sum256(f.Data)
		m.Members = append(m.Members, member{f.Name, len(f.Data), sum[:]})
	}
	return m, m.check()
}

// check looks for names that lead out of the package, names given twice, and
// sizes that no package has.
func (m *manifest) check() error {
	if m.MediaType != MediaType {
		return fmt.Errorf("%s: media type %s: this version reads %s", manifestName, shown(m.MediaType), MediaType)
	}
	if len(m.Members) > maxMembers {
		return fmt.Errorf("%s: %d members, at most %d", manifestName, len(m.Members), maxMembers)
	}
	total, last := 0, ""
	for _, f := range m.Members {
		if err := checkName(f.Name); err != nil {
			return fmt.Errorf("%s: %w", manifestName, err)
		}
		switch {
		case f.Name == manifestName || f.Name == envelopeName:
			return fmt.Errorf("%s lists %s, which lists it", manifestName, f.Name)
		case f.Name == last:
			return fmt.Errorf("%s: %s is listed twice", manifestName, shown(f.Name))
		case f.Name < last:
			return fmt.Errorf("%s: %s is not in the order of names", manifestName, shown(f.Name))
		case f.Size < 0 || f.Size > maxMember:
			return fmt.Errorf("%s: %s of %d bytes, at most %d", manifestName, shown(f.Name), f.Size, maxMember)
		case len(f.SHA256) != sha256.Size:
			return fmt.Errorf("%s: %s: a SHA-256 of %d bytes", manifestName, shown(f.Name), len(f.SHA256))
		}
		last = f.Name
		if total += f.Size; total > maxPackage {
			return fmt.Errorf("%s: %d bytes together, at most %d", manifestName, total, maxPackage)
		}
	}
	return nil
}

func (m *manifest) encode() ([]byte, error) {
	data, err := json.Marshal(m, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", manifestName, err)
	}
	return append(data, '\n'), nil
}

func decodeManifest(data []byte) (*manifest, error) {
	var m manifest
	if err := json.Unmarshal(data, &m, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%s: %w", manifestName, err)
	}
	return &m, m.check()
}

// checkName refuses names that could stand for a file outside of the package on
// any system, or that do not show as what they are.
func checkName(name string) error {
	plain := func(c rune) bool { return ' ' <= c && c <= '~' && !strings.ContainsRune(`\:*?"<>|`, c) }
	switch {
	case len(name) > maxName:
		return fmt.Errorf("a name of %d bytes, at most %d: %s", len(name), maxName, shown(name))
	case !fs.ValidPath(name) || name == ".":
		return fmt.Errorf("%s leads out of the package, or is no clean path", shown(name))
	case strings.ContainsFunc(name, func(c rune) bool { return !plain(c) }):
		return fmt.Errorf("%s: only printable ASCII without \\ : * ? \" < > |", shown(name))
	}
	return nil
}

// shown quotes a name for an error.
func shown(name string) string { return fmt.Sprintf("%.120q", name) }
