package keylime

import (
	"context"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// Registrar is a client of a Keylime registrar (API 2.6).
type Registrar struct{ *client }

// NewRegistrar returns a client for "https://HOST:8891", or "http://HOST:8890" for
// Register and Activate: what they send is public, and their answers are worth
// nothing to another TPM.
func NewRegistrar(address string, o Options) (*Registrar, error) {
	c, err := newClient(registrar, address, o)
	if err != nil {
		return nil, err
	}
	return &Registrar{c}, nil
}

// Versions asks which versions of the API the registrar has. This client speaks 2.6.
func (r *Registrar) Versions(ctx context.Context) ([]string, error) {
	v, err := get2[struct {
		All []string `json:"supported_versions"`
	}](ctx, r.client, "/version", 0)
	if err != nil {
		return nil, err
	}
	return v.All, nil
}

// Agents lists the ids of all records, with an administrator's certificate.
func (r *Registrar) Agents(ctx context.Context) ([]string, error) {
	a, err := get2[struct {
		IDs []string `json:"uuids"`
	}](ctx, r.client, "/v2.6/agents/", 0)
	if err != nil {
		return nil, err
	}
	return a.IDs, nil
}

// Record is what a registrar keeps about an agent.
type Record struct {
	AgentID string `json:"agent_id"`
	EK      []byte `json:"ek_tpm"`              // TPM2B_PUBLIC
	EKCert  string `json:"ekcert"`              // base64 of DER, or PEM; may be empty
	AK      []byte `json:"aik_tpm"`             // TPM2B_PUBLIC
	MTLS    string `json:"mtls_cert,omitempty"` // the agent's own server certificate, PEM; "disabled" or empty
	IP      string `json:"ip,omitempty"`
	Port    int    `json:"port,omitzero"`
	Count   int    `json:"regcount,omitzero"`
}

// Show returns an agent's record. It needs an administrator's client certificate. A
// record that was not activated is a 404: the registrar vouches only for keys that
// it has made a credential for.
func (r *Registrar) Show(ctx context.Context, id string) (*Record, error) {
	if err := agentPath(id); err != nil {
		return nil, err
	}
	rec, err := get2[Record](ctx, r.client, "/v2.6/agents/"+id, 0)
	if err != nil {
		return nil, err
	}
	if rec.AgentID != id {
		return nil, fmt.Errorf("%s: asked for agent %s, answered about %s", r, id, printable(rec.AgentID))
	}
	return rec, nil
}

// EKPublic returns the TPMT_PUBLIC of the endorsement key.
func (r *Record) EKPublic() ([]byte, error) {
	return tpmtPublic(r.EK, "ek_tpm")
}

// AKPublic returns the TPMT_PUBLIC of the attestation key.
func (r *Record) AKPublic() ([]byte, error) {
	return tpmtPublic(r.AK, "aik_tpm")
}

// EKCertificate returns the DER of the endorsement key's certificate, nil when the
// record has none.
func (r *Record) EKCertificate() ([]byte, error) {
	if r.EKCert == "" {
		return nil, nil
	}
	if block, _ := pem.Decode([]byte(r.EKCert)); block != nil {
		return block.Bytes, nil
	}
	der, err := base64.StdEncoding.DecodeString(r.EKCert)
	if err != nil {
		return nil, fmt.Errorf("agent %s: ekcert is neither PEM nor base64: %w", r.AgentID, err)
	}
	return der, nil
}

// ServerCertificate returns the DER of the agent's self-signed server certificate,
// for Options.Pinned.
func (r *Record) ServerCertificate() ([]byte, error) {
	block, _ := pem.Decode([]byte(r.MTLS))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("agent %s: its record holds no server certificate (mtls_cert %.20q); cloud operator: run the agent with enable_agent_mtls", r.AgentID, r.MTLS)
	}
	return block.Bytes, nil
}

// tpmtPublic strips the size of a TPM2B_PUBLIC (Part 2, section 12.2.5).
func tpmtPublic(b []byte, field string) ([]byte, error) {
	if len(b) < 2 || int(binary.BigEndian.Uint16(b)) != len(b)-2 {
		return nil, fmt.Errorf("%s: %d bytes that are no TPM2B_PUBLIC", field, len(b))
	}
	return b[2:], nil
}

// tpm2b puts a size in front of a structure.
func tpm2b(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

// Registration is what an agent tells a registrar.
type Registration struct {
	EK, AK []byte // TPMT_PUBLIC
	EKCert []byte // DER; nil when the TPM has none
}

// Register announces an agent and returns the credential for its two keys. Doing so
// for an agent that is active makes it inactive until it is activated again.
func (r *Registrar) Register(ctx context.Context, id string, reg Registration) (idObject, encryptedSecret []byte, err error) {
	if err := agentPath(id); err != nil {
		return nil, nil, err
	}
	q := request{
		method: http.MethodPost, path: "/v2.6/agents/" + id, content: contentJSON, want: []int{http.StatusOK},
		body: struct {
			EK     []byte `json:"ek_tpm"`
			EKCert []byte `json:"ekcert,omitempty"`
			AK     []byte `json:"aik_tpm"`
		}{tpm2b(reg.EK), reg.EKCert, tpm2b(reg.AK)},
	}
	a, err := r.call(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	res, err := results[struct {
		Blob []byte `json:"blob"`
	}](r.client, q, a)
	if err != nil {
		return nil, nil, err
	}
	if idObject, encryptedSecret, err = parseCredential(res.Blob); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", r, err)
	}
	return idObject, encryptedSecret, nil
}

// parseCredential reads a credential in the file format of tpm2-tools: magic
// 0xbadcc0de, version 1, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET. The parts come
// back without their sizes.
func parseCredential(b []byte) (idObject, encryptedSecret []byte, err error) {
	fault := func(what string) ([]byte, []byte, error) {
		return nil, nil, fmt.Errorf("credential of %d bytes: %s", len(b), what)
	}
	if len(b) < 8 || binary.BigEndian.Uint32(b) != 0xBADCC0DE || binary.BigEndian.Uint32(b[4:]) != 1 {
		return fault("not of the form that tpm2_makecredential writes, version 1")
	}
	rest := b[8:]
	for _, part := range []*[]byte{&idObject, &encryptedSecret} {
		if len(rest) < 2 || int(binary.BigEndian.Uint16(rest)) > len(rest)-2 {
			return fault("cut off")
		}
		n := int(binary.BigEndian.Uint16(rest))
		*part, rest = rest[2:2+n], rest[2+n:]
	}
	if len(rest) > 0 || len(idObject) == 0 || len(encryptedSecret) == 0 {
		return fault("an empty part, or bytes left over")
	}
	return idObject, encryptedSecret, nil
}

// Activate proves with the credential's secret that both keys are in one TPM. A
// registrar deletes the record when the proof is wrong.
func (r *Registrar) Activate(ctx context.Context, id string, secret []byte) error {
	if err := agentPath(id); err != nil {
		return err
	}
	_, err := r.call(ctx, request{
		method: http.MethodPut, path: "/v2.6/agents/" + id + "/activate", content: contentJSON, want: []int{http.StatusOK},
		body: struct {
			Tag string `json:"auth_tag"`
		}{authTag(id, secret)},
	})
	return err
}

// authTag is HMAC-SHA384 over the id, with the base64 text of the secret as key.
func authTag(id string, secret []byte) string {
	mac := hmac.New(sha512.New384, []byte(base64.StdEncoding.EncodeToString(secret)))
	mac.Write([]byte(id))
	return hex.EncodeToString(mac.Sum(nil))
}

// Registrant is the TPM that registers; a *tpm.TPM is one.
type Registrant interface {
	EKCertificate(context.Context, *tpm.EK) (tpm.Certificate, error)
	ActivateCredential(ctx context.Context, ak *tpm.AK, ek *tpm.EK, idObject, encryptedSecret []byte) ([]byte, error)
}

// RegisterTPM registers and activates an agent with a TPM's keys: two requests, and
// the commands of ActivateCredential and EKCertificate. It may be repeated.
func (r *Registrar) RegisterTPM(ctx context.Context, id string, t Registrant, ek *tpm.EK, ak *tpm.AK) error {
	reg := Registration{EK: ek.Public, AK: ak.Public}
	cert, err := t.EKCertificate(ctx, ek)
	switch {
	case err == nil:
		reg.EKCert = cert.Trimmed()
	case !errors.Is(err, tpm.ErrNoCertificate):
		return fmt.Errorf("register agent %s: %w", id, err)
	}
	idObject, encryptedSecret, err := r.Register(ctx, id, reg)
	if err != nil {
		return fmt.Errorf("register agent %s: %w", id, err)
	}
	secret, err := t.ActivateCredential(ctx, ak, ek, idObject, encryptedSecret)
	if err != nil {
		return fmt.Errorf("register agent %s: the registrar's credential: %w", id, err)
	}
	if err := r.Activate(ctx, id, secret); err != nil {
		return fmt.Errorf("activate agent %s: %w", id, err)
	}
	return nil
}

// names returns the Names of a record's keys.
func (r *Record) names() (ek, ak quote.Hex, err error) {
	for _, k := range []struct {
		read func() ([]byte, error)
		into *quote.Hex
	}{{r.EKPublic, &ek}, {r.AKPublic, &ak}} {
		public, err := k.read()
		if err != nil {
			return nil, nil, fmt.Errorf("agent %s: %w", r.AgentID, err)
		}
		p, err := quote.ParsePublic(public)
		if err != nil {
			return nil, nil, fmt.Errorf("agent %s: %w", r.AgentID, err)
		}
		*k.into = p.Name()
	}
	return ek, ak, nil
}
