package xen

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/deepattest/deepattest/quote"
)

// IdentityType names the format of an Identity file and its version.
const IdentityType = "application/vnd.deepattest.xen-host.v1+json"

// MaxIdentity is the most bytes that an identity may have.
const MaxIdentity = 2 << 20

// Identity is what a guest has to know of its host, because no deep quote carries
// it: the keys and certificates that go into the evidence beside it. Nothing in it
// is proven; the tenant's trust file decides whether these keys count.
type Identity struct {
	MediaType string     `json:"mediaType"`
	Name      string     `json:"name"`            // of the host, for people
	TPM       quote.TPM  `json:"tpm"`             // the physical one
	EK        quote.EK   `json:"ek"`              // TPM_PUBKEY, with certificates
	AIK       []byte     `json:"aik"`             // TPM_PUBKEY of the group's identity key
	Group     quote.UUID `json:"group,omitzero"`  // of the vTPMs that this key signs for
	Label     quote.Hex  `json:"label,omitempty"` // digest under which the key was made, 20 bytes
	Binding   []byte     `json:"binding,omitempty"`
}

// Encode writes the identity's one form: two spaces of indentation, a final newline.
func (id *Identity) Encode() ([]byte, error) {
	if err := id.validate(); err != nil {
		return nil, err
	}
	out, err := json.Marshal(id, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("identity of a Xen host: %w", err)
	}
	return append(out, '\n'), nil
}

// ParseIdentity reads what Encode writes. Unknown and duplicate members, trailing
// data and keys that cannot be read are errors.
func ParseIdentity(data []byte) (*Identity, error) {
	if len(data) > MaxIdentity {
		return nil, fmt.Errorf("identity of a Xen host: %d bytes, at most %d", len(data), MaxIdentity)
	}
	var id Identity
	if err := json.Unmarshal(data, &id, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("identity of a Xen host: %w", err)
	}
	return &id, id.validate()
}

func (id *Identity) validate() error {
	if id.MediaType != IdentityType {
		return fmt.Errorf("identity of a Xen host: media type %.80q, want %s", id.MediaType, IdentityType)
	}
	if _, err := quote.ParsePubkey(id.AIK); err != nil {
		return fmt.Errorf("identity of a Xen host: aik: %w", err)
	}
	if len(id.EK.Public) > 0 {
		if _, err := quote.ParsePubkey(id.EK.Public); err != nil {
			return fmt.Errorf("identity of a Xen host: ek: %w", err)
		}
	}
	return nil
}

// Names returns the Names of the endorsement key, nil when there is none, and of
// the identity key, as a trust file has them.
func (id *Identity) Names() (ek, aik quote.Hex, err error) {
	p, err := quote.ParsePubkey(id.AIK)
	if err != nil {
		return nil, nil, err
	}
	aik = p.Name()
	if len(id.EK.Public) == 0 {
		return nil, aik, nil
	}
	if p, err = quote.ParsePubkey(id.EK.Public); err != nil {
		return nil, nil, err
	}
	return p.Name(), aik, nil
}
