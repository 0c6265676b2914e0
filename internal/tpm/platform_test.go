package tpm_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/deepattest/deepattest/internal/testlab"
	lab "github.com/deepattest/deepattest/internal/testlab/cloud"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify/cloud"
)

func TestNVOfThePlatform(t *testing.T) {
	s := start(t, testlab.SWTPMOptions{})
	d := open(t, s)
	if _, err := d.ReadNV(t.Context(), tpm.AzureUserData); !errors.Is(err, tpm.ErrNotThere) {
		t.Errorf("an index that is not defined: %v", err)
	}
	for _, size := range []int{64, 64, 40, 1500} {
		data := bytes.Repeat([]byte{byte(size)}, size)
		index := uint32(tpm.AzureUserData)
		if size == 1500 { // more than one command writes
			index = tpm.GoogleRSACertificate
		}
		if err := d.WriteNV(t.Context(), index, data); err != nil {
			t.Fatal(err)
		}
		got, err := d.ReadNV(t.Context(), index)
		if err != nil || !bytes.Equal(got[:size], data) || len(got) < size {
			t.Errorf("%d bytes: read %d, %v", size, len(got), err)
		}
	}
	if err := d.WriteNV(t.Context(), tpm.AzureUserData, make([]byte, 65)); err == nil {
		t.Error("65 bytes are written to an index of 64")
	}
}

// The platform's keys quote, whether they are kept in the TPM or made from a template.
func TestKeysOfThePlatform(t *testing.T) {
	s := start(t, testlab.SWTPMOptions{})
	first, err := tpm.Open(t.Context(), s.Address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.PersistentAK(t.Context(), tpm.AzureAKHandle); !errors.Is(err, tpm.ErrNotThere) {
		t.Errorf("a handle without a key: %v", err)
	}
	made, err := first.CreateAK(t.Context(), tpm.RSA2048)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil { // the TPM serves one connection at a time
		t.Fatal(err)
	}
	persist(t, s, made, tpm.AzureAKHandle)
	d := open(t, s)
	kept, err := d.PersistentAK(t.Context(), tpm.AzureAKHandle)
	if err != nil || !bytes.Equal(kept.Public, made.Public) || !bytes.Equal(kept.Name, made.Name) {
		t.Fatalf("%+v, %v", kept, err)
	}
	// A template is a public area without the key.
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](made.Public)
	if err != nil {
		t.Fatal(err)
	}
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	again, err := d.PrimaryAK(t.Context(), tpm2.Marshal(area))
	if err != nil || !bytes.Equal(again.Name, made.Name) {
		t.Fatalf("%+v, %v", again, err)
	}
	sel := quote.Selection{{Alg: quote.SHA256, PCRs: []int{0, 7}}}
	for name, ak := range map[string]*tpm.AK{"persistent": kept, "from a template": again} {
		q, err := d.Quote(t.Context(), ak, []byte("challenge"), sel)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if a, err := quote.ParseQuote(q.Attest); err != nil || string(a.ExtraData) != "challenge" {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	for _, template := range [][]byte{nil, {0, 1}, made.Public[:40]} {
		if _, err := d.PrimaryAK(t.Context(), template); err == nil {
			t.Errorf("a template of %d bytes makes a key", len(template))
		}
	}
}

// persist keeps a primary key of the endorsement hierarchy under a handle: it is made
// once more over a connection of its own.
func persist(t *testing.T, s *testlab.SWTPM, ak *tpm.AK, handle uint32) {
	t.Helper()
	network, where, _ := strings.Cut(s.Address, ":")
	conn, err := net.Dial(network, where)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rw := transport.FromReadWriter(conn)
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](ak.Public)
	if err != nil {
		t.Fatal(err)
	}
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(*area)}.Execute(rw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name}, PersistentHandle: tpm2.TPMHandle(handle),
	}).Execute(rw); err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: key.ObjectHandle}).Execute(rw); err != nil {
		t.Fatal(err)
	}
}

// nitroTPM runs a NitroTPM before a software TPM and opens it.
func nitroTPM(t *testing.T, n *lab.NitroTPM) *tpm.TPM {
	t.Helper()
	s := start(t, testlab.SWTPMOptions{})
	network, where, _ := strings.Cut(s.Address, ":")
	n.Upstream = func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, where)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- n.Serve(l) }()
	d, err := tpm.Open(t.Context(), "tcp:"+l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(d.Close(), l.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestNitroDocument(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	aws, err := lab.NewAWS("Example AWS", now)
	if err != nil {
		t.Fatal(err)
	}
	pcrs := map[int]quote.Hex{}
	for n := range quote.NumPCRs {
		pcrs[n] = make([]byte, 48)
	}
	n := &lab.NitroTPM{AWS: aws, Now: now, PCRs: pcrs}
	d := nitroTPM(t, n)
	ak, err := d.CreateAK(t.Context(), tpm.ECCP256)
	if err != nil {
		t.Fatal(err)
	}
	area, err := quote.ParsePublic(ak.Public)
	if err != nil {
		t.Fatal(err)
	}
	challenge := testlab.Challenge(1)
	doc, err := d.NitroDocument(t.Context(), nil, quote.NitroUserData(challenge, ak.Name), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := cloud.VerifyNitro(doc, cloud.NitroOptions{
		Roots: []*x509.Certificate{aws.Root}, Now: now, MaxAge: time.Minute, PCRs: pcrs, AK: area, Challenge: challenge,
	})
	if !r.Steps.Held() {
		t.Errorf("%+v", r.Steps.First())
	}
	if left := n.Indices(); left != 0 {
		t.Errorf("%d NV indices are left", left)
	}
	n.Error = "InvalidArgument"
	if _, err := d.NitroDocument(t.Context(), nil, []byte("x"), nil); err == nil || !strings.Contains(err.Error(), "InvalidArgument") || n.Indices() != 0 {
		t.Errorf("%v, %d NV indices left", err, n.Indices())
	}
	if _, err := d.NitroDocument(t.Context(), nil, make([]byte, 513), nil); err == nil {
		t.Error("513 bytes of user_data are asked for")
	}
}

// A run that was killed has left its index; one that is given up leaves none.
func TestNitroDocumentIndices(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	aws, err := lab.NewAWS("Example AWS", now)
	if err != nil {
		t.Fatal(err)
	}
	n := &lab.NitroTPM{AWS: aws, Now: now, PCRs: map[int]quote.Hex{0: make([]byte, 48)}}
	d := nitroTPM(t, n)
	if err := d.WriteNV(t.Context(), 0x018DA000, []byte("left behind")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.NitroDocument(t.Context(), nil, []byte("x"), nil); err != nil || n.Indices() != 1 {
		t.Errorf("%v, %d NV indices", err, n.Indices())
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n.Before = func(code uint32) {
		if code == 0x20000001 {
			cancel()
		}
	}
	if _, err := d.NitroDocument(ctx, nil, []byte("x"), nil); !errors.Is(err, context.Canceled) || n.Indices() != 1 {
		t.Errorf("%v, %d NV indices", err, n.Indices())
	}
}

// Any other TPM does not know the command.
func TestNitroDocumentOfAnotherTPM(t *testing.T) {
	d := open(t, start(t, testlab.SWTPMOptions{}))
	if _, err := d.NitroDocument(t.Context(), nil, []byte("x"), nil); err == nil {
		t.Error("a software TPM gives a document")
	}
}
