// Package mix takes evidence of honest attestations apart and puts it together
// again in other ways: each part from a session of its own. Whatever comes of it, a
// verifier may trust it only when guest, host, challenge and boot are those of one
// session.
package mix

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
)

// What there is of each; sessions are all ways to choose one of each.
const (
	hosts      = 2
	guests     = 3
	challenges = 2
	boots      = 2
)

// xenPlain is link method xen-deep-quote in the form of Xen 4.5.
const xenPlain = quote.LinkXenDeepQuote + ", plain form"

// Session says which honest attestation something comes from.
type Session struct {
	Method                       string // how host and guest are linked
	Host, Guest, Challenge, Boot int    // numbers from 0; Boot is that of both machines
}

func (s Session) String() string {
	return fmt.Sprintf("%s: host %d, guest %d, challenge %d, boot %d", s.Method, s.Host, s.Guest, s.Challenge, s.Boot)
}

func (s Session) challenge() []byte { return testlab.Challenge(byte(s.Challenge + 1)) }

// sessions lists all of a method.
func sessions(method string) (list []Session) {
	for h := range hosts {
		for g := range guests {
			for c := range challenges {
				for b := range boots {
					list = append(list, Session{method, h, g, c, b})
				}
			}
		}
	}
	return list
}

// machines are those of the world with TPM 2.0, one for each boot.
type machines struct {
	world *testlab.World
	host  [hosts][boots]*testlab.Machine
	guest [guests][boots]*testlab.Machine
}

func newMachines() (*machines, error) {
	w, err := testlab.NewWorld()
	if err != nil {
		return nil, err
	}
	third := *w.Guest
	third.Name, third.VM = "guest-c", quote.UUID{0xc0, 15: 3}
	if third.EK, err = testlab.NewKey(testlab.EKTemplate("guest-c EK")); err != nil {
		return nil, err
	}
	if third.AK, err = testlab.NewKey(testlab.AKTemplate("guest-c AK")); err != nil {
		return nil, err
	}
	m := &machines{world: w}
	for n := range boots {
		for i, host := range []*testlab.Machine{w.Host, w.OtherHost} {
			if m.host[i][n], err = boot(*host, n); err != nil {
				return nil, err
			}
		}
		for i, guest := range []*testlab.Machine{w.Guest, w.OtherGuest, &third} {
			if m.guest[i][n], err = boot(*guest, n); err != nil {
				return nil, err
			}
			phase(m.guest[i][n], n)
		}
	}
	return m, nil
}

// boot starts a machine with logs of its own, as short as logs of all kinds can be.
func boot(m testlab.Machine, n int) (*testlab.Machine, error) {
	bank := make(map[int]quote.Hex)
	for i := range quote.NumPCRs {
		bank[i] = make(quote.Hex, sha256.Size)
	}
	m.PCRs = quote.PCRs{quote.SHA256: bank}
	m.Clock.ResetCount += uint32(n)
	m.Clock.Clock += uint64(n) * 1000
	separator := []byte{0, 0, 0, 0}
	this := fmt.Appendf(nil, "kernel of %s in boot %d", m.Name, n)
	err := m.Remeasure(func([]quote.Event) []quote.Event {
		var events []quote.Event
		for i := range 8 {
			events = append(events, testlab.MeasuredText(i, quote.EventSeparator, separator, separator))
		}
		return append(events, testlab.MeasuredText(4, quote.EventEFIBootServicesApplication, nil, this))
	})
	if err != nil {
		return nil, err
	}
	content := sha256.Sum256(this)
	return &m, m.MeasureFiles(testlab.File{Path: "/usr/bin/program", Digest: content[:]})
}

// phase has a guest's systemd measure into PCR 11, with its log.
func phase(m *testlab.Machine, n int) {
	word := fmt.Sprintf("%s-%d", m.Name, n)
	digest := sha256.Sum256([]byte(word))
	value := sha256.Sum256(append(make([]byte, sha256.Size), digest[:]...))
	m.PCRs[quote.SHA256][11] = value[:]
	m.Logs.Userspace = fmt.Appendf(nil, "\x1e{\"pcr\":11,\"digests\":[{\"hashAlg\":\"sha256\",\"digest\":%q}],\"content\":{\"string\":%q,\"bootId\":\"%032x\",\"eventType\":\"phase\"}}\n",
		hex.EncodeToString(digest[:]), word, n+1)
}
