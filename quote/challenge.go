package quote

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Lengths of a challenge in bytes. A TPM2B_DATA could carry more, but the
// challenge itself never reaches a TPM: its labelled hash does.
const (
	MinChallenge = 16
	MaxChallenge = 64
	// ChallengeSize is the length that deepattest draws.
	ChallengeSize = 32
)

// Labelled computes D(label, fields...) =
// SHA-256("deepattest/" || label || 0x00 || u32be(len) || field ...).
// Everything that deepattest binds goes through it: the label keeps purposes
// apart, the lengths keep fields apart.
func Labelled(label string, fields ...[]byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte("deepattest/" + label + "\x00"))
	var n [4]byte
	for _, f := range fields {
		binary.BigEndian.PutUint32(n[:], uint32(len(f)))
		h.Write(n[:])
		h.Write(f)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// CheckChallenge refuses a challenge of a length that proves nothing or that no
// verifier draws.
func CheckChallenge(c []byte) error {
	if len(c) < MinChallenge || len(c) > MaxChallenge {
		return fmt.Errorf("challenge of %d bytes: want %d to %d; draw one with `deepattest challenge`", len(c), MinChallenge, MaxChallenge)
	}
	return nil
}

// GuestQualifier is the qualifyingData of the guest's quote for a challenge.
func GuestQualifier(challenge []byte) []byte {
	d := Labelled("guest-quote/v1", challenge)
	return d[:]
}

// NitroUserData is what a guest puts into the user_data of its NitroTPM document:
// the 32 bytes of D("nitro-guest/v1", challenge, ak), where ak is the AK's Name. The
// document's signer sees neither, so that one signed for another challenge or another
// key cannot be shown for this one; the Name holds the AK's attributes too, which
// public_key would not.
func NitroUserData(challenge []byte, ak Hex) []byte {
	d := Labelled("nitro-guest/v1", challenge, ak)
	return d[:]
}

// HostQualifier is the qualifyingData of the host's quote: it commits to a
// Merkle tree of leaves.
func HostQualifier(treeSize uint64, root []byte) []byte {
	d := Labelled("host-quote/v1", binary.BigEndian.AppendUint64(nil, treeSize), root)
	return d[:]
}

// Digest is the digest under which a leaf names a quote: SHA-256 over the
// attestation and its signature, so that neither can be exchanged.
func (q Quote) Digest() [sha256.Size]byte {
	h := sha256.New()
	h.Write(q.Attest)
	h.Write(q.Signature)
	return [sha256.Size]byte(h.Sum(nil))
}

// Leaf returns the leaf that names one guest's attestation to the host: the
// challenge, the VM, the Names of the vTPM's EK and the guest's AK, the guest's
// quote and the Name of the host's AK. Its inputs are the fields of Link with the
// challenge in front.
func (l *Link) Leaf(challenge []byte) []byte {
	d := Labelled("host-link/v1", challenge, l.VM[:], l.GuestEK, l.GuestAK, l.GuestQuote, l.HostAK)
	return d[:]
}
