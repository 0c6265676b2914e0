package vectors

import (
	"bytes"
	"crypto/x509"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// keylimeVectors are about hosts that only quote: methods nonce-only and
// ek-certified.
func keylimeVectors() []Vector {
	unproven := []string{"host.quote.nonce"}
	nonce := func(v Vector, edit func(*carried) error) Vector {
		v.Name = "NonceOnly" + v.Name
		v.change = func(s *Scene) error {
			c := &carried{Scene: s}
			if err := c.pin(); err != nil {
				return err
			}
			if err := c.link(quote.LinkNonceOnly); err != nil {
				return err
			}
			return edit(c)
		}
		return v
	}
	certified := func(v Vector, before, after func(*carried) error) Vector {
		v.Name = "EKCertified" + v.Name
		nothing := func(*carried) error { return nil }
		if before == nil {
			before = nothing
		}
		if after == nil {
			after = nothing
		}
		v.change = func(s *Scene) error {
			c := &carried{Scene: s}
			for _, step := range []func(*carried) error{(*carried).certified, before, (*carried).certify, after} {
				if err := step(c); err != nil {
					return err
				}
			}
			return nil
		}
		return v
	}
	broken := func(name, comment string, before, after func(*carried) error) Vector {
		return certified(Vector{Name: name, Comment: comment, Flags: []string{"Relay"}, Fails: []string{"link.ek-certificate"}}, before, after)
	}
	registered := func(c *carried, ak *testlab.Key) error {
		ek, err := c.World.Host.EK.Name()
		if err != nil {
			return err
		}
		name, err := ak.Name()
		c.Options.Anchors.Hosts = nil
		c.Options.AnyHost = true
		c.Options.Anchors.Registered = []verify.Registration{{EK: ek, AK: name, Source: "Keylime registrar, agent host-a"}}
		return err
	}
	return []Vector{
		nonce(Vector{Name: "Good", Comment: "a host quoted over the leaf, and the policy accepts by name that nobody vouches for the guest; its key is pinned"},
			func(*carried) error { return nil }),
		nonce(Vector{Name: "Unpinned", Comment: "nobody the tenant trusts knows the guest's key", Flags: []string{"WeakLink"}, Undecided: []string{"guest.ak.bound"}},
			func(c *carried) error { c.Options.Anchors.Guests = nil; return nil }),
		nonce(Vector{Name: "PinnedAnywhere", Comment: "the pin names no VM, so the guest could call itself by any", Flags: []string{"WeakLink"}, Undecided: []string{"guest.ak.bound"}},
			func(c *carried) error { c.Options.Anchors.Guests[0].VM = quote.UUID{}; return nil }),
		nonce(Vector{Name: "NotAccepted", Comment: "the policy does not name nonce-only", Flags: []string{"WeakLink"}, Undecided: []string{"link.method"}},
			func(c *carried) error { c.Options.LinkMinimum = ""; return nil }),
		nonce(Vector{Name: "OtherGuest", Comment: "the host quoted over another guest's leaf", Flags: []string{"Relay"}, Fails: []string{"link.inclusion"}, Undecided: unproven},
			func(c *carried) error {
				right := c.Bundle.Link
				c.Bundle.Link.VM = c.World.OtherGuest.VM
				err := c.commit()
				c.Bundle.Link = right
				return err
			}),
		nonce(Vector{Name: "OtherGuestShown", Comment: "the host's quote is for the leaf of another guest, and its fields are shown", Flags: []string{"Relay"},
			Fails: []string{"link.guest-key", "link.guest-quote", "link.vm", "guest.ak.bound"}, Warns: []string{"context.instance"}},
			func(c *carried) error {
				w := *c.World
				w.Guest = w.OtherGuest
				b, err := w.Bundle(testlab.Challenge(1))
				if err != nil {
					return err
				}
				c.Bundle.Link = b.Link
				return c.link(quote.LinkNonceOnly)
			}),
		nonce(Vector{Name: "OtherChallenge", Comment: "the host quoted over this guest's leaf under another challenge", Flags: []string{"Replay"}, Fails: []string{"link.inclusion"}, Undecided: unproven},
			func(c *carried) error {
				c.Bundle.Challenge = testlab.Challenge(2)
				err := c.commit()
				c.Bundle.Challenge = testlab.Challenge(1)
				return err
			}),
		nonce(Vector{Name: "LowerCase", Comment: "the nonce in lower case: one leaf has one nonce", Flags: []string{"Ambiguous"}, Fails: []string{"link.inclusion"}, Undecided: unproven},
			func(c *carried) error {
				n := quote.LeafNonce(c.Bundle.Link.Leaf(c.Bundle.Challenge))
				return c.World.Host.Quote(c.Bundle.Host, bytes.ToLower([]byte(n)))
			}),
		nonce(Vector{Name: "Prefix", Comment: "half of the nonce", Flags: []string{"Replay"}, Fails: []string{"link.inclusion"}, Undecided: unproven},
			func(c *carried) error {
				n := quote.LeafNonce(c.Bundle.Link.Leaf(c.Bundle.Challenge))
				return c.World.Host.Quote(c.Bundle.Host, []byte(n[:16]))
			}),
		nonce(Vector{Name: "Tree", Comment: "a tree beside a method that has none", Flags: []string{"Ambiguous"}, Fails: []string{"link.inclusion"}, Undecided: unproven},
			func(c *carried) error { c.Bundle.Link.TreeSize = 1; return nil }),
		nonce(Vector{Name: "AsHostVouched", Comment: "the same evidence under the name of the stronger method", Flags: []string{"WeakLink"}, Fails: []string{"link.inclusion"}, Undecided: unproven},
			func(c *carried) error {
				c.Bundle.Link.Method = quote.LinkHostVouched
				c.Bundle.Link.TreeSize = 1
				return nil
			}),
		nonce(Vector{Name: "Registrar", Comment: "the host is not enrolled; a Keylime registrar that the tenant trusts binds its attestation key"},
			func(c *carried) error { return registered(c, c.World.Host.AK) }),
		nonce(Vector{Name: "RegistrarOtherKey", Comment: "the registrar's record is about another attestation key of that TPM", Flags: []string{"UntrustedKey"}, Undecided: []string{"host.ak.bound"}},
			func(c *carried) error { return registered(c, c.World.OtherHost.AK) }),

		certified(Vector{Name: "Good", Comment: "a key in the host's TPM certified the vTPM, and the guest's key was activated in this run"}, nil, nil),
		certified(Vector{Name: "NotActivated", Comment: "the vTPM is certified, and nothing binds the guest's key to it", Flags: []string{"UntrustedKey"}, Undecided: []string{"guest.ak.bound"}}, nil,
			func(c *carried) error { c.Options.Anchors.Activated = nil; return nil }),
		certified(Vector{Name: "Pinned", Comment: "the same, and the tenant pinned the guest's key: a pin says nothing of the vTPM that was certified", Flags: []string{"UntrustedKey"}, Undecided: []string{"guest.ak.bound"}}, nil,
			func(c *carried) error { c.Options.Anchors.Activated = nil; return c.pin() }),
		certified(Vector{Name: "OtherVTPMActivated", Comment: "this run activated a credential for the guest's key in another vTPM", Flags: []string{"UntrustedKey"}, Undecided: []string{"guest.ak.bound"}}, nil,
			func(c *carried) error { return c.activate(c.World.OtherGuest.EK, c.World.Guest.AK) }),
		certified(Vector{Name: "OtherKeyActivated", Comment: "this run activated a credential for another key in the certified vTPM", Flags: []string{"UntrustedKey"}, Undecided: []string{"guest.ak.bound"}}, nil,
			func(c *carried) error { return c.activate(c.World.Guest.EK, c.World.OtherGuest.AK) }),
		certified(Vector{Name: "NotAccepted", Comment: "the policy asks for a stronger link", Flags: []string{"WeakLink"}, Undecided: []string{"link.method"}}, nil,
			func(c *carried) error { c.Options.LinkMinimum = ""; return nil }),
		broken("NoStatement", "nothing says where the CA's key is", nil, func(c *carried) error { c.Bundle.Link.CA = nil; return nil }),
		broken("ByOtherHost", "another host's attestation key certified the CA key", func(c *carried) error { c.by = c.World.OtherHost; return nil }, nil),
		broken("ByOtherKey", "a CA key that nobody certified signed the vTPM's certificate",
			func(c *carried) (err error) { c.issuer, err = testlab.NewKey(caTemplate("elsewhere")); return err }, nil),
		broken("OtherKeyCertified", "the host certified another key of its TPM",
			func(c *carried) (err error) { c.name, err = c.World.Host.EK.Name(); return err }, nil),
		broken("OtherPurpose", "the host certified the key for something else",
			func(c *carried) error { c.purpose = []byte("a challenge of somebody's"); return nil }, nil),
		broken("OtherCACertificate", "the CA's certificate is for another key",
			nil, func(c *carried) error {
				key, err := testlab.NewKey(caTemplate("elsewhere"))
				if err != nil {
					return err
				}
				other, err := c.authority(key)
				if err != nil {
					return err
				}
				c.purpose = quote.CAQualifier(other.Raw)
				err = c.certify()
				c.Bundle.Link.CA.Certificate = bytes.Clone(other.Raw)
				return err
			}),
		broken("CAExpired", "the CA's certificate has run out",
			func(c *carried) error {
				c.caEdit = func(ca *x509.Certificate) { ca.NotAfter = c.World.Now.AddDate(0, 0, -1) }
				return nil
			}, nil),
		broken("CAMayNotIssue", "the CA's certificate is not one of an authority",
			func(c *carried) error {
				c.caEdit = func(ca *x509.Certificate) { ca.IsCA, ca.KeyUsage = false, x509.KeyUsageDigitalSignature }
				return nil
			}, nil),
		broken("OtherVTPM", "a certificate that names this VM, and is for another vTPM",
			func(c *carried) error { c.subject = c.World.OtherGuest.EK; return nil }, nil),
		broken("CopyableKey", "the CA key may be duplicated to another TPM",
			func(c *carried) error {
				return c.otherCA(func(t *testlab.KeyTemplate) { t.Attributes &^= quote.FixedTPM | quote.FixedParent })
			}, nil),
		broken("ImportedKey", "the CA key was made outside of the host's TPM",
			func(c *carried) error {
				return c.otherCA(func(t *testlab.KeyTemplate) { t.Attributes &^= quote.SensitiveDataOrigin })
			}, nil),
		broken("DecryptingKey", "the CA key also decrypts",
			func(c *carried) error {
				return c.otherCA(func(t *testlab.KeyTemplate) { t.Attributes |= quote.Decrypt })
			}, nil),
		broken("RSAKey", "the CA key is an RSA key, which deepattest makes none of",
			func(c *carried) error {
				return c.otherCA(func(t *testlab.KeyTemplate) { t.Scheme, t.RSA = quote.RSASSA, 2048 })
			}, nil),
		broken("SHA1Name", "the host certified the CA key by a SHA-1 Name, for which another key can be found",
			func(c *carried) error { return c.otherCA(func(t *testlab.KeyTemplate) { t.NameAlg = quote.SHA1 }) }, nil),
		broken("StatementOtherHash", "the host's key signed the certification with another hash than its own",
			func(c *carried) error {
				c.signAs = func(b []byte) (*quote.Signature, error) { return c.World.Host.AK.SignAs(quote.ECDSA, quote.SHA384, b) }
				return nil
			}, nil),
		broken("StatementOtherScheme", "the host's RSA key, which signs by RSASSA, signed the certification by RSAPSS",
			(*carried).signPSS, nil),
		broken("QuoteForStatement", "a quote of the host is shown as the certification", nil,
			func(c *carried) error { c.Bundle.Link.CA.Statement = c.Bundle.Host.Quote; return nil }),
		broken("StatementTrailing", "a byte after the certification", nil,
			func(c *carried) error {
				c.Bundle.Link.CA.Statement.Attest = append(c.Bundle.Link.CA.Statement.Attest, 0)
				return nil
			}),
		broken("NoCertificate", "the vTPM shows no certificate", nil,
			func(c *carried) error { c.Bundle.Guest.EK.Certificates = nil; return nil }),
		warning(broken("OtherVM", "the vTPM's certificate names another VM",
			func(c *carried) error {
				c.template.Subject.CommonName = "guest-b:" + c.World.OtherGuest.VM.String()
				return nil
			}, nil), "context.instance"),
		broken("NoVM", "the vTPM's certificate names no VM",
			func(c *carried) error { c.template.Subject.CommonName = "swtpm"; return nil }, nil),
		broken("Expired", "the vTPM's certificate has run out",
			func(c *carried) error { c.template.NotAfter = c.World.Now.AddDate(0, 0, -1); return nil }, nil),
		broken("NotForEK", "a certificate of that CA that is not for endorsement keys",
			func(c *carried) error { c.template.KeyUsage = x509.KeyUsageDigitalSignature; return nil }, nil),
	}
}

// warning adds a check that warns beside those that fail.
func warning(v Vector, check string) Vector {
	v.Warns = append(v.Warns, check)
	return v
}
