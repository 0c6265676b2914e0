package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/guest/softtpm"
	"github.com/deepattest/deepattest/quote"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a host service on software keys with one VM, and that VM.
type world struct {
	tpm      *softtpm.TPM
	registry *memRegistry
	clock    *clock
	log      *lines
	server   *Server
	socket   string // "unix:..."
	https    string
	pin      string // fingerprint of https
	vm       quote.UUID
	guest    *softtpm.TPM
}

// newWorld starts a service; change may be nil.
func newWorld(t testing.TB, change func(*Config)) *world {
	t.Helper()
	w := &world{
		tpm:      newTPM(t),
		guest:    newTPM(t),
		registry: &memRegistry{eks: make(map[quote.UUID]*RegisteredEK)},
		clock:    &clock{now: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)},
		log:      &lines{},
	}
	w.vm = w.addVM(t, 1, w.guest)
	cfg := Config{
		TPM:       w.tpm,
		Keys:      keysOf(t, w.tpm),
		Registry:  w.registry,
		Selection: selection(t, "sha256:0,1,2,3,4,5,6,7,10"),
		Name:      "node-17",
		EventLog:  filepath.Join(t.TempDir(), "uefi"),
		IMA:       filepath.Join(t.TempDir(), "ima"),
		Now:       w.clock.Now,
		Rand:      rand.Reader,
		Log:       w.log.add,
	}
	write(t, cfg.EventLog, "host event log")
	write(t, cfg.IMA, "host ima list")
	cert, err := SelfSigned(time.Now(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	cfg.TLS, w.pin = ServerTLS(cert), Fingerprint(cert.Certificate[0])
	if change != nil {
		change(&cfg)
	}
	if w.server, err = NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	w.serve(t)
	return w
}

// serve runs the service until the test ends.
func (w *world) serve(t testing.TB) {
	dir, err := os.MkdirTemp("", "host") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	local, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.socket, w.https = "unix:"+path, "https://"+tcp.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(ctx, local, tcp) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		os.RemoveAll(dir)
	})
}

// client returns a client of the unix socket.
func (w *world) client(t testing.TB) *Client { return newClient(t, w.socket, Options{}) }

func newClient(t testing.TB, address string, o Options) *Client {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	c, err := NewClient(address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// addVM registers a TPM as that of a new VM.
func (w *world) addVM(t testing.TB, n byte, dev *softtpm.TPM) quote.UUID {
	t.Helper()
	vm := quote.UUID{0: 0xA0, 15: n}
	w.registry.set(vm, &RegisteredEK{Names: []quote.Hex{ekName(t, dev)}})
	return vm
}

// config collects the world's guest.
func (w *world) config(t testing.TB) guest.Config {
	return guest.Config{TPM: w.guest, Challenge: challenge(), Selection: selection(t, "sha256:0,7"), VM: w.vm}
}

// open opens a session for the world's guest and returns its token and secret.
func (w *world) open(t testing.TB, c *Client) (token string, secret []byte) {
	t.Helper()
	ek, ak := guestKeys(t, w.guest)
	s, err := c.Session(t.Context(), SessionRequest{VM: w.vm, EK: ek, AK: ak})
	if err != nil {
		t.Fatal(err)
	}
	k := keysOf(t, w.guest)
	if secret, err = w.guest.ActivateCredential(t.Context(), k.AK, k.EK, s.IDObject, s.EncryptedSecret); err != nil {
		t.Fatal(err)
	}
	return s.Session, secret
}

// ask is a request for a quote that the service would answer.
func ask(token string, secret []byte) QuoteRequest {
	d := sha256.Sum256([]byte("the guest's quote"))
	return QuoteRequest{Session: token, Secret: secret, Challenge: challenge(), GuestQuote: d[:]}
}

// checkBundle checks that the host's quote commits to this guest's quote.
func checkBundle(t testing.TB, b *quote.Bundle) {
	t.Helper()
	digest := b.Guest.Quote.Digest()
	if !bytes.Equal(b.Link.GuestQuote, digest[:]) || b.Link.Method != quote.LinkHostVouched || b.Link.VM != b.Context.VM {
		t.Errorf("link %+v is of another guest", b.Link)
	}
	for _, k := range []struct {
		public []byte
		name   quote.Hex
	}{{b.Guest.EK.Public, b.Link.GuestEK}, {b.Guest.AK.Public, b.Link.GuestAK}, {b.Host.AK.Public, b.Link.HostAK}} {
		if p, err := quote.ParsePublic(k.public); err != nil || !bytes.Equal(p.Name(), k.name) {
			t.Errorf("key named %s in the link: %v", k.name, err)
		}
	}
	checkQuoted(t, &Quoted{b.Host.Quote, b.Host.PCRs, b.Link}, b.Challenge)
}

// checkQuoted checks proof, qualifying data and PCR values.
func checkQuoted(t testing.TB, q *Quoted, challenge []byte) {
	t.Helper()
	root, err := q.Link.Root(challenge)
	if err != nil {
		t.Fatal(err)
	}
	a, err := quote.ParseQuote(q.Quote.Attest)
	if err != nil {
		t.Fatal(err)
	}
	if want := quote.HostQualifier(q.Link.TreeSize, root); !bytes.Equal(a.ExtraData, want) {
		t.Errorf("host quote over %x, want %x", a.ExtraData, want)
	}
	s, err := quote.ParseSignature(q.Quote.Signature)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := q.PCRs.Digest(s.Hash, a.Selection); err != nil || !bytes.Equal(d, a.PCRDigest) {
		t.Errorf("PCR values give %x, %v; quoted is %x", d, err, a.PCRDigest)
	}
}

func newTPM(t testing.TB) *softtpm.TPM {
	t.Helper()
	dev, err := softtpm.New()
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

func keysOf(t testing.TB, dev *softtpm.TPM) *Keys {
	t.Helper()
	ctx := context.Background()
	ek, err := dev.EK(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	ak, err := dev.CreateAK(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := dev.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &Keys{Info: info, EK: ek, AK: ak, Certificates: [][]byte{[]byte("EK certificate")}}
}

func guestKeys(t testing.TB, dev *softtpm.TPM) (ek, ak []byte) {
	k := keysOf(t, dev)
	return k.EK.Public, k.AK.Public
}

func ekName(t testing.TB, dev *softtpm.TPM) quote.Hex { return keysOf(t, dev).EK.Name }

func challenge() []byte { return bytes.Repeat([]byte{9}, quote.ChallengeSize) }

func selection(t testing.TB, text string) quote.Selection {
	t.Helper()
	sel, err := quote.ParseSelection(text)
	if err != nil {
		t.Fatal(err)
	}
	return sel
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// memRegistry is a registry in memory.
type memRegistry struct {
	mu      sync.Mutex
	eks     map[quote.UUID]*RegisteredEK
	err     error
	lookups int
	onLook  func(n int)
}

func (m *memRegistry) Lookup(_ context.Context, vm quote.UUID) (*RegisteredEK, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lookups++
	if m.onLook != nil {
		m.onLook(m.lookups)
	}
	if m.err != nil {
		return nil, m.err
	}
	if ek, ok := m.eks[vm]; ok {
		return ek, nil
	}
	return nil, ErrUnknownVM
}

func (m *memRegistry) set(vm quote.UUID, ek *RegisteredEK) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ek == nil {
		delete(m.eks, vm)
	} else {
		m.eks[vm] = ek
	}
}

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// lines is the operator's log.
type lines struct {
	mu   sync.Mutex
	text string
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += line + "\n"
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
