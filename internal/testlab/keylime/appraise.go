package keylime

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote"
)

// appraise is what a verifier does with evidence: the quote, the PCRs, and with the
// plug-in the verdict document.
func (k *Installation) appraise(id string, a *enrolled, at *attestation) bool {
	offered := slices.ContainsFunc(at.collected, func(item map[string]any) bool { return item["evidence_type"] == "deep_attestation" })
	if k.opts.Plugin != nil && a.needsDocument() && !offered {
		return false
	}
	for _, item := range at.collected {
		data, _ := item["data"].(map[string]any)
		switch item["evidence_type"] {
		case "tpm_quote":
			field := func(name string) []byte {
				text, _ := data[name].(string)
				b, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					return nil
				}
				return b
			}
			values, ok := goodQuote(a.AK, at.challenge, field("message"), field("signature"), field("subject_data"))
			if !ok || !a.accepts(at.subjects, values) {
				return false
			}
		case "deep_attestation":
			entries, _ := data["entries"].(string)
			if !k.goodDocument(id, at.challenge, []byte(entries)) {
				return false
			}
		}
	}
	return true
}

// needsDocument reads the metadata as the plug-in does.
func (a *enrolled) needsDocument() bool {
	var m struct {
		Deep struct {
			Plugin bool `json:"plugin"`
		} `json:"deep_attestation"`
	}
	return json.Unmarshal([]byte(a.Metadata), &m) == nil && m.Deep.Plugin
}

// accepts compares with the tpm_policy.
func (a *enrolled) accepts(subjects []int, values map[int][]byte) bool {
	for _, n := range subjects {
		if !slices.Contains(a.Policy[strconv.Itoa(n)], hex.EncodeToString(values[n])) {
			return false
		}
	}
	return true
}

// goodQuote checks a quote and returns the PCR values under it.
func goodQuote(ak, challenge, message, sig, blob []byte) (map[int][]byte, bool) {
	a, err := tpm2.Unmarshal[tpm2.TPMSAttest](message)
	if err != nil || a.Magic != tpm2.TPMGeneratedValue || a.Type != tpm2.TPMSTAttestQuote || !bytes.Equal(a.ExtraData.Buffer, challenge) || len(ak) < 2 {
		return nil, false
	}
	p, err := quote.ParsePublic(ak[2:])
	if err != nil || !signedBy(p, message, sig) {
		return nil, false
	}
	q, err := a.Attested.Quote()
	if err != nil || len(q.PCRSelect.PCRSelections) != 1 {
		return nil, false
	}
	// The blob is a dump of C structures: selection of 132 bytes, number of lists,
	// then lists of up to 8 digests in 532 bytes each.
	const header, list, room = 132, 532, 66
	if len(blob) < header+4 || !bytes.Equal(blob[7:10], q.PCRSelect.PCRSelections[0].PCRSelect) {
		return nil, false
	}
	var indices []int
	for n := range 24 {
		if blob[7+n/8]&(1<<(n%8)) != 0 {
			indices = append(indices, n)
		}
	}
	values, sum := map[int][]byte{}, sha256.New()
	for i, n := range indices {
		at := header + 4 + i/8*list + 4 + i%8*room
		if at+room > len(blob) || binary.LittleEndian.Uint16(blob[at:]) != sha256.Size {
			return nil, false
		}
		values[n] = blob[at+2 : at+2+sha256.Size]
		sum.Write(values[n])
	}
	return values, bytes.Equal(sum.Sum(nil), q.PCRDigest.Buffer)
}

// signedBy verifies a TPMT_SIGNATURE with SHA-256.
func signedBy(p *quote.Public, message, sig []byte) bool {
	s, err := tpm2.Unmarshal[tpm2.TPMTSignature](sig)
	if err != nil {
		return false
	}
	sum := sha256.Sum256(message)
	switch key := p.Key.(type) {
	case *rsa.PublicKey:
		r, err := s.Signature.RSASSA()
		return err == nil && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], r.Sig.Buffer) == nil
	case *ecdsa.PublicKey:
		e, err := s.Signature.ECDSA()
		return err == nil && ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(e.SignatureR.Buffer), new(big.Int).SetBytes(e.SignatureS.Buffer))
	}
	return false
}

// goodDocument does what the plug-in in examples/keylime does.
func (k *Installation) goodDocument(id string, challenge, data []byte) bool {
	var e struct {
		Type       string `json:"payloadType"`
		Payload    []byte `json:"payload"`
		Signatures []struct {
			Sig []byte `json:"sig"`
		} `json:"signatures"`
	}
	if json.Unmarshal(data, &e) != nil || len(e.Signatures) == 0 {
		return false
	}
	message := append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(e.Type), e.Type, len(e.Payload)), e.Payload...)
	sum := sha256.Sum256(message)
	signed := false
	for _, key := range k.opts.Plugin {
		switch key := key.(type) {
		case ed25519.PublicKey:
			signed = signed || ed25519.Verify(key, message, e.Signatures[0].Sig)
		case *ecdsa.PublicKey:
			signed = signed || ecdsa.VerifyASN1(key, sum[:], e.Signatures[0].Sig)
		}
	}
	var d struct {
		Agent     string    `json:"agent"`
		Challenge []byte    `json:"challenge"`
		Issued    time.Time `json:"issued"`
		Expires   time.Time `json:"expires"`
		Appraised time.Time `json:"appraised"`
		Verdict   string    `json:"verdict"`
	}
	if !signed || json.Unmarshal(e.Payload, &d) != nil {
		return false
	}
	now := k.now()
	return d.Agent == id && (len(d.Challenge) == 0 || bytes.Equal(d.Challenge, challenge)) &&
		!d.Issued.After(now.Add(2*time.Minute)) && now.Before(d.Expires) && now.Sub(d.Appraised) < time.Hour && d.Verdict == "trusted"
}
