package vectors

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
)

// project is whose machines the world's guests are.
const project = "5667c1e2210c4d1e8a6c3c546f35769d"

// contextVectors are about hints: what nothing signs.
func contextVectors() []Vector {
	cloud := func(edit func(*Scene, *quote.Cloud)) func(*Scene) error {
		return func(s *Scene) error {
			s.Bundle.Context.Cloud = &quote.Cloud{
				Source: quote.CloudAPI, VM: s.World.Guest.VM, Project: project,
				HostID: hostID(s.World.Host), Image: "f68e06c1-5a0c-43ee-ba30-32f512fa2953", VTPM: "2.0",
			}
			if err := s.previous(s.World.Host); err != nil {
				return err
			}
			s.Options.Previous.HostID = hostID(s.World.Host)
			if edit != nil {
				edit(s, s.Bundle.Context.Cloud)
			}
			return nil
		}
	}
	certificate := func(vm func(*testlab.World) quote.UUID) func(*Scene) error {
		return func(s *Scene) error {
			m := s.World.Guest
			cert, err := s.World.Maker.EKCertificate(m.EK, s.World.Now, func(c *x509.Certificate) {
				c.Subject = pkix.Name{CommonName: "instance-00000008:" + vm(s.World).String()}
			})
			s.Bundle.Guest.EK.Certificates = [][]byte{cert}
			return err
		}
	}
	return []Vector{
		{
			Name: "ContextVMOther", Comment: "the VM calls itself by another uuid: a hint",
			Flags: []string{"Unsigned"}, Warns: []string{"context.instance"},
			change: func(s *Scene) error { s.Bundle.Context.VM = s.World.OtherGuest.VM; return nil },
		},
		{
			Name: "ContextVMUnknown", Comment: "the VM does not know its uuid",
			change: func(s *Scene) error { s.Bundle.Context.VM = quote.UUID{}; return nil },
		},
		{
			Name: "ContextCloud", Comment: "all that the cloud asserts agrees with the evidence",
			change: cloud(nil),
		},
		{
			Name: "ContextCloudVMOther", Comment: "the cloud names another instance: a hint",
			Flags: []string{"Unsigned"}, Warns: []string{"context.instance"},
			change: cloud(func(s *Scene, c *quote.Cloud) { c.VM = s.World.OtherGuest.VM }),
		},
		{
			Name: "ContextCloudNoVTPM", Comment: "the flavor asks for no vTPM, and there is one",
			Flags: []string{"Unsigned"}, Warns: []string{"context.vtpm"},
			change: cloud(func(_ *Scene, c *quote.Cloud) { c.VTPM = "none" }),
		},
		{
			Name: "ContextCloudHostOther", Comment: "the cloud says that the VM is on another host than the one that vouches",
			Flags: []string{"Unsigned"}, Warns: []string{"context.placement"},
			change: cloud(func(s *Scene, c *quote.Cloud) {
				c.HostID = hostID(s.World.OtherHost)
				s.Options.Previous.HostID = c.HostID
			}),
		},
		{
			Name: "ContextCloudMoved", Comment: "the cloud says that the VM moved since the last result",
			Flags: []string{"Unsigned"}, Warns: []string{"context.host-stable"},
			change: cloud(func(s *Scene, _ *quote.Cloud) { s.Options.Previous.HostID = hostID(s.World.OtherHost) }),
		},
		{
			Name: "ContextEKCertificate", Comment: "the vTPM's certificate names the VM, as swtpm writes it",
			change: certificate(func(w *testlab.World) quote.UUID { return w.Guest.VM }),
		},
		{
			Name: "ContextEKCertificateVMOther", Comment: "the vTPM's certificate names another VM: a hint",
			Flags: []string{"Unsigned"}, Warns: []string{"context.instance"},
			change: certificate(func(w *testlab.World) quote.UUID { return w.OtherGuest.VM }),
		},
	}
}

// hostID is Nova's name for a host to the world's project.
func hostID(host *testlab.Machine) string {
	return fmt.Sprintf("%x", sha256.Sum224([]byte(project+host.Name)))
}
