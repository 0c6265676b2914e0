package libvirt

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/quote"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// follower is a registry that follows a daemon, with its log.
type follower struct {
	*Registry
	mu    sync.Mutex
	lines []string
	skew  time.Duration // of its clock
	noCA  error         // why there is no CA
}

func follow(t testing.TB, d *daemon) *follower {
	t.Helper()
	f := &follower{}
	r, err := New(Options{
		URI: "qemu:///system?socket=" + d.path, Issuers: f.issuers,
		Now: func() time.Time { f.mu.Lock(); defer f.mu.Unlock(); return time.Now().Add(f.skew) },
		Log: func(line string) { f.mu.Lock(); defer f.mu.Unlock(); f.lines = append(f.lines, line) },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Registry = r
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

func (f *follower) issuers() ([]*x509.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []*x509.Certificate{{}}, f.noCA
}

func (f *follower) log() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.lines, "\n")
}

// state is what a lookup says: the subject, "unknown VM", or "unavailable".
func (f *follower) state(vm quote.UUID) string {
	ek, err := f.Lookup(context.Background(), vm)
	switch {
	case errors.Is(err, host.ErrUnknownVM):
		return "unknown VM"
	case err != nil:
		return "unavailable"
	}
	return ek.Certified.Subject
}

// until waits for a state: what the daemon says takes a moment to arrive.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (f *follower) until(t testing.TB, vm quote.UUID, want string) {
	t.Helper()
	until(t, "VM "+vm.String()+" is "+want+", was "+f.state(vm), func() bool { return f.state(vm) == want })
}

var one, two = quote.UUID{1}, quote.UUID{2}

// VMs are known from their start to their stop, whoever stops them.
func TestFollow(t *testing.T) {
	d := newDaemon(t)
	d.vms[one] = fakeVM{"instance-00000001", 3, emulated}
	d.start(t)
	f := follow(t, d)
	subject := "instance-00000001:" + one.String()
	f.until(t, one, subject)
	if f.state(two) != "unknown VM" {
		t.Errorf("a VM that is not here: %s", f.state(two))
	}
	d.set(two, fakeVM{"instance-00000002", 4, emulated}, 2, 1)
	f.until(t, two, "instance-00000002:"+two.String())
	f.mu.Lock()
	f.noCA = errors.New("no vTPM was made here yet")
	f.mu.Unlock()
	if _, err := f.Lookup(t.Context(), one); err == nil || !strings.Contains(err.Error(), "no vTPM was made") || errors.Is(err, host.ErrUnknownVM) {
		t.Errorf("without a CA: %v", err)
	}
	f.mu.Lock()
	f.noCA = nil
	f.mu.Unlock()
	d.set(one, fakeVM{}, 5, 3)
	f.until(t, one, "unknown VM")
	d.set(one, fakeVM{"renamed", 5, emulated}, 2, 0)
	f.until(t, one, "renamed:"+one.String())
	d.set(two, fakeVM{"instance-00000002", 9, ""}, 2, 0) // restarted without a vTPM
	f.until(t, two, "unknown VM")
	for _, want := range []string{"(instance-00000001) left for another host", "(instance-00000002) arrived from another host", "(renamed) started"} {
		if !strings.Contains(f.log(), want) {
			t.Errorf("the log lacks %q:\n%s", want, f.log())
		}
	}
}

// A VM that is stopped is unknown with the event, before the daemon is asked again.
func TestEventDropsAtOnce(t *testing.T) {
	d := newDaemon(t)
	d.vms[one] = fakeVM{"a", 1, emulated}
	d.start(t)
	f := follow(t, d)
	f.until(t, one, "a:"+one.String())
	d.mu.Lock()
	d.mute = true // from now on only events come
	d.mu.Unlock()
	d.set(one, fakeVM{}, 5, 0)
	f.until(t, one, "unknown VM")
}

// Without the daemon nothing is known, and with it again all is.
func TestLoss(t *testing.T) {
	d := newDaemon(t)
	f := follow(t, d)
	until(t, "a daemon is missed", func() bool { return strings.Contains(f.log(), "no daemon") })
	if _, err := f.Lookup(t.Context(), one); err == nil || !strings.Contains(err.Error(), "libvirtd") || errors.Is(err, host.ErrUnknownVM) {
		t.Errorf("no daemon: %v", err)
	}
	d.vms[one] = fakeVM{"a", 1, emulated}
	d.start(t)
	f.until(t, one, "a:"+one.String())
	d.stop()
	f.until(t, one, "unavailable")
	if _, err := f.VMs(t.Context()); err == nil {
		t.Error("a list without a daemon")
	}
	d.vms = map[quote.UUID]fakeVM{two: {"b", 1, emulated}}
	d.start(t)
	f.until(t, two, "b:"+two.String())
	if f.state(one) != "unknown VM" {
		t.Errorf("a VM of before: %s", f.state(one))
	}
}

// A daemon that hangs is one that is lost, and an old answer is none.
func TestHang(t *testing.T) {
	d := newDaemon(t)
	d.vms[one] = fakeVM{"a", 1, emulated}
	d.start(t)
	f := follow(t, d)
	f.until(t, one, "a:"+one.String())
	d.mu.Lock()
	d.mute = true
	d.mu.Unlock()
	f.mu.Lock()
	f.skew = maxAge + time.Minute
	f.mu.Unlock()
	if f.state(one) != "unavailable" {
		t.Errorf("an answer of a minute ago: %s", f.state(one))
	}
	f.mu.Lock()
	f.skew = 0
	f.mu.Unlock()
	f.until(t, one, "unavailable")
	d.mu.Lock()
	d.mute = false
	d.mu.Unlock()
	f.until(t, one, "a:"+one.String())
}

// What cannot be understood is unknown, not guessed.
func TestBrokenXML(t *testing.T) {
	d := newDaemon(t)
	d.vms[one] = fakeVM{"a", 1, emulated}
	d.broken = "<domain><devices>"
	d.start(t)
	f := follow(t, d)
	until(t, "the fault is noted", func() bool { return strings.Contains(f.log(), "XML") })
	if f.state(one) != "unavailable" {
		t.Errorf("state %s", f.state(one))
	}
}

func TestVMs(t *testing.T) {
	d := newDaemon(t)
	d.vms[one] = fakeVM{"b", 1, emulated}
	d.vms[two] = fakeVM{"a", 2, `<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>`}
	d.start(t)
	f := follow(t, d)
	f.until(t, one, "b:"+one.String())
	list, err := f.VMs(t.Context())
	if err != nil || len(list) != 2 || list[0].Name != "a" || !strings.Contains(list[0].Known, "not vouched for") || list[1].ID != one || !strings.Contains(list[1].Known, "b:"+one.String()) {
		t.Errorf("%+v, %v", list, err)
	}
	if f.state(two) != "unknown VM" {
		t.Errorf("a VM with the host's own TPM: %s", f.state(two))
	}
}

// An unchanged VM is not asked for again.
func TestFewQuestions(t *testing.T) {
	d := newDaemon(t)
	d.vms[one] = fakeVM{"a", 1, emulated}
	d.start(t)
	f := follow(t, d)
	f.until(t, one, "a:"+one.String())
	d.set(two, fakeVM{"b", 2, emulated}, 2, 0)
	f.until(t, two, "b:"+two.String())
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.xmls != 2 || d.lists < 2 {
		t.Errorf("%d lists, %d XMLs for two VMs", d.lists, d.xmls)
	}
}

func TestNew(t *testing.T) {
	good := Options{URI: DefaultURI, Issuers: (&follower{}).issuers, Now: time.Now}
	r, err := New(good)
	if err != nil || r.driver != "qemu:///system" || r.paths[0] != "/run/libvirt/virtqemud-sock-ro" {
		t.Errorf("%+v, %v", r, err)
	}
	for name, edit := range map[string]func(*Options){
		"another host":  func(o *Options) { o.URI = "qemu+ssh://host/system" },
		"a host's name": func(o *Options) { o.URI = "qemu://host/system" },
		"no driver":     func(o *Options) { o.URI = "/run/libvirt/libvirt-sock" },
		"no URI":        func(o *Options) { o.URI = "" },
		"malformed":     func(o *Options) { o.URI = "qemu:///\x00" },
		"no CA":         func(o *Options) { o.Issuers = nil },
		"no clock":      func(o *Options) { o.Now = nil },
	} {
		o := good
		edit(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), "libvirt") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzXML(f *testing.F) {
	f.Add("<domain><devices>" + emulated + "</devices></domain>")
	f.Add("<domain><devices><tpm/><tpm><backend type='emulator'/></tpm></devices></domain>")
	f.Fuzz(func(t *testing.T, text string) {
		if v, err := vtpmOf(text); err == nil && v != "" && !strings.Contains(text, "emulator") {
			t.Errorf("vTPM %q", v)
		}
	})
}
