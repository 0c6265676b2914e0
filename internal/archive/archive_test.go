package archive

import (
	"archive/tar"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"github.com/deepattest/deepattest/internal/signing"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ecdsaKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func example(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "examples", "bundles", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// good is a package about a bundle of examples/bundles. The result is made up but
// for its digests.
func good(t testing.TB) *Package {
	t.Helper()
	p := &Package{
		Evidence: example(t, "good.json"), Policy: example(t, "policy.yaml"), PolicySignature: []byte(`{"signatures":[]}`),
		Trust: []File{{"maker-root.pem", example(t, "maker-root.pem")}, {"pki/issuer.pem", example(t, "maker-issuer.pem")}, {"trust.yaml", example(t, "trust.yaml")}},
	}
	p.Result = result(t, p)
	return p
}

func result(t testing.TB, p *Package) []byte {
	t.Helper()
	evidence, rules := sha256.Sum256(p.Evidence), sha256.Sum256(p.Policy)
	r := &policy.Result{
		MediaType: policy.ResultMediaType, Verdict: policy.Trusted, Reason: "every check that counts holds", Verified: policy.OffGuest,
		Now: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), Challenge: quote.Hex{1}, Evidence: evidence[:], Policy: policy.PolicyRef{Name: "web-tier", Digest: rules[:]},
	}
	if p.Policy == nil {
		r.Policy = policy.PolicyRef{Name: "none"}
	}
	data, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func written(t testing.TB, p *Package, key crypto.Signer) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, p, key); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := ecdsaKey(t, elliptic.P256())
	bare := &Package{Evidence: []byte("{}")}
	bare.Result = result(t, bare)
	for _, p := range []*Package{good(t), bare} {
		for _, key := range []crypto.Signer{nil, ed, ec} {
			data := written(t, p, key)
			if !bytes.Equal(data, written(t, p, key)) {
				t.Errorf("key %T: two packages differ", key)
			}
			var keys []crypto.PublicKey
			if key != nil {
				keys = []crypto.PublicKey{ecdsaKey(t, elliptic.P256()).Public(), key.Public()} // one of several
			}
			got, err := Read(bytes.NewReader(data), keys...)
			if err != nil {
				t.Fatalf("key %T: %v", key, err)
			}
			want := *p
			if key != nil {
				if want.Signer, err = signing.KeyID(key.Public()); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("key %T (-want +got):\n%s", key, diff)
			}
			if _, err := Read(bytes.NewReader(data)); err != nil {
				t.Errorf("key %T, not asked for: %v", key, err)
			}
		}
	}
}

func TestSignaturesAreDemanded(t *testing.T) {
	key, other := ecdsaKey(t, elliptic.P256()), ecdsaKey(t, elliptic.P256())
	if _, err := Read(bytes.NewReader(written(t, good(t), nil)), key.Public()); err == nil || !strings.Contains(err.Error(), "not signed") {
		t.Errorf("not signed: %v", err)
	}
	if _, err := Read(bytes.NewReader(written(t, good(t), other)), key.Public()); err == nil || !strings.Contains(err.Error(), envelopeName) {
		t.Errorf("another key: %v", err)
	}
	// An envelope of another package does not do.
	list := members(t, written(t, good(t), key))
	bare := &Package{Evidence: []byte("{}")}
	bare.Result = result(t, bare)
	envelope := members(t, written(t, bare, key))[1]
	list[1] = envelope
	if _, err := Read(bytes.NewReader(pack(t, list)), key.Public()); err == nil || !strings.Contains(err.Error(), "another manifest") {
		t.Errorf("envelope of another package: %v", err)
	}
	list[1].data = bytes.Replace(envelope.data, []byte("package.v1"), []byte("package.v2"), 1)
	if _, err := Read(bytes.NewReader(pack(t, list)), key.Public()); err == nil || !strings.Contains(err.Error(), "payload") {
		t.Errorf("payload of another type: %v", err)
	}
	for _, k := range []crypto.Signer{ecdsaKey(t, elliptic.P384())} {
		if err := Write(discard{}, good(t), k); err == nil || !strings.Contains(err.Error(), "P-256") {
			t.Errorf("key on P-384: %v", err)
		}
		if _, err := Read(bytes.NewReader(written(t, good(t), key)), k.Public()); err == nil {
			t.Error("key on P-384: accepted")
		}
	}
}

// entry is a member of an archive as tests bend it.
type entry struct {
	head tar.Header
	data []byte
}

func members(t testing.TB, data []byte) []entry {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var list []entry
	r := tar.NewReader(z)
	for {
		h, err := r.Next()
		if err != nil {
			return list
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		list = append(list, entry{*h, b.Bytes()})
	}
}

func unpacked(t testing.TB, list []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range list {
		if e.head.Typeflag == tar.TypeReg {
			e.head.Size = int64(len(e.data))
		}
		e.head.PAXRecords, e.head.Format = nil, tar.FormatPAX
		if err := w.WriteHeader(&e.head); err != nil {
			t.Fatal(err)
		}
		if e.head.Typeflag == tar.TypeReg {
			if _, err := w.Write(e.data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compressed(t testing.TB, data []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(data, nil)
}

func pack(t testing.TB, list []entry) []byte { return compressed(t, unpacked(t, list)) }

func find(list []entry, name string) int {
	return slices.IndexFunc(list, func(e entry) bool { return e.head.Name == name })
}

// listed replaces the manifest by one that lists what is there.
func listed(t testing.TB, list []entry) []entry {
	t.Helper()
	m := manifest{MediaType: MediaType}
	for _, e := range list[1:] {
		sum := sha256.Sum256(e.data)
		m.Members = append(m.Members, member{e.head.Name, len(e.data), sum[:]})
	}
	slices.SortFunc(m.Members, func(a, b member) int { return strings.Compare(a.Name, b.Name) })
	data, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	list[0].data = data
	return list
}

// Every way to bend a package has an error that names what is wrong.
func TestReadRefuses(t *testing.T) {
	rename := func(from, to string) func([]entry) []entry {
		return func(l []entry) []entry {
			l[find(l, from)].head.Name = to
			return l
		}
	}
	relisted := func(edit func([]entry) []entry) func([]entry) []entry {
		return func(l []entry) []entry { return listed(t, edit(l)) }
	}
	inManifest := func(old, new string) func([]entry) []entry {
		return func(l []entry) []entry {
			if !bytes.Contains(l[0].data, []byte(old)) {
				t.Fatalf("no %q in the manifest", old)
			}
			l[0].data = bytes.Replace(l[0].data, []byte(old), []byte(new), 1)
			return l
		}
	}
	flip := func(name string) func([]entry) []entry {
		return func(l []entry) []entry {
			l[find(l, name)].data[10] ^= 1
			return l
		}
	}
	link := func(kind byte) func([]entry) []entry {
		return func(l []entry) []entry {
			i := find(l, "trust/trust.yaml")
			l[i].head.Typeflag, l[i].head.Linkname, l[i].head.Size, l[i].data = kind, "/etc/passwd", 0, nil
			return l
		}
	}
	for _, c := range []struct {
		name string
		edit func([]entry) []entry
		want string
	}{
		{"evidence changed", flip(evidenceName), evidenceName},
		{"result changed", flip(resultName), resultName},
		{"policy changed", flip(policyName), policyName},
		{"signature of the policy changed", flip(policySigned), policySigned},
		{"anchor changed", flip("trust/maker-root.pem"), "trust/maker-root.pem"},
		{"evidence longer", func(l []entry) []entry {
			i := find(l, evidenceName)
			l[i].data = append(l[i].data, ' ')
			return l
		}, evidenceName},
		{"evidence of another result", relisted(flip(evidenceName)), "the result is about"},
		{"policy of another result", relisted(flip(policyName)), policyName},
		{"policy missing", relisted(func(l []entry) []entry { return slices.Delete(l, find(l, policyName), find(l, policyName)+1) }), policyName},
		{"policy missing, its signature there", relisted(func(l []entry) []entry {
			i := find(l, resultName)
			l[i].data = result(t, &Package{Evidence: l[find(l, evidenceName)].data})
			return slices.Delete(l, find(l, policyName), find(l, policyName)+1)
		}), policySigned},
		{"result missing", relisted(func(l []entry) []entry { return slices.Delete(l, find(l, resultName), find(l, resultName)+1) }), resultName},
		{"anchor missing", func(l []entry) []entry { return l[:len(l)-1] }, "trust/trust.yaml"},
		{"member beside the manifest", func(l []entry) []entry {
			return append(l, entry{tar.Header{Name: "trust/extra.pem", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("x")})
		}, "trust/extra.pem"},
		{"member twice", func(l []entry) []entry { return append(l, l[find(l, policyName)]) }, "twice"},
		{"manifest twice", func(l []entry) []entry { return append(l, l[0]) }, "twice"},
		{"manifest later", func(l []entry) []entry { return append(l[1:], l[0]) }, manifestName},
		{"out of the root", rename("trust/trust.yaml", "trust/../../evil"), "leads out"},
		{"out of the root, listed", inManifest("trust/trust.yaml", "trust/../../evi"), "leads out"},
		{"absolute", rename("trust/trust.yaml", "/etc/passwd"), "leads out"},
		{"absolute, listed", inManifest("trust/trust.yaml", "/etc/trust.yaml!"), "leads out"},
		{"backslashes", rename("trust/trust.yaml", `trust\..\..\evil`), "printable"},
		{"drive letter", rename("trust/trust.yaml", `C:evil`), "printable"},
		{"control characters", rename("trust/trust.yaml", "trust/\x1b[2Jevil"), "printable"},
		{"empty element", rename("trust/trust.yaml", "trust//evil"), "clean path"},
		{"long name", rename("trust/trust.yaml", "trust/"+strings.Repeat("x", 300)), "bytes, at most"},
		{"unknown member", relisted(rename("trust/trust.yaml", "notes.txt")), "notes.txt"},
		{"symbolic link", link(tar.TypeSymlink), "plain file"},
		{"hard link", link(tar.TypeLink), "plain file"},
		{"device", link(tar.TypeChar), "plain file"},
		{"size in the manifest", inManifest(fmt.Sprint(len(good(t).Evidence)), "17"), evidenceName},
		{"larger size in the manifest", inManifest(fmt.Sprint(len(good(t).Evidence)), fmt.Sprint(len(good(t).Evidence)+1)), "says"},
		{"negative size", inManifest(fmt.Sprint(len(good(t).Evidence)), "-1"), evidenceName},
		{"huge size", inManifest(fmt.Sprint(len(good(t).Evidence)), "99999999999"), evidenceName},
		{"member listed twice", inManifest(`"members": [`, fmt.Sprintf(`"members": [{"name":"evidence.json","size":1,"sha256":"%064x"},`, 1)), "twice"},
		{"not in order", inManifest(`"members": [`, fmt.Sprintf(`"members": [{"name":"z","size":1,"sha256":"%064x"},`, 1)), "order"},
		{"manifest lists itself", inManifest(`"members": [`, fmt.Sprintf(`"members": [{"name":"MANIFEST.json","size":1,"sha256":"%064x"},`, 1)), "which lists it"},
		{"short digest", inManifest(`"members": [`, `"members": [{"name":"a","size":1,"sha256":"00"},`), "SHA-256"},
		{"another version", inManifest("package.v1", "package.v2"), "this version reads"},
		{"unknown key", inManifest(`"mediaType"`, `"x": 1, "mediaType"`), "unknown"},
		{"key twice", inManifest(`"mediaType"`, `"mediaType": "", "mediaType"`), "duplicate"},
		{"no manifest", func(l []entry) []entry { return l[1:] }, "first member"},
		{"nothing", func([]entry) []entry { return nil }, "empty"},
		{"manifest only", func(l []entry) []entry { return listed(t, l[:1]) }, "missing"},
		{"result of another version", relisted(func(l []entry) []entry {
			i := find(l, resultName)
			l[i].data = bytes.Replace(l[i].data, []byte("result.v1"), []byte("result.v9"), 1)
			return l
		}), "result.v9"},
	} {
		list := c.edit(members(t, written(t, good(t), nil)))
		_, err := Read(bytes.NewReader(pack(t, list)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
	// The bending itself breaks nothing.
	if _, err := Read(bytes.NewReader(pack(t, listed(t, members(t, written(t, good(t), nil)))))); err != nil {
		t.Errorf("packed again: %v", err)
	}
}

// Wherever a package is cut, that is an error.
func TestReadTruncated(t *testing.T) {
	data := written(t, good(t), ecdsaKey(t, elliptic.P256()))
	for n := 0; n < len(data); n += max(1, len(data)/200) {
		if _, err := Read(bytes.NewReader(data[:n])); err == nil {
			t.Errorf("cut at %d of %d: accepted", n, len(data))
		}
	}
	plain := unpacked(t, members(t, data))
	for n := 0; n < len(plain)-1024; n += len(plain) / 100 {
		if _, err := Read(bytes.NewReader(compressed(t, plain[:n]))); err == nil {
			t.Errorf("cut at %d of %d before compression: accepted", n, len(plain))
		}
	}
	for name, more := range map[string][]byte{"behind the frame": []byte("more"), "another frame": compressed(t, []byte("more"))} {
		if _, err := Read(bytes.NewReader(append(slices.Clone(data), more...))); err == nil {
			t.Errorf("data %s: accepted", name)
		}
	}
	if _, err := Read(strings.NewReader("PK\x03\x04 not a package")); err == nil {
		t.Error("a ZIP: accepted")
	}
}

// A few bytes that unpack to more than a package may have are refused, in little
// memory.
func TestReadBomb(t *testing.T) {
	if testing.Short() {
		t.Skip("unpacks 300 MiB")
	}
	plain := unpacked(t, members(t, written(t, good(t), nil)))
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 300 {
		if _, err := z.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(&b); err == nil || !strings.Contains(err.Error(), "unpacks to more") {
		t.Errorf("300 MiB of zeros: %v", err)
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, edit := range map[string]func(p *Package){
		"no evidence":         func(p *Package) { p.Evidence = nil },
		"no result":           func(p *Package) { p.Result = nil },
		"another evidence":    func(p *Package) { p.Evidence = []byte("{}") },
		"another policy":      func(p *Package) { p.Policy = []byte("{}") },
		"no policy":           func(p *Package) { p.Policy = nil },
		"not a result":        func(p *Package) { p.Result = []byte("{}") },
		"anchor out of root":  func(p *Package) { p.Trust[0].Name = "../../etc/passwd" },
		"anchor absolute":     func(p *Package) { p.Trust[0].Name = "/etc/passwd" },
		"anchor twice":        func(p *Package) { p.Trust[0].Name = p.Trust[1].Name },
		"anchor without name": func(p *Package) { p.Trust[0].Name = "" },
		"too many":            func(p *Package) { p.Trust = slices.Repeat(p.Trust, 100) },
	} {
		p := good(t)
		edit(p)
		var b bytes.Buffer
		if err := Write(&b, p, nil); err == nil || b.Len() > 0 {
			t.Errorf("%s: error %v, %d bytes written", name, err, b.Len())
		}
	}
	if err := Write(fullDisk{}, good(t), nil); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("full disk: %v", err)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// The manifest names every member, for programs that only read that.
func TestManifest(t *testing.T) {
	p := good(t)
	list := members(t, written(t, p, nil))
	var m struct {
		MediaType string `json:"mediaType"`
		Members   []struct {
			Name   string `json:"name"`
			Size   int    `json:"size"`
			SHA256 string `json:"sha256"`
		} `json:"members"`
	}
	if err := json.Unmarshal(list[0].data, &m); err != nil {
		t.Fatal(err)
	}
	if m.MediaType != MediaType || len(m.Members) != 7 {
		t.Fatalf("%+v", m)
	}
	for i, e := range list[1:] {
		if want := fmt.Sprintf("%x", sha256.Sum256(e.data)); m.Members[i].Name != e.head.Name || m.Members[i].SHA256 != want || m.Members[i].Size != len(e.data) {
			t.Errorf("%s: %+v", e.head.Name, m.Members[i])
		}
		if e.head.Mode != 0o644 || !e.head.ModTime.Equal(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) || e.head.Uname != "" || e.head.Uid != 0 {
			t.Errorf("%s: header %+v", e.head.Name, e.head)
		}
	}
}

// Whatever is accepted is a package that could have been written.
func FuzzUnpack(f *testing.F) {
	for _, evidence := range []string{"{}", strings.Repeat("evidence ", 100)} {
		p := &Package{Evidence: []byte(evidence), Policy: []byte("policy"), Trust: []File{{"root.pem", []byte("pem")}}}
		p.Result = result(f, p)
		f.Add(unpacked(f, members(f, written(f, p, nil))))
		f.Add(unpacked(f, members(f, written(f, p, ecdsaKey(f, elliptic.P256())))))
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		p, err := unpack(bytes.NewReader(plain), nil)
		if err != nil {
			return
		}
		if _, err := p.check(); err != nil {
			t.Error(err)
		}
		if _, err := newManifest(p.files()); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkPackage(b *testing.B) {
	p := good(b)
	data := written(b, p, nil)
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := Write(discard{}, p, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Read(bytes.NewReader(data)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
