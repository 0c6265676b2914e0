package main

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/keylime"
	keylimelab "github.com/deepattest/deepattest/internal/testlab/keylime"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// playKeylime is the command keylime, which plays a Keylime installation.
//
//	keylime start             $REGISTRAR (http), $RECORDS (the registrar's TLS port) and
//	                          $VERIFIER; cacert.crt, the administrator's client-cert.crt
//	                          and client-private.pem, expired.crt and expired.pem, and
//	                          document.key, whose signatures the verifier's plug-in trusts
//	keylime mode push|pull    changes the verifier's mode
//	keylime clock DURATION    puts the installation's clocks ahead
//	keylime status ID WORD    wants an agent's status
//	keylime document ID WORD  wants a verdict in the document of an agent's last attestation
//	keylime agent NAME TPM    runs a hypervisor's agent, $NAME, and registers it under that
//	                          id; its key goes into NAME.data, as a real agent keeps it
//	keylime tool FILE TPM STATEMENT  writes a certificate tool for swtpm_setup
//	keylime tenant ID TPM     sets what keylime_tenant gives its ek_check_script
//	keylime pcr TPM           prints a TPM's PCR 23
//	keylime policy TPM FILE   writes a tpm_policy that names a TPM's PCRs 0 to 7
func playKeylime(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: keylime start|mode|clock|status|document|agent|tool|tenant|pcr|policy ...")
	}
	b := benchOf(ts)
	arg := func(n int) string {
		if len(args) <= n {
			ts.Fatalf("keylime %s: argument %d is missing", args[0], n)
		}
		return args[n]
	}
	if args[0] != "start" && b.keylime == nil {
		ts.Fatalf("keylime start comes first")
	}
	switch k := b.keylime; args[0] {
	case "start":
		startKeylime(ts, b)
	case "mode":
		k.Set(func(o *keylimelab.Options) { o.Pull = arg(1) == "pull" })
	case "clock":
		ahead, err := time.ParseDuration(arg(1))
		ts.Check(err)
		k.Set(func(o *keylimelab.Options) { o.Now = func() time.Time { return time.Now().Add(ahead) } })
	case "status":
		s, err := b.admin.Status(b.t.Context(), arg(1))
		ts.Check(err)
		if s.Status != arg(2) {
			ts.Fatalf("agent %s is %s, want %s", arg(1), s.Status, arg(2))
		}
	case "document":
		a, err := b.admin.Latest(b.t.Context(), arg(1))
		ts.Check(err)
		d, err := keylime.OpenDocument(a.Document(), []crypto.PublicKey{b.documents}, time.Now())
		ts.Check(err)
		if d.Verdict.String() != arg(2) {
			ts.Fatalf("the document says %s, want %s", d.Verdict, arg(2))
		}
	case "agent":
		hostAgent(ts, b, arg(1), arg(2))
	case "tool":
		text := fmt.Sprintf("#!/bin/sh\nexec deepattest host certify-ca --tpm '%s' --issue '%s' -- \"$@\"\n", arg(2), ts.MkAbs(arg(3)))
		ts.Check(os.WriteFile(ts.MkAbs(arg(1)), []byte(text), 0o755))
	case "tenant":
		withTPM(ts, arg(2), func(ctx context.Context, t *tpm.TPM) error {
			ek, err := t.EK(ctx, tpm.AnyKey)
			if err != nil {
				return err
			}
			cert, err := t.EKCertificate(ctx, ek)
			ts.Setenv("AGENT_UUID", arg(1))
			ts.Setenv("EK_TPM", base64.StdEncoding.EncodeToString(append([]byte{byte(len(ek.Public) >> 8), byte(len(ek.Public))}, ek.Public...)))
			ts.Setenv("EK_CERT", base64.StdEncoding.EncodeToString(cert.Trimmed()))
			return err
		})
	case "pcr":
		withTPM(ts, arg(1), func(ctx context.Context, t *tpm.TPM) error {
			values, err := t.ReadPCRs(ctx, quote.Selection{{Alg: quote.SHA256, PCRs: []int{keylime.CarrierPCR}}})
			fmt.Fprintln(ts.Stdout(), values[quote.SHA256][keylime.CarrierPCR])
			return err
		})
	case "policy":
		withTPM(ts, arg(1), func(ctx context.Context, t *tpm.TPM) error {
			values, err := t.ReadPCRs(ctx, quote.Selection{{Alg: quote.SHA256, PCRs: []int{0, 1, 2, 3, 4, 5, 6, 7}}})
			if err != nil {
				return err
			}
			members := map[string]any{"mask": "0xff"}
			for n, v := range values[quote.SHA256] {
				members[strconv.Itoa(n)] = []string{v.String()}
			}
			data, err := json.Marshal(members)
			if err != nil {
				return err
			}
			return os.WriteFile(ts.MkAbs(arg(2)), append(data, '\n'), 0o600)
		})
	default:
		ts.Fatalf("keylime %s: no such thing", args[0])
	}
}

func startKeylime(ts *testscript.TestScript, b *bench) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	b.documents = public
	b.keylime, err = keylimelab.Start(keylimelab.Options{Plugin: []crypto.PublicKey{public}})
	ts.Check(err)
	ts.Defer(b.keylime.Close)
	ts.Setenv("REGISTRAR", b.keylime.RegistrarURL)
	ts.Setenv("RECORDS", b.keylime.AdminURL)
	ts.Setenv("VERIFIER", b.keylime.VerifierURL)
	write := func(name, kind string, der []byte) {
		ts.Check(os.WriteFile(ts.MkAbs(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	write("cacert.crt", "CERTIFICATE", b.keylime.CA())
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		ts.Check(err)
		return der
	}
	write("document.key", "PRIVATE KEY", pkcs8(private))
	certificate := func(valid time.Duration, certFile, keyFile string) *tls.Certificate {
		cert, err := b.keylime.Admin(valid)
		ts.Check(err)
		write(certFile, "CERTIFICATE", cert.Certificate[0])
		write(keyFile, "PRIVATE KEY", pkcs8(cert.PrivateKey))
		return cert
	}
	certificate(-time.Hour, "expired.crt", "expired.pem")
	cert := certificate(time.Hour, "client-cert.crt", "client-private.pem")
	b.admin, err = keylime.NewVerifier(b.keylime.VerifierURL, keylime.Options{RootCAs: b.keylime.Roots(), Certificate: cert})
	ts.Check(err)
	ts.Defer(b.admin.Close)
}

// hostAgent registers a hypervisor's TPM, and quotes it for whoever has a certificate of
// the installation. The TPM is open while it is used only: swtpm serves one at a time.
func hostAgent(ts *testscript.TestScript, b *bench, name, address string) {
	data, err := keylimelab.AgentData(address)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(name+".data"), data, 0o600))
	key, err := keylime.ReadAgentData(data)
	ts.Check(err)
	withKeys := func(ctx context.Context, f func(*tpm.TPM, *tpm.EK, *tpm.AK) error) (err error) {
		t, err := tpm.Open(ctx, address)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, t.Close()) }()
		ek, err := t.EK(ctx, tpm.RSA2048)
		if err != nil {
			return err
		}
		ak, err := t.LoadAK(ctx, ek, key.Public, key.Private)
		if err != nil {
			return err
		}
		return f(t, ek, ak)
	}
	agent, err := keylimelab.StartAgent(b.keylime, func(ctx context.Context, nonce string, pcrs []int) (out keylimelab.AgentAnswer, err error) {
		err = withKeys(ctx, func(t *tpm.TPM, _ *tpm.EK, ak *tpm.AK) error {
			q, values, err := guest.QuotePCRs(ctx, t, ak, []byte(nonce), quote.Selection{{Alg: quote.SHA256, PCRs: pcrs}})
			out.Quote = keylime.QuoteString{Quote: q, Bank: quote.SHA256, PCRs: values}.String()
			return err
		})
		return out, err
	})
	ts.Check(err)
	ts.Defer(agent.Close)
	ts.Setenv(name, agent.URL)
	registrar, err := keylime.NewRegistrar(b.keylime.RegistrarURL, keylime.Options{})
	ts.Check(err)
	defer registrar.Close()
	ctx := b.t.Context()
	ts.Check(withKeys(ctx, func(t *tpm.TPM, ek *tpm.EK, ak *tpm.AK) error { return registrar.RegisterTPM(ctx, name, t, ek, ak) }))
	b.keylime.SetServerCertificate(name, agent.Certificate())
}
