package verify_test

import (
	"fmt"
	"os"
	"time"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// What tpm2_quote and the like hand out is verified by itself: the key's public area,
// the attestation with its signature and the PCR values, over data that the verifier
// drew. The verifier knows the key from elsewhere: here its Name, as tpm2_readpublic
// shows it on the machine.
func ExampleQuote() {
	shown, qualifyingData := tpm2Quote()
	layer := &quote.Layer{
		TPM:   quote.TPM{Version: "2.0"},
		AK:    quote.AK{Public: shown.AK.Public}, // TPMT_PUBLIC
		Quote: shown.Quote,                       // TPMS_ATTEST and TPMT_SIGNATURE
		PCRs:  shown.PCRs,
	}
	opts := verify.QuoteOptions{
		QualifyingData: qualifyingData,
		Now:            time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), // time.Now() in a real one
		Anchors:        verify.Anchors{Hosts: []verify.EnrolledHost{{Name: "server 7", AK: pinnedKey(), Source: "inventory"}}},
		Expect:         verify.Expect{Bank: quote.SHA256, PCRs: []int{0, 4, 7}},
	}
	report, err := verify.Quote(layer, opts)
	if err != nil {
		fmt.Println(err) // these options cannot be used
		return
	}
	if claims := report.Host(); claims != nil {
		fmt.Printf("%s signed for %d PCRs\n", claims.Name, len(claims.PCRs))
	}

	layer.PCRs[quote.SHA256][4][0] ^= 1
	if report, err = verify.Quote(layer, opts); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("claims:", report.Host() != nil)
	for _, c := range report.Failed() {
		fmt.Printf("%s: %s\n", c.ID, c.Detail)
	}
	// Output:
	// server 7 signed for 15 PCRs
	// claims: false
	// host.quote.pcr-digest: the PCR values are not the quoted ones
}

// tpm2Quote is the guest's quote of the example bundle.
func tpm2Quote() (*quote.Layer, []byte) {
	data, err := os.ReadFile("../examples/bundles/good.json")
	if err != nil {
		panic(err)
	}
	b, err := quote.ParseBundle(data)
	if err != nil {
		panic(err)
	}
	return b.Guest, quote.GuestQualifier(b.Challenge)
}

// pinnedKey is the Name that the tenant wrote down.
func pinnedKey() (name quote.Hex) {
	if err := name.UnmarshalText([]byte("000bb393c1d3a37701c6be03d5eed94280c7fc4c93c302e0315bd6c5ad169bcfe77b")); err != nil {
		panic(err)
	}
	return name
}
