package nitro_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/deepattest/deepattest/quote/nitro"
)

// TestRequest: the bytes that serde gives for the NSM API's Request::Attestation.
func TestRequest(t *testing.T) {
	got, err := nitro.Request(nil, []byte{1, 2}, []byte{3})
	want := "\xa1\x6bAttestation\xa3\x69user_data\x42\x01\x02\x65nonce\x41\x03\x6apublic_key\xf6"
	if err != nil || string(got) != want {
		t.Errorf("%x, %v, want %x", got, err, want)
	}
	long := make([]byte, 513)
	for _, f := range [][3][]byte{{nil, long, nil}, {nil, nil, long}, {make([]byte, 1025), nil, nil}} {
		if _, err := nitro.Request(f[0], f[1], f[2]); err == nil {
			t.Errorf("%d, %d and %d bytes are asked for", len(f[0]), len(f[1]), len(f[2]))
		}
	}
}

func TestResponse(t *testing.T) {
	encode := func(v any) []byte {
		b, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return append(b, bytes.Repeat([]byte{0xff}, 100)...) // the rest of the NV index
	}
	doc, err := nitro.Response(encode(map[string]any{"Attestation": map[string][]byte{"document": {1, 2, 3}}}))
	if err != nil || !bytes.Equal(doc, []byte{1, 2, 3}) {
		t.Errorf("%x, %v", doc, err)
	}
	for name, tt := range map[string]struct {
		b    []byte
		want string
	}{
		"error":         {encode(map[string]string{"Error": "InvalidArgument"}), "InvalidArgument"},
		"no document":   {encode(map[string]any{"Attestation": map[string][]byte{"document": {}}}), "no document"},
		"other answer":  {encode(map[string]any{"DescribeNSM": map[string]int{}}), "unknown field"},
		"long document": {encode(map[string]any{"Attestation": map[string][]byte{"document": make([]byte, nitro.MaxDocument+1)}}), "at most"},
		"never written": {bytes.Repeat([]byte{0xff}, 64), "response of 64 bytes"},
		"empty":         {nil, "response of 0 bytes"},
	} {
		if doc, err := nitro.Response(tt.b); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %x, %v, want %q", name, doc, err, tt.want)
		}
	}
}
