package keylime

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/deepattest/deepattest/policy"
)

// Limits of a spool. A verifier that is away for days gets what is new when it comes
// back, not every verdict in between.
const (
	MaxSpool     = 32                 // results that wait
	MaxSpoolAge  = 7 * 24 * time.Hour // after that a verdict is history
	maxDelivered = 256                // ids that are remembered
	maxParcel    = policy.MaxResult + 64<<10

	firstBackoff = time.Minute
	lastBackoff  = time.Hour
)

// Spool is a folder of results that could not be delivered yet. Files are written
// whole or not at all; several programs may use it, one at a time.
type Spool struct {
	dir string
	now func() time.Time
}

// Parcel is a result on its way.
type Parcel struct {
	ID     string         `json:"id"` // SHA-256 of agent id and result
	Agent  string         `json:"agent"`
	Queued time.Time      `json:"queued"`
	Tries  int            `json:"tries"`
	Next   time.Time      `json:"next"`                // not before this
	Last   string         `json:"lastError,omitempty"` // why the last try failed
	Result jsontext.Value `json:"result"`
}

// Decode returns the result.
func (p *Parcel) Decode() (*policy.Result, error) { return policy.DecodeResult(p.Result) }

// OpenSpool opens a folder and makes it if it is not there. now is time.Now.
func OpenSpool(dir string, now func() time.Time) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return &Spool{dir, now}, nil
}

// Put keeps a result for delivery to an agent's verifier, and remembers the newest of all.
// A result that waits already or was delivered before changes nothing: false. When the
// spool is full the oldest one makes room.
func (s *Spool) Put(r *policy.Result, agentID string) (bool, error) {
	if err := agentPath(agentID); err != nil {
		return false, err
	}
	data, err := r.Encode()
	if err != nil {
		return false, err
	}
	sum := sha256.Sum256(append([]byte(agentID+"\x00"), data...))
	now := s.now().UTC().Truncate(time.Second)
	p := &Parcel{ID: fmt.Sprintf("%x", sum), Agent: agentID, Queued: now, Next: now, Result: data}
	added := false
	err = s.locked(func() error {
		if err := s.keepNewest(r, data); err != nil {
			return err
		}
		done, err := s.delivered()
		if err != nil || slices.Contains(done, p.ID) {
			return err
		}
		list, broken := s.list()
		if slices.ContainsFunc(list, func(o *Parcel) bool { return o.ID == p.ID }) {
			return broken
		}
		for len(list) >= MaxSpool {
			if err := os.Remove(s.file(list[0].ID)); err != nil {
				return fmt.Errorf("spool: %w", err)
			}
			list = list[1:]
		}
		if err := s.write(p); err != nil {
			return err
		}
		added = true
		return broken
	})
	return added, err
}

// keepNewest remembers a result that was found later than the one remembered. Results are
// dated to the second: of two of the same one, a trusted verdict does not count.
func (s *Spool) keepNewest(r *policy.Result, data []byte) error {
	old, err := s.Newest()
	if err != nil || old != nil && (old.Now.After(r.Now) || old.Now.Equal(r.Now) && r.Verdict == policy.Trusted) {
		return err
	}
	return s.replace("newest", data)
}

// Newest is the result that was found last among all that were put here, delivered or
// not; nil when there was none. What the machine is now, it says and no older one.
func (s *Spool) Newest() (*policy.Result, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, "newest"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	r, err := policy.DecodeResult(data)
	if err != nil {
		return nil, fmt.Errorf("spool: %s: %w; remove it", filepath.Join(s.dir, "newest"), err)
	}
	return r, nil
}

// Waiting lists what has not been delivered, oldest first. What cannot be read is left
// out and reported in the error.
func (s *Spool) Waiting() ([]*Parcel, error) {
	var list []*Parcel
	err := s.locked(func() error {
		var broken error
		list, broken = s.list()
		return broken
	})
	return list, err
}

// Deliver tries to deliver what is due, oldest first, and returns how many results were
// delivered. One that fails waits longer each time: a minute, two, at most an hour, or
// what the verifier asks for. After a failure the rest is left for the next run, as the
// verifier is the same. The error is the failure's, or reports what was given up.
func (s *Spool) Deliver(ctx context.Context, deliver func(context.Context, *Parcel) error) (int, error) {
	n := 0
	err := s.locked(func() error {
		list, errs := s.list()
		for _, p := range list {
			now := s.now()
			if now.Sub(p.Queued) > MaxSpoolAge {
				errs = errors.Join(errs, fmt.Errorf("spool: result of %s is given up after %d tries: %s", instant(p.Queued), p.Tries, p.Last), os.Remove(s.file(p.ID)))
				continue
			}
			if now.Before(p.Next) {
				continue
			}
			if err := deliver(ctx, p); err != nil {
				return errors.Join(errs, err, s.postpone(p, err))
			}
			// Remembered first: a crash in between delivers once.
			if err := errors.Join(s.remember(p.ID), os.Remove(s.file(p.ID))); err != nil {
				return errors.Join(errs, err)
			}
			n++
		}
		return errs
	})
	return n, err
}

// postpone keeps a parcel for a later try.
func (s *Spool) postpone(p *Parcel, cause error) error {
	wait := min(firstBackoff<<min(p.Tries, 10), lastBackoff)
	var e *Error
	if errors.As(cause, &e) && e.RetryAfter > wait {
		wait = min(e.RetryAfter, MaxSpoolAge)
	}
	p.Tries++
	p.Next = s.now().UTC().Truncate(time.Second).Add(wait)
	p.Last = printable(cause.Error())
	return s.write(p)
}

func (s *Spool) file(id string) string { return filepath.Join(s.dir, id+".json") }

// delivered lists the ids of what was delivered, oldest first.
func (s *Spool) delivered() ([]string, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, "delivered"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return strings.Fields(string(data)), nil
}

func (s *Spool) remember(id string) error {
	list, err := s.delivered()
	if err != nil {
		return err
	}
	list = append(list, id)
	list = list[max(0, len(list)-maxDelivered):]
	return s.replace("delivered", []byte(strings.Join(list, "\n")+"\n"))
}

func (s *Spool) write(p *Parcel) error {
	data, err := json.Marshal(p, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return s.replace(p.ID+".json", data)
}

// replace writes a whole file or none.
func (s *Spool) replace(name string, data []byte) error {
	f, err := os.CreateTemp(s.dir, ".new")
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, name))
	}
	if err != nil {
		return fmt.Errorf("spool: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// list reads the parcels, oldest first.
func (s *Spool) list() ([]*Parcel, error) {
	names, err := filepath.Glob(filepath.Join(s.dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	var list []*Parcel
	var broken error
	for _, name := range names {
		p, err := readParcel(name)
		if err != nil {
			broken = errors.Join(broken, err)
			continue
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *Parcel) int { return cmp.Or(a.Queued.Compare(b.Queued), strings.Compare(a.ID, b.ID)) })
	return list, broken
}

func readParcel(name string) (*Parcel, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxParcel {
		return nil, fmt.Errorf("spool: %s is not a result that waits; remove it", name)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	var p Parcel
	if err := json.Unmarshal(data, &p, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("spool: %s: %w; remove it", name, err)
	}
	if filepath.Base(name) != p.ID+".json" || agentPath(p.Agent) != nil {
		return nil, fmt.Errorf("spool: %s is another file renamed; remove it", name)
	}
	return &p, nil
}

// errSpoolBusy reports another program that uses the spool.
var errSpoolBusy = errors.New("spool: another program delivers from it; try again later")

// locked runs f while no other program uses the spool.
func (s *Spool) locked(f func() error) (err error) {
	lock, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }() // which lets go of the lock
	switch err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return errSpoolBusy
	case err != nil:
		return fmt.Errorf("spool: lock: %w", err)
	}
	return f()
}
