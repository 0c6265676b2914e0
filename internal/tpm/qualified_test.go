package tpm_test

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
)

// TestQualifiedSigner: a TPM names the signer as package quote computes it, and signs
// firmware version and counters as they are for keys of the endorsement and platform
// hierarchies alone (Part 1, section 36.7).
func TestQualifiedSigner(t *testing.T) {
	s := start(t, testlab.SWTPMOptions{})
	_, path, _ := strings.Cut(s.Address, ":")
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	x := transport.FromReadWriter(conn)
	quotes := map[quote.Hierarchy]*quote.Attest{}
	for _, h := range []quote.Hierarchy{quote.HierarchyEndorsement, quote.HierarchyPlatform, quote.HierarchyOwner, quote.HierarchyNull} {
		public, attest, err := quoteIn(x, tpm2.TPMHandle(h))
		if err != nil {
			t.Fatalf("%s: %v", h, err)
		}
		if want := public.QualifiedPrimary(h); !bytes.Equal(attest.QualifiedSigner, want) {
			t.Errorf("%s: signer %s, want %s", h, attest.QualifiedSigner, want)
		}
		quotes[h] = attest
	}
	version := quotes[quote.HierarchyEndorsement].FirmwareVersion
	for h, a := range quotes {
		plain := h == quote.HierarchyEndorsement || h == quote.HierarchyPlatform
		if (a.FirmwareVersion == version) != plain {
			t.Errorf("%s: firmware %x, in the endorsement hierarchy %x", h, a.FirmwareVersion, version)
		}
	}
}

// quoteIn makes a primary key in a hierarchy and has it quote.
func quoteIn(x transport.TPM, h tpm2.TPMHandle) (public *quote.Public, attest *quote.Attest, err error) {
	made, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: h, Auth: tpm2.PasswordAuth(nil)},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{
				FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true,
			},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				Scheme: tpm2.TPMTECCScheme{
					Scheme:  tpm2.TPMAlgECDSA,
					Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
				},
				CurveID: tpm2.TPMECCNistP256,
			}),
			Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
		}),
	}.Execute(x)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		_, flushErr := tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(x)
		err = errors.Join(err, flushErr)
	}()
	quoted, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: made.ObjectHandle, Name: made.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: []byte("sixteen bytes...")},
		PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
			{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(0)},
		}},
	}.Execute(x)
	if err != nil {
		return nil, nil, err
	}
	if public, err = quote.ParsePublic(made.OutPublic.Bytes()); err != nil {
		return nil, nil, err
	}
	attest, err = quote.ParseQuote(quoted.Quoted.Bytes())
	return public, attest, err
}
