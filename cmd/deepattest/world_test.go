package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// minted are the files of a virtual world: evidence, what to verify it with, and
// certificates.
type minted struct {
	world *testlab.World
	files map[string][]byte
}

// mint makes a world's files. The good evidence is trusted by policy.yaml and
// trust.yaml; each other bundle has one thing wrong with it.
func mint() (*minted, error) {
	w, err := testlab.NewWorld()
	if err != nil {
		return nil, err
	}
	m := &minted{w, make(map[string][]byte)}
	challenge := testlab.Challenge(1)
	good, err := w.Bundle(challenge)
	if err != nil {
		return nil, err
	}
	m.files["challenge"] = []byte(good.Challenge.String() + "\n")
	replayed, err := w.Bundle(testlab.Challenge(2))
	if err != nil {
		return nil, err
	}
	hostless, err := w.Bundle(challenge)
	if err != nil {
		return nil, err
	}
	hostless.Host, hostless.Link = nil, quote.Link{Method: quote.LinkNone}
	w.Guest, w.OtherGuest = w.OtherGuest, w.Guest
	relayed, err := w.Bundle(challenge)
	w.Guest, w.OtherGuest = w.OtherGuest, w.Guest
	if err != nil {
		return nil, err
	}
	relayed.Guest = good.Guest
	if err := w.Guest.Boot("grub-sb"); err != nil {
		return nil, err
	}
	tampered, err := w.Bundle(challenge)
	if err != nil {
		return nil, err
	}
	if err := w.Guest.Boot("uki-sb"); err != nil {
		return nil, err
	}
	for name, b := range map[string]*quote.Bundle{
		"good.json": good, "replayed.json": replayed, "hostless.json": hostless, "relayed.json": relayed, "tampered.json": tampered,
	} {
		if m.files[name], err = b.Encode(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	opts, err := w.Options(challenge)
	if err != nil {
		return nil, err
	}
	m.files["root.pem"], m.files["issuer.pem"] = pemOf(w.Maker.Root.Raw), pemOf(w.Maker.Issuer.Raw)
	m.files["ek.pem"] = pemOf(w.Host.Cert)
	if err := m.lists(); err != nil {
		return nil, err
	}
	host := opts.Anchors.Hosts[0]
	m.files["trust.yaml"] = fmt.Appendf(nil, "apiVersion: %s\nkind: Trust\nroots: [root.pem]\nhosts:\n  - name: %s\n    ek: %s\n    ak: %s\n", policy.APIVersion, host.Name, host.EK, host.AK)
	report, err := verify.Evidence(m.files["good.json"], opts)
	if err != nil {
		return nil, err
	}
	m.files["policy.yaml"], err = lifecycle.Learn([]*verify.Report{report}, lifecycle.LearnOptions{Name: "web-tier"})
	return m, err
}

// lists makes revocation lists of the maker's: of the issuer numbers 5 and 4, number 6
// that ended, number 7 with the host's certificate and number 8 by an impostor.
func (m *minted) lists() error {
	now := m.world.Now
	impostor, err := testlab.NewMaker("Example Silicon", "impostor", now)
	if err != nil {
		return err
	}
	revoked := func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(3), RevocationTime: now.AddDate(0, 0, -3), ReasonCode: 1}}
	}
	for _, l := range []struct {
		name   string
		maker  *testlab.Maker
		root   bool
		number int64
		edit   func(*x509.RevocationList)
	}{
		{"root.crl", m.world.Maker, true, 1, nil}, {"issuer.crl", m.world.Maker, false, 5, nil}, {"old.crl", m.world.Maker, false, 4, nil},
		{"stale.crl", m.world.Maker, false, 6, func(l *x509.RevocationList) { l.NextUpdate = now.Add(-time.Hour) }},
		{"revoked.crl", m.world.Maker, false, 7, revoked}, {"impostor.crl", impostor, false, 8, nil},
	} {
		if m.files[l.name], err = l.maker.CRL(l.root, l.number, now, l.edit); err != nil {
			return err
		}
	}
	return nil
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// world writes the files of mint into the script's folder. $CHALLENGE, $VM and
// $NOW are those to verify with.
func world(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: world")
	}
	m, err := mint()
	ts.Check(err)
	for name, data := range m.files {
		ts.Check(os.WriteFile(ts.MkAbs(name), data, 0o600))
	}
	ts.Setenv("CHALLENGE", quote.Hex(testlab.Challenge(1)).String())
	ts.Setenv("VM", m.world.Guest.VM.String())
	ts.Setenv("NOW", m.world.Now.Format(time.RFC3339))
}

// web serves certificates on loopback, and writes EK certificates that say that
// their issuer's is there: ek-issuer.pem where it is, ek-missing.pem, ek-other.pem
// and ek-page.pem where there is none, another one and none at all, ek-loop.pem,
// ek-silent.pem, ek-nowhere.pem, ek-crl.pem with revocation lists too, ek-nocrl.pem whose list is missing, and ek-root.pem, whose issuer is a root.
func web(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: web")
	}
	w, err := testlab.NewWorld()
	ts.Check(err)
	rootKey, root, err := selfSigned()
	ts.Check(err)
	silence := make(chan struct{})
	mux := http.NewServeMux()
	answer := func(path string, body []byte) {
		mux.HandleFunc(path, func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(body) })
	}
	answer("/issuer", w.Maker.Issuer.Raw)
	answer("/root", root.Raw)
	answer("/other", w.Maker.Root.Raw)
	answer("/page", []byte("<html>moved</html>"))
	list, err := w.Maker.CRL(false, 1, time.Now(), nil)
	ts.Check(err)
	answer("/list", list)
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-silence:
		}
	})
	server := httptest.NewServer(mux)
	ts.Defer(func() { close(silence); server.Close() })
	for _, name := range []string{"issuer", "missing", "other", "page", "loop", "silent", "nowhere", "crl", "nocrl"} {
		cert, err := w.Maker.EKCertificate(w.Host.EK, time.Now(), func(c *x509.Certificate) {
			switch name {
			case "nowhere":
			case "crl", "nocrl":
				c.IssuingCertificateURL = []string{server.URL + "/issuer"}
				c.CRLDistributionPoints = []string{"ldap://directory.example/list", server.URL + map[string]string{"crl": "/list", "nocrl": "/page"}[name]}
			default:
				c.IssuingCertificateURL = []string{"ldap://directory.example/issuer", server.URL + "/" + name}
			}
		})
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs("ek-"+name+".pem"), pemOf(cert), 0o600))
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(9), NotAfter: time.Now().Add(time.Hour), IssuingCertificateURL: []string{server.URL + "/root"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, root, w.Host.EK.Signer.Public(), rootKey)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("ek-root.pem"), pemOf(cert), 0o600))
}

func selfSigned() (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Root"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return key, cert, err
}
