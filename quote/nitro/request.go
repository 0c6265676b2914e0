package nitro

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// MaxRequest is the most user_data and nonce may have (NSM, section 3.2.2.2).
const MaxRequest = 512

// attestation is the request for a document, as aws-nitro-enclaves-nsm-api encodes it.
type attestation struct {
	UserData  []byte `cbor:"user_data"`
	Nonce     []byte `cbor:"nonce"`
	PublicKey []byte `cbor:"public_key"`
}

// Request encodes the request for a document with what the guest wants in it, nil for
// nothing.
func Request(publicKey, userData, nonce []byte) ([]byte, error) {
	if len(userData) > MaxRequest || len(nonce) > MaxRequest || len(publicKey) > maxData {
		return nil, fmt.Errorf("nitro request: user_data of %d, nonce of %d and public_key of %d bytes, at most %d, %d and %d",
			len(userData), len(nonce), len(publicKey), MaxRequest, MaxRequest, maxData)
	}
	return cbor.Marshal(map[string]attestation{"Attestation": {UserData: userData, Nonce: nonce, PublicKey: publicKey}})
}

// Response reads the answer to a Request, and returns the document in it as AWS wrote
// it. The NV index that the answer stands in is larger: what is behind is not read.
func Response(b []byte) ([]byte, error) {
	mode, err := decoder(cbor.IndefLengthAllowed)
	if err != nil {
		return nil, err
	}
	var r struct {
		Attestation struct {
			Document []byte `cbor:"document"`
		} `cbor:"Attestation"`
		Error string `cbor:"Error"`
	}
	if _, err := mode.UnmarshalFirst(b, &r); err != nil {
		return nil, fmt.Errorf("nitro response of %d bytes: %w", len(b), err)
	}
	switch doc := r.Attestation.Document; {
	case r.Error != "":
		return nil, fmt.Errorf("NitroTPM refuses an attestation document: %.64q", r.Error)
	case len(doc) == 0:
		return nil, errors.New("nitro response: no document")
	case len(doc) > MaxDocument:
		return nil, fmt.Errorf("nitro response: document of %d bytes, at most %d", len(doc), MaxDocument)
	default:
		return doc, nil
	}
}
