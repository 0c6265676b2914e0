package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// start runs a software TPM for one test.
func start(t *testing.T, opts testlab.SWTPMOptions) *testlab.SWTPM {
	t.Helper()
	testlab.RequireSWTPM(t)
	s, err := testlab.StartSWTPM(t.Context(), t.TempDir(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// withCA makes a TPM that holds EK certificates.
func withCA(t *testing.T) testlab.SWTPMOptions {
	return testlab.SWTPMOptions{CA: testlab.NewLocalCA(t.TempDir()), VMID: "lab:4b1ee5d8-5f0c-4a52-9d53-3c6f4d1f6f01"}
}

// open opens a TPM whose handles have to be gone when the test has ended.
func open(t *testing.T, s *testlab.SWTPM) *tpm.TPM {
	t.Helper()
	d, err := tpm.Open(t.Context(), s.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		noHandles(t, s)
	})
	return d
}

// noHandles asks the TPM itself, over another connection, for loaded objects and
// sessions.
func noHandles(t *testing.T, s *testlab.SWTPM) {
	t.Helper()
	network, where, _ := strings.Cut(s.Address, ":")
	conn, err := net.Dial(network, where)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for name, first := range map[string]uint32{"objects": 0x80000000, "sessions": 0x02000000, "saved sessions": 0x03000000} {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 16}.Execute(transport.FromReadWriter(conn))
		if err != nil {
			t.Fatal(err)
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Handle) != 0 {
			t.Errorf("%s left in the TPM: %x", name, list.Handle)
		}
	}
}

func TestInfoAndBanks(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		opts  testlab.SWTPMOptions
		banks []quote.Alg
	}{
		{testlab.SWTPMOptions{}, []quote.Alg{quote.SHA1, quote.SHA256, quote.SHA384}},
		{testlab.SWTPMOptions{TCP: true, Banks: "sha256"}, []quote.Alg{quote.SHA256}},
	} {
		d := open(t, start(t, x.opts))
		info, err := d.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.Version != "2.0" || info.Manufacturer != "IBM" || info.Model != "SW   TPM" || strings.Count(info.Firmware, ".") != 3 {
			t.Errorf("info %+v", info)
		}
		banks, err := d.Banks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(banks, x.banks) {
			t.Errorf("banks %v, want %v", banks, x.banks)
		}
		if d.Commands() != 2 {
			t.Errorf("%d commands, want 2", d.Commands())
		}
	}
}

func TestOpenPath(t *testing.T) {
	t.Parallel()
	s := start(t, testlab.SWTPMOptions{})
	_, path, _ := strings.Cut(s.Address, ":")
	d, err := tpm.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Banks(t.Context()); err == nil {
		t.Error("a closed TPM was used")
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "none")
	for _, x := range []struct {
		address string
		is      error
		want    string
	}{
		{"device:" + missing, fs.ErrNotExist, "vTPM"},
		{"unix:" + missing, fs.ErrNotExist, "vTPM"},
		{missing, fs.ErrNotExist, "vTPM"},
		{"device:" + t.TempDir(), nil, "not a device"},
		{"device:/dev/null", io.ErrUnexpectedEOF, "cut off after 0"},
		{"mssim:host", nil, "tcp:HOST:PORT"},
		{"", nil, ""},
	} {
		_, err := tpm.Open(t.Context(), x.address)
		if err == nil || x.is != nil && !errors.Is(err, x.is) || !strings.Contains(err.Error(), x.want) {
			t.Errorf("Open(%q): %v, want %v and %q", x.address, err, x.is, x.want)
		}
	}
}

func TestPCRs(t *testing.T) {
	t.Parallel()
	d := open(t, start(t, testlab.SWTPMOptions{}))
	sel := quote.Selection{
		{Alg: quote.SHA256, PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}},
		{Alg: quote.SHA384, PCRs: []int{7, 9}},
	}
	before, err := d.ReadPCRs(t.Context(), sel)
	if err != nil {
		t.Fatal(err)
	}
	if len(before) != 2 || len(before[quote.SHA256]) != 24 || len(before[quote.SHA384]) != 2 {
		t.Fatalf("%d banks with %d and %d values", len(before), len(before[quote.SHA256]), len(before[quote.SHA384]))
	}
	digest := map[quote.Alg][]byte{quote.SHA256: bytes.Repeat([]byte{1}, 32), quote.SHA384: bytes.Repeat([]byte{2}, 48)}
	if err := d.Extend(t.Context(), 9, digest); err != nil {
		t.Fatal(err)
	}
	after, err := d.ReadPCRs(t.Context(), sel)
	if err != nil {
		t.Fatal(err)
	}
	for alg, bank := range before {
		hash, _ := alg.Hash()
		for n, value := range bank {
			want := []byte(value)
			if n == 9 {
				h := hash.New()
				h.Write(value)
				h.Write(digest[alg])
				want = h.Sum(nil)
			}
			if !bytes.Equal(after[alg][n], want) {
				t.Errorf("%s PCR %d is %s, want %x", alg, n, after[alg][n], want)
			}
		}
	}
	commands := d.Commands()
	if _, err := d.ReadPCRs(t.Context(), sel[:1]); err != nil {
		t.Fatal(err)
	}
	if n := d.Commands() - commands; n != 3 {
		t.Errorf("%d commands for 24 PCRs of one bank, want 3", n)
	}
	for _, bad := range []quote.Selection{
		nil,
		{{Alg: quote.SHA512, PCRs: []int{0}}}, // not allocated
		{{Alg: quote.SHA256, PCRs: []int{24}}},
		{{Alg: quote.SHA256, PCRs: []int{1, 1}}},
		{{Alg: quote.SHA256, PCRs: []int{1}}, {Alg: quote.SHA256, PCRs: []int{2}}},
	} {
		if _, err := d.ReadPCRs(t.Context(), bad); err == nil {
			t.Errorf("read PCRs %v", bad)
		}
	}
	for _, bad := range []func() error{
		func() error { return d.Extend(t.Context(), 24, digest) },
		func() error { return d.Extend(t.Context(), 9, map[quote.Alg][]byte{quote.SHA256: make([]byte, 31)}) },
	} {
		if bad() == nil {
			t.Error("a bad extend was accepted")
		}
	}
}

func TestAK(t *testing.T) {
	t.Parallel()
	s := start(t, testlab.SWTPMOptions{})
	for _, alg := range []tpm.KeyAlg{tpm.ECCP256, tpm.RSA2048} {
		d, err := tpm.Open(t.Context(), s.Address)
		if err != nil {
			t.Fatal(err)
		}
		ak, err := d.CreateAK(t.Context(), alg)
		if err != nil {
			t.Fatal(err)
		}
		public, err := quote.ParsePublic(ak.Public)
		if err != nil {
			t.Fatal(err)
		}
		want := quote.Restricted | quote.Sign | quote.FixedTPM | quote.FixedParent | quote.SensitiveDataOrigin | quote.UserWithAuth | quote.NoDA
		if public.Attributes != want {
			t.Errorf("%s attributes %s", alg, public.Attributes)
		}
		digest := sha256.Sum256(ak.Public)
		if !bytes.Equal(ak.Name, append([]byte{0, 0x0b}, digest[:]...)) {
			t.Errorf("%s Name %s", alg, ak.Name)
		}
		if err := d.Flush(t.Context(), ak); err != nil {
			t.Fatal(err)
		}
		commands := d.Commands()
		if err := d.Flush(t.Context(), ak); err != nil || d.Commands() != commands {
			t.Errorf("second flush: %v, %d commands", err, d.Commands()-commands)
		}
		again, err := d.CreateAK(t.Context(), alg)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Public, ak.Public) {
			t.Errorf("%s AK differs from run to run", alg)
		}
		if err := d.Close(); err != nil { // flushes again
			t.Fatal(err)
		}
		noHandles(t, s)
	}
	d := open(t, s)
	if _, err := d.CreateAK(t.Context(), tpm.ECCP384); err == nil {
		t.Error("an ECC P-384 AK was made")
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	d := open(t, start(t, testlab.SWTPMOptions{}))
	if err := d.Extend(t.Context(), 4, map[quote.Alg][]byte{quote.SHA256: bytes.Repeat([]byte{7}, 32)}); err != nil {
		t.Fatal(err)
	}
	// Not in the order of their numbers: the TPM keeps the order given.
	sel := quote.Selection{{Alg: quote.SHA384, PCRs: []int{0, 7}}, {Alg: quote.SHA256, PCRs: []int{0, 4, 23}}}
	values, err := d.ReadPCRs(t.Context(), sel)
	if err != nil {
		t.Fatal(err)
	}
	want, err := values.Digest(quote.SHA256, sel)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("the verifier's challenge, hashed")
	for _, alg := range []tpm.KeyAlg{tpm.ECCP256, tpm.RSA2048} {
		ak, err := d.CreateAK(t.Context(), alg)
		if err != nil {
			t.Fatal(err)
		}
		q, err := d.Quote(t.Context(), ak, data, sel)
		if err != nil {
			t.Fatal(err)
		}
		attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](q.Attest)
		if err != nil {
			t.Fatal(err)
		}
		info, err := attest.Attested.Quote()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(info.PCRDigest.Buffer, want) || !bytes.Equal(attest.ExtraData.Buffer, data) {
			t.Errorf("%s: PCR digest %x, want %x; data %q", alg, info.PCRDigest.Buffer, want, attest.ExtraData.Buffer)
		}
		if got := info.PCRSelect.PCRSelections; len(got) != 2 || got[0].Hash != tpm2.TPMAlgSHA384 || got[1].Hash != tpm2.TPMAlgSHA256 {
			t.Errorf("%s: selection %v", alg, got)
		}
		verify(t, ak.Public, q)
	}
	ak, err := d.CreateAK(t.Context(), tpm.ECCP256)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		data []byte
		sel  quote.Selection
	}{{nil, sel}, {make([]byte, tpm.MaxQualifyingData+1), sel}, {data, nil}} {
		if _, err := d.Quote(t.Context(), ak, x.data, x.sel); err == nil {
			t.Errorf("quote over %d bytes and %v", len(x.data), x.sel)
		}
	}
	// Errors of the TPM itself.
	if err := d.Flush(t.Context(), ak); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Quote(t.Context(), ak, data, sel); err == nil || !strings.Contains(err.Error(), d.Address()) {
		t.Errorf("quote by a flushed key: %v", err)
	}
}

func verify(t *testing.T, akPublic []byte, q quote.Quote) {
	t.Helper()
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](akPublic)
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := tpm2.Unmarshal[tpm2.TPMTSignature](q.Signature)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(q.Attest)
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		s, err := signature.Signature.ECDSA()
		if err != nil {
			t.Fatal(err)
		}
		if !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer)) {
			t.Error("ECDSA signature is wrong")
		}
	case *rsa.PublicKey:
		s, err := signature.Signature.RSASSA()
		if err != nil {
			t.Fatal(err)
		}
		if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], s.Sig.Buffer); err != nil {
			t.Error(err)
		}
	}
}

// TestAttestFlow counts the commands of a guest's run: 12 at most.
func TestAttestFlow(t *testing.T) {
	t.Parallel()
	s := start(t, withCA(t))
	began := time.Now()
	d, err := tpm.Open(t.Context(), s.Address)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, err := d.Info(ctx); err != nil {
		t.Fatal(err)
	}
	ek, err := d.EK(ctx, tpm.AnyKey)
	if err != nil {
		t.Fatal(err)
	}
	ak, err := d.CreateAK(ctx, tpm.AnyKey)
	if err != nil {
		t.Fatal(err)
	}
	id, encrypted, err := tpm.MakeCredential(ek.Public, ak.Name, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.ActivateCredential(ctx, ak, ek, id, encrypted); err != nil {
		t.Fatal(err)
	}
	sel, err := quote.ParseSelection("sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Quote(ctx, ak, make([]byte, 32), sel); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadPCRs(ctx, sel); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d TPM commands, %v", d.Commands(), time.Since(began))
	if d.Commands() > 12 {
		t.Errorf("%d TPM commands, want at most 12", d.Commands())
	}
	noHandles(t, s)
}
