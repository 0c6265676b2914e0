package keylime

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/deepattest/deepattest/quote"
)

// record is an agent in the fake registrar.
type record struct {
	EK     []byte // TPM2B_PUBLIC
	AK     []byte // TPM2B_PUBLIC
	Cert   []byte // DER
	MTLS   *string
	IP     *string
	Port   *int
	Count  int
	active bool
	secret []byte
}

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

func (k *Installation) registrar() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		answer2(w, http.StatusOK, "Success", map[string]any{"current_version": "2.6", "supported_versions": []string{"2.5", "2.6", "3.0"}})
	})
	m.HandleFunc("POST /v2.6/agents/{id}", k.register)
	m.HandleFunc("PUT /v2.6/agents/{id}/activate", k.activate)
	m.HandleFunc("PUT /v2.6/agents/{id}", k.activate)
	m.HandleFunc("GET /v2.6/agents/{id}", k.showRecord)
	m.HandleFunc("GET /v2.6/agents/{$}", k.listRecords)
	m.HandleFunc("/v3.0/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	return m
}

func (k *Installation) register(w http.ResponseWriter, r *http.Request) {
	var q struct {
		EK   []byte  `json:"ek_tpm"`
		AK   []byte  `json:"aik_tpm"`
		Cert *string `json:"ekcert"`
		MTLS *string `json:"mtls_cert"`
		IP   *string `json:"ip"`
		Port *int    `json:"port"`
	}
	if !bodyOf(w, r, &q) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	id := r.PathValue("id")
	rec := &record{EK: q.EK, AK: q.AK, MTLS: q.MTLS, IP: q.IP, Port: q.Port}
	invalid := func() { answer2(w, http.StatusBadRequest, "Could not register agent with invalid data", nil) }
	ek, err := tpm2.Unmarshal[tpm2.TPM2BPublic](q.EK)
	if err != nil {
		invalid()
		return
	}
	ekPublic, err := ek.Contents()
	if err != nil {
		invalid()
		return
	}
	if q.Cert != nil {
		if rec.Cert, err = decodeCert(*q.Cert); err != nil || !certifies(rec.Cert, q.EK) {
			invalid()
			return
		}
	}
	if old := k.records[id]; old != nil {
		if !bytes.Equal(old.EK, q.EK) {
			answer2(w, http.StatusForbidden, "Agent re-registration with different TPM identity is forbidden for security reasons", nil)
			return
		}
		rec.Count = old.Count
	}
	rec.Count++
	if rec.secret, err = k.credential(w, ekPublic, q.AK); err != nil {
		invalid()
		return
	}
	k.records[id] = rec
}

// credential answers with a credential for the two keys, in the form of tpm2-tools.
func (k *Installation) credential(w http.ResponseWriter, ek *tpm2.TPMTPublic, ak []byte) ([]byte, error) {
	if len(ak) < 2 {
		return nil, fmt.Errorf("no attestation key")
	}
	p, err := quote.ParsePublic(ak[2:])
	if err != nil {
		return nil, err
	}
	key, err := tpm2.ImportEncapsulationKey(ek)
	if err != nil {
		return nil, err
	}
	secret := random(32)
	id, enc, err := tpm2.CreateCredential(rand.Reader, key, p.Name(), secret)
	if err != nil {
		return nil, err
	}
	blob := []byte{0xBA, 0xDC, 0xC0, 0xDE, 0, 0, 0, 1}
	for _, part := range [][]byte{id, enc} {
		blob = append(binary.BigEndian.AppendUint16(blob, uint16(len(part))), part...)
	}
	answer2(w, http.StatusOK, "Success", map[string]any{"blob": blob})
	return secret, nil
}

func decodeCert(text string) ([]byte, error) {
	if block, _ := pem.Decode([]byte(text)); block != nil {
		return block.Bytes, nil
	}
	return base64.StdEncoding.DecodeString(text)
}

// certifies reports whether a certificate is for an EK.
func certifies(der, ek []byte) bool {
	c, err := x509.ParseCertificate(der)
	if err != nil || len(ek) < 2 {
		return false
	}
	p, err := quote.ParsePublic(ek[2:])
	if err != nil {
		return false
	}
	k, ok := c.PublicKey.(interface{ Equal(any) bool })
	if ok {
		return k.Equal(p.Key)
	}
	spki, err := x509.MarshalPKIXPublicKey(p.Key)
	return err == nil && bytes.Equal(spki, c.RawSubjectPublicKeyInfo)
}

func (k *Installation) activate(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Tag string `json:"auth_tag"`
	}
	if !bodyOf(w, r, &q) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	id := r.PathValue("id")
	rec := k.records[id]
	if rec == nil {
		answer2(w, http.StatusNotFound, fmt.Sprintf("Agent with ID '%s' not found", id), nil)
		return
	}
	mac := hmac.New(sha512.New384, []byte(base64.StdEncoding.EncodeToString(rec.secret)))
	mac.Write([]byte(id))
	if q.Tag != hex.EncodeToString(mac.Sum(nil)) {
		delete(k.records, id)
		answer2(w, http.StatusBadRequest, fmt.Sprintf("Auth tag '%s' for agent '%s' does not match expected value. The agent has been deleted from the database and will need to be restarted to reattempt registration", q.Tag, id), nil)
		return
	}
	rec.active = true
	answer2(w, http.StatusOK, "Success", nil)
}

func (k *Installation) listRecords(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !admin(r) {
		refuse3(w, http.StatusForbidden, "", "Action list_registrations requires admin authentication (mTLS certificate)", "")
		return
	}
	answer2(w, http.StatusOK, "Success", map[string]any{"uuids": slices.Sorted(maps.Keys(k.records))})
}

func (k *Installation) showRecord(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	id := r.PathValue("id")
	rec := k.records[id]
	switch {
	case r.TLS == nil:
		answer2(w, http.StatusBadRequest, "Bad Request", nil)
	case !admin(r):
		refuse3(w, http.StatusForbidden, "", "Action read_registration requires admin authentication (mTLS certificate)", "")
	case rec == nil:
		answer2(w, http.StatusNotFound, fmt.Sprintf("Agent with ID '%s' not found", id), nil)
	case !rec.active:
		answer2(w, http.StatusNotFound, fmt.Sprintf("Agent with ID '%s' has not been activated", id), nil)
	default:
		answer2(w, http.StatusOK, "Success", map[string]any{
			"agent_id": id, "ek_tpm": rec.EK, "ekcert": rec.Cert, "aik_tpm": rec.AK,
			"mtls_cert": rec.MTLS, "ip": rec.IP, "port": rec.Port, "regcount": rec.Count,
		})
	}
}
