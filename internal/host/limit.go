package host

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits bound what guests can make the service do. Zero fields take the value of
// DefaultLimits.
type Limits struct {
	Connections int           // open at once, over all listeners; more wait to be accepted
	Quotes      int           // requests that wait for a quote; more get 503
	Tasks       int           // other TPM work that waits; more gets 503
	TPM         time.Duration // one piece of TPM work
	Session     time.Duration // validity of a session
	Read        time.Duration // reading one request
	Write       time.Duration // answering it, the wait for the TPM included
	WriteLog    time.Duration // sending a log
	Shutdown    time.Duration // finishing requests after the context's end

	// Per VM, and per address for activations: so many at once, and one more each
	// interval; more get 429.
	Burst    int
	Interval time.Duration
}

// DefaultLimits suit a host with some hundred guests.
func DefaultLimits() Limits {
	return Limits{
		Connections: 1024,
		Quotes:      1024,
		Tasks:       32,
		TPM:         30 * time.Second,
		Session:     2 * time.Minute,
		Read:        10 * time.Second,
		Write:       60 * time.Second,
		WriteLog:    5 * time.Minute,
		Shutdown:    10 * time.Second,
		Burst:       10,
		Interval:    6 * time.Second,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, n := range []struct{ set, standard *int }{
		{&l.Connections, &d.Connections}, {&l.Quotes, &d.Quotes}, {&l.Tasks, &d.Tasks}, {&l.Burst, &d.Burst},
	} {
		if *n.set <= 0 {
			*n.set = *n.standard
		}
	}
	for _, t := range []struct{ set, standard *time.Duration }{
		{&l.TPM, &d.TPM}, {&l.Session, &d.Session}, {&l.Read, &d.Read}, {&l.Write, &d.Write},
		{&l.WriteLog, &d.WriteLog}, {&l.Shutdown, &d.Shutdown}, {&l.Interval, &d.Interval},
	} {
		if *t.set <= 0 {
			*t.set = *t.standard
		}
	}
	return l
}

// rates is a token bucket for each key, kept as the time at which the bucket is
// full again (the generic cell rate algorithm, ITU-T I.371, annex A).
type rates struct {
	burst    int
	interval time.Duration
	mu       sync.Mutex
	full     map[string]time.Time
}

// maxRates bounds the keys that are remembered. Registered VMs stay far below.
const maxRates = 8192

func newRates(l Limits) *rates {
	return &rates{burst: l.Burst, interval: l.Interval, full: make(map[string]time.Time)}
}

// take reports whether a key may act now, else how long it has to wait.
func (r *rates) take(key string, now time.Time) (wait time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	full := r.full[key]
	if full.Before(now) {
		full = now
	}
	full = full.Add(r.interval)
	if wait = full.Sub(now) - time.Duration(r.burst)*r.interval; wait > 0 {
		return wait, false
	}
	if _, known := r.full[key]; !known && len(r.full) >= maxRates {
		for k, t := range r.full {
			if !t.After(now) {
				delete(r.full, k)
			}
		}
		if len(r.full) >= maxRates {
			return r.interval, false
		}
	}
	r.full[key] = full
	return 0, true
}

// network is the key of a caller without a VM: its address, of which one IPv6 user
// has a /64, or "local" for a unix socket.
func network(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return "local"
	}
	addr := ap.Addr().Unmap()
	if addr.Is6() {
		p, _ := addr.WithZone("").Prefix(64)
		return p.String()
	}
	return addr.String()
}

// limitedListener accepts as long as fewer connections are open than there are
// slots, which several listeners may share.
type limitedListener struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

func limitListener(l net.Listener, slots chan struct{}) *limitedListener {
	return &limitedListener{Listener: l, slots: slots, closed: make(chan struct{})}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, slots: l.slots}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.slots })
	return err
}
