package demo

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// scene is what an attacker has to work with: the stage, an honest bundle for the
// challenge that counts, and one for an earlier challenge.
type scene struct {
	*stage
	challenge []byte
	good, old *quote.Bundle
}

// attack is one way to cheat. It returns the evidence that the attacker shows.
type attack struct {
	name  string
	how   string // what the attacker does, for the table
	want  policy.Verdict
	catch string // the check that must catch it
	run   func(context.Context, *scene) (*quote.Bundle, error)
}

// attacks lists every attack. Those that reboot a machine into another state come
// last, because the machine stays in it.
func attacks() []attack {
	const rejected, untrusted = policy.Rejected, policy.Untrusted
	return []attack{
		{"relayed", "shows the host's quote for another guest", rejected, "link.guest-key", relayed},
		{"other-guest-ak", "shows another guest's key and quote", rejected, "link.guest-key", otherGuestAK},
		{"replay", "shows honest evidence of an earlier challenge", rejected, "guest.quote.nonce", replay},
		{"swapped-guest-quote", "exchanges the guest's quote after the host signed", rejected, "link.guest-quote", swappedQuote},
		{"forged-proof", "invents the Merkle proof", rejected, "link.inclusion", forgedProof},
		{"relabelled-pcr", "shows PCR 7 under the number of PCR 4", rejected, "guest.quote.pcr-digest", relabelledPCR},
		{"unsigned-pcr", "adds a PCR that the quote does not cover", rejected, "guest.quote.selection", unsignedPCR},
		{"empty-selection", "quotes no PCR at all", rejected, "guest.quote.selection", emptySelection},
		{"bank-downgrade", "quotes the SHA-1 bank only", rejected, "guest.quote.bank", bankDowngrade},
		{"unrestricted-ak", "signs a made-up quote with an ordinary key", rejected, "guest.ak.attributes", unrestrictedAK},
		{"not-a-tpm", "signs a structure that no TPM made", rejected, "guest.quote.magic", notATPM},
		{"software-ek", "plays a host with keys in software", rejected, "host.ek.chain", softwareEK},
		{"cuckoo", "uses a genuine TPM of a host that is not enrolled", rejected, "host.ek.enrolled", cuckoo},
		{"truncated-log", "cuts the last events off the guest's log", rejected, "guest.log.replay", truncatedLog},
		{"stripped-log", "removes all events of PCR 4 from the log", rejected, "guest.log.coverage", strippedLog},
		{"rewritten-log", "rewrites what an event of the log shows", rejected, "guest.log.data", rewrittenLog},
		{"tampered-guest", "boots the guest with another command line", untrusted, "policy.guest.pcr.11", tamperedGuest},
		{"tampered-host", "boots the host with another command line", untrusted, "policy.host.pcr.8", tamperedHost},
	}
}

// clone copies a bundle so that an attack leaves the honest one alone.
func clone(b *quote.Bundle) (*quote.Bundle, error) {
	data, err := b.Encode()
	if err != nil {
		return nil, err
	}
	return quote.ParseBundle(data)
}

// bend returns an attack that changes a copy of the honest bundle.
func bend(s *scene, change func(*quote.Bundle) error) (*quote.Bundle, error) {
	b, err := clone(s.good)
	if err != nil {
		return nil, err
	}
	return b, change(b)
}

func relayed(ctx context.Context, s *scene) (*quote.Bundle, error) {
	theirs, err := s.attest(ctx, s.mallory, s.node, s.challenge, selection(quote.SHA256))
	if err != nil {
		return nil, err
	}
	return bend(s, func(b *quote.Bundle) error {
		b.Host, b.Link = theirs.Host, theirs.Link
		return nil
	})
}

func otherGuestAK(ctx context.Context, s *scene) (*quote.Bundle, error) {
	theirs, err := s.attest(ctx, s.mallory, s.node, s.challenge, selection(quote.SHA256))
	if err != nil {
		return nil, err
	}
	return bend(s, func(b *quote.Bundle) error {
		b.Guest = theirs.Guest
		return nil
	})
}

func replay(_ context.Context, s *scene) (*quote.Bundle, error) { return clone(s.old) }

func swappedQuote(ctx context.Context, s *scene) (*quote.Bundle, error) {
	later, err := s.attest(ctx, s.web, s.node, s.challenge, selection(quote.SHA256))
	if err != nil {
		return nil, err
	}
	return bend(s, func(b *quote.Bundle) error {
		b.Guest = later.Guest
		return nil
	})
}

func forgedProof(_ context.Context, s *scene) (*quote.Bundle, error) {
	return bend(s, func(b *quote.Bundle) error {
		node := make(quote.Hex, 32)
		_, err := rand.Read(node)
		b.Link.TreeSize, b.Link.LeafIndex, b.Link.Inclusion = 2, 0, []quote.Hex{node}
		return err
	})
}

func relabelledPCR(_ context.Context, s *scene) (*quote.Bundle, error) {
	return bend(s, func(b *quote.Bundle) error {
		bank := b.Guest.PCRs[quote.SHA256]
		bank[4] = bank[7]
		return nil
	})
}

func unsignedPCR(_ context.Context, s *scene) (*quote.Bundle, error) {
	return bend(s, func(b *quote.Bundle) error {
		bank := b.Guest.PCRs[quote.SHA256]
		bank[15] = bank[11]
		return nil
	})
}

func bankDowngrade(ctx context.Context, s *scene) (*quote.Bundle, error) {
	return s.attest(ctx, s.web, s.node, s.challenge, selection(quote.SHA1))
}

func cuckoo(ctx context.Context, s *scene) (*quote.Bundle, error) {
	return s.attest(ctx, s.web, s.stranger, s.challenge, selection(quote.SHA256))
}

// cutLog returns a log without the events that drop names.
func cutLog(log []byte, drop func(l *quote.EventLog, i int) bool) ([]byte, error) {
	l, err := quote.ParseEventLog(log)
	if err != nil {
		return nil, err
	}
	var out []byte
	for i := range l.Events {
		end := len(log)
		if i+1 < len(l.Events) {
			end = l.Events[i+1].Offset
		}
		if !drop(l, i) {
			out = append(out, log[l.Events[i].Offset:end]...)
		}
	}
	return out, nil
}

func truncatedLog(_ context.Context, s *scene) (*quote.Bundle, error) {
	return bend(s, func(b *quote.Bundle) (err error) {
		// From the image that was started on.
		b.Guest.Logs.UEFI, err = cutLog(b.Guest.Logs.UEFI, func(l *quote.EventLog, i int) bool {
			return !slices.ContainsFunc(l.Events[i+1:], func(e quote.Event) bool { return e.PCR == 4 })
		})
		return err
	})
}

func strippedLog(_ context.Context, s *scene) (*quote.Bundle, error) {
	return bend(s, func(b *quote.Bundle) (err error) {
		b.Guest.Logs.UEFI, err = cutLog(b.Guest.Logs.UEFI, func(l *quote.EventLog, i int) bool {
			return l.Events[i].Extended() && l.Events[i].PCR == 4
		})
		return err
	})
}

func rewrittenLog(_ context.Context, s *scene) (*quote.Bundle, error) {
	return bend(s, func(b *quote.Bundle) error {
		l, err := quote.ParseEventLog(b.Guest.Logs.UEFI)
		if err != nil {
			return err
		}
		for i := range l.Events {
			// The SecureBoot variable's value is the last byte of its event.
			if e := &l.Events[i]; e.PCR == 7 && e.Type == quote.EventEFIVariableDriverConfig {
				e.Data[len(e.Data)-1] ^= 1 // shares memory with the log
				return nil
			}
		}
		return fmt.Errorf("the log has no Secure Boot variable")
	})
}

func tamperedGuest(ctx context.Context, s *scene) (*quote.Bundle, error) {
	if err := s.boot(ctx, s.web, "guest-cmdline.bin"); err != nil {
		return nil, err
	}
	b, err := s.attest(ctx, s.web, s.node, s.challenge, selection(quote.SHA256))
	if err != nil {
		return nil, err
	}
	return b, s.boot(ctx, s.web, "guest.bin")
}

func tamperedHost(ctx context.Context, s *scene) (*quote.Bundle, error) {
	if err := s.boot(ctx, s.node, "host-cmdline.bin"); err != nil {
		return nil, err
	}
	if err := s.serve(ctx, s.node); err != nil {
		return nil, err
	}
	return s.attest(ctx, s.web, s.node, s.challenge, selection(quote.SHA256))
}
