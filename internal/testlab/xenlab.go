package testlab

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/internal/xen"
	"github.com/deepattest/deepattest/quote"
)

// XenLab is a running fake Xen host: a physical TPM 1.2 under a fake vtpmmgr, the
// vTPM of a control domain, and those of two guests.
type XenLab struct {
	Control, Guest, Other *XenVTPM
	Manager               *XenManager
	Enrolled              *xen.Enrolled // of the guests' group, over the control domain's vTPM
	Root, Issuer          *x509.Certificate

	hw      xenHardware
	closers []func() error
}

// XenLabOptions say what StartXenLab makes.
type XenLabOptions struct {
	Name       string // of the host; "" is xen-a
	Software   bool   // keys in software in the place of two swtpm, for machines without
	Unmeasured bool   // nothing above the firmware is measured
}

// PCRs that the lab's guests have deep quoted, and their owner's password.
const xenOwner = "guest owner"

// XenGuestPCRs and XenHostPCRs are the PCRs that the lab's evidence covers.
func XenGuestPCRs() []int { return []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} }

// XenHostPCRs is XenGuestPCRs for the host.
func XenHostPCRs() []int {
	return []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19}
}

// OwnerSecret is the secret of the owner of the lab's guests' vTPMs.
func (l *XenLab) OwnerSecret() []byte {
	d := sha1.Sum([]byte(xenOwner))
	return d[:]
}

// StartXenLab runs a host. dir holds the state of its software TPMs. ctx limits the
// start only; Close ends everything.
func StartXenLab(ctx context.Context, dir string, o XenLabOptions) (*XenLab, error) {
	if o.Name == "" {
		o.Name = "xen-a"
	}
	l := &XenLab{}
	if err := l.start(ctx, dir, o); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *XenLab) start(ctx context.Context, dir string, o XenLabOptions) error {
	ek, err := l.hardware(ctx, dir, o)
	if err != nil {
		return err
	}
	if err := l.boot(ctx, o); err != nil {
		return err
	}
	l.Manager = &XenManager{hw: l.hw}
	if l.Control, err = l.vtpm(&XenVTPM{Label: "system_u:system_r:domC_t", admin: true, virt: newSoftVirtual()}); err != nil {
		return err
	}
	c, err := xen.Open(ctx, l.Control.Address)
	if err != nil {
		return err
	}
	defer c.Close()
	m := xen.NewManager(c)
	l.Enrolled, err = xen.Enroll(ctx, m, xen.EnrollConfig{
		Name: o.Name, TPM: quote.TPM{Manufacturer: "IBM", Model: "software TPM 1.2", Firmware: "18.158"}, EK: ek,
	}, rand.Reader)
	if err != nil {
		return err
	}
	if _, err := m.NewGroup(ctx, [20]byte{}, nil); err != nil {
		return err
	}
	for _, g := range []struct {
		at   **XenVTPM
		name string
		real bool
	}{{&l.Guest, "guest-a", !o.Software}, {&l.Other, "guest-b", false}} {
		f := &XenVTPM{Label: "system_u:system_r:vtpm_t", group: int(l.Enrolled.Group), virt: newSoftVirtual()}
		if f.VM, err = m.NewVTPM(ctx, l.Enrolled.Group, quote.UUID{}); err != nil {
			return err
		}
		if g.real {
			if f.virt, err = startVirtual(ctx, filepath.Join(dir, g.name)); err != nil {
				return err
			}
		}
		if *g.at, err = l.vtpm(f); err != nil {
			return err
		}
		for n, what := range map[int]string{4: "kernel", 5: "command line and initrd"} {
			if _, err := f.extend(n, sha1.Sum([]byte(what+" of "+g.name))); err != nil {
				return err
			}
		}
	}
	return nil
}

// hardware starts the physical TPM and reads its endorsement key, as has to be done
// before Xen starts.
func (l *XenLab) hardware(ctx context.Context, dir string, o XenLabOptions) (ek quote.EK, err error) {
	if o.Software {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return ek, err
		}
		keys, err := XenKeys()
		if err != nil {
			return ek, err
		}
		maker, err := newXenMaker(keys["xen root"], keys["xen issuer"], Now())
		if err != nil {
			return ek, err
		}
		cert, err := maker.EKCertificate(&key.PublicKey, Now(), XenCertOptions{})
		l.hw, l.Root, l.Issuer = newSoftHardware(key), maker.Root, maker.Issuer
		return quote.EK{Public: endorsementPubkey(&key.PublicKey), Certificates: [][]byte{cert}, Chain: [][]byte{maker.Issuer.Raw}}, err
	}
	const owner = "vtpmmgr"
	ca := NewLocalCA(filepath.Join(dir, "maker"))
	s, err := StartSWTPM(ctx, filepath.Join(dir, "physical"), SWTPMOptions{V12: true, CA: ca, Owner: owner})
	if err != nil {
		return ek, err
	}
	c, err := xen.Open(ctx, s.Address)
	if err != nil {
		return ek, errors.Join(err, s.Stop())
	}
	secret := sha1.Sum([]byte(owner))
	h := &swtpmHardware{swtpm: s, c: c, owner: secret[:]}
	l.hw, l.closers = h, append(l.closers, h.close)
	if ek.Public, err = c.ReadEK(ctx, h.owner); err != nil {
		return ek, err
	}
	cert, err := c.EKCertificate(ctx, h.owner)
	if err != nil {
		return ek, err
	}
	if l.Root, err = ca.Root(); err != nil {
		return ek, err
	}
	l.Issuer, err = ca.Issuer()
	ek.Certificates, ek.Chain = [][]byte{cert}, [][]byte{l.Issuer.Raw}
	return ek, err
}

// boot measures as firmware, TrustedGRUB2 and tboot do.
func (l *XenLab) boot(ctx context.Context, o XenLabOptions) error {
	pcrs := []int{0, 1, 2, 3, 4, 5, 6, 7}
	if !o.Unmeasured {
		pcrs = append(pcrs, 11, 13, 14, 17, 18, 19)
	}
	for _, n := range pcrs {
		if err := l.hw.extend(ctx, n, sha1.Sum(fmt.Appendf(nil, "measured into PCR %d", n))); err != nil {
			return fmt.Errorf("boot: PCR %d: %w", n, err)
		}
	}
	return nil
}

// vtpm starts a vTPM of the lab.
func (l *XenLab) vtpm(f *XenVTPM) (*XenVTPM, error) {
	f.mgr, f.secret = l.Manager, l.OwnerSecret()
	if err := f.listen(); err != nil {
		return nil, errors.Join(err, f.virt.close())
	}
	l.closers = append(l.closers, f.Close)
	return f, nil
}

func startVirtual(ctx context.Context, dir string) (xenVirtual, error) {
	s, err := StartSWTPM(ctx, dir, SWTPMOptions{V12: true, Owner: xenOwner})
	if err != nil {
		return nil, err
	}
	conn, err := tpm.Dial(ctx, s.Address)
	if err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return &swtpmVirtual{swtpm: s, conn: conn}, nil
}

// Close ends all that runs.
func (l *XenLab) Close() error {
	var errs []error
	for _, end := range slices.Backward(l.closers) {
		errs = append(errs, end())
	}
	l.closers = nil
	return errors.Join(errs...)
}

// Evidence takes evidence in a guest.
func (l *XenLab) Evidence(ctx context.Context, f *XenVTPM, challenge []byte) (*quote.Bundle, error) {
	c, err := xen.Open(ctx, f.Address)
	if err != nil {
		return nil, err
	}
	b, err := xen.Evidence(ctx, l.Config(c, f, challenge))
	return b, errors.Join(err, c.Close())
}

// Config is what taking evidence in a guest takes.
func (l *XenLab) Config(c *xen.Client, f *XenVTPM, challenge []byte) xen.Config {
	return xen.Config{
		TPM: c, Challenge: challenge, VM: f.VM, Identity: &l.Enrolled.Identity, Guest: XenGuestPCRs(), Host: XenHostPCRs(),
		Secret:  l.OwnerSecret(),
		Context: quote.Context{Collector: "testlab", Collected: Now().Format(time.RFC3339), GuestName: "guest-a"},
	}
}
