// Package state keeps what a machine's next attestation is compared with: its last
// result, and the last one that was trusted.
//
// The files are results as every other output is (policy.Result). Nothing signs
// them: whoever can write the folder can make the next comparison say nothing,
// which shows as not applicable and never as passed.
package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// DefaultDir is where the boot-time service keeps its state.
const DefaultDir = "/var/lib/deepattest"

const (
	lastFile     = "last.json"     // the last result, whatever it is
	acceptedFile = "accepted.json" // the last trusted result
)

// Dir is a folder with the state of one machine.
type Dir string

// Last returns the last result; nil without one.
func (d Dir) Last() (*policy.Result, error) { return d.read(lastFile) }

// Accepted returns the last trusted result; nil without one.
func (d Dir) Accepted() (*policy.Result, error) { return d.read(acceptedFile) }

func (d Dir) read(name string) (*policy.Result, error) {
	path := filepath.Join(string(d), name)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	r, err := policy.DecodeResult(data)
	if err != nil {
		return nil, fmt.Errorf("state: %s: %w; remove the file to start anew", path, err)
	}
	return r, nil
}

// Keep stores a result as the last one, and as the accepted one if it is trusted.
// write replaces a file as a whole.
func (d Dir) Keep(r *policy.Result, write func(path string, data []byte, mode fs.FileMode) error) error {
	data, err := r.Encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	files := []string{lastFile}
	if r.Verdict == policy.Trusted {
		files = []string{acceptedFile, lastFile}
	}
	for _, name := range files {
		if err := write(filepath.Join(string(d), name), data, 0o644); err != nil {
			return fmt.Errorf("state: %w", err)
		}
	}
	return nil
}

// Previous is what an accepted result says of both layers' keys and counters, for
// verify.Options; nil for no result, or one without a host.
func Previous(r *policy.Result) *verify.Previous {
	if r == nil || r.Verdict != policy.Trusted {
		return nil
	}
	p := &verify.Previous{}
	if r.Cloud != nil {
		p.HostID = r.Cloud.HostID
	}
	for _, l := range r.Layers {
		switch {
		case l.Claims == nil:
		case l.Layer == verify.Host:
			p.HostEK, p.HostAK, p.HostClock = l.Claims.EK, l.Claims.AK, l.Claims.Clock
		case l.Layer == verify.Guest:
			p.GuestEK, p.GuestAK, p.GuestClock = l.Claims.EK, l.Claims.AK, l.Claims.Clock
		}
	}
	if len(p.HostAK) == 0 { // a guest under a deep quote has no key of its own
		return nil
	}
	return p
}
