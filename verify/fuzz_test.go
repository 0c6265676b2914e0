package verify_test

import (
	"testing"

	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// FuzzEvidence puts arbitrary bytes into the structures of a bundle: there is
// always a report, and only what was signed is ever accepted.
func FuzzEvidence(f *testing.F) {
	for _, name := range []string{"GoodWithLogs", "GoodRSA", "GuestUserspaceLog"} {
		v := find(f, name)
		b, err := quote.ParseBundle(v.bundle)
		if err != nil {
			f.Fatal(err)
		}
		cert := b.Host.EK.Certificates[0]
		f.Add(true, b.Host.EK.Public, b.Host.AK.Public, b.Host.Quote.Attest, b.Host.Quote.Signature, cert, b.Host.Logs.UEFI, b.Host.Logs.Userspace, b.Host.Logs.IMA)
		f.Add(false, b.Guest.EK.Public, b.Guest.AK.Public, b.Guest.Quote.Attest, b.Guest.Quote.Signature, cert, b.Guest.Logs.UEFI, b.Guest.Logs.Userspace, b.Guest.Logs.IMA)
	}
	f.Add(true, []byte{}, []byte{}, []byte{}, []byte{}, []byte{}, []byte{}, []byte{}, []byte{})
	good := find(f, "GoodWithLogs")
	f.Fuzz(func(t *testing.T, host bool, ek, ak, attest, signature, cert, uefi, userspace, ima []byte) {
		b, err := quote.ParseBundle(good.bundle)
		if err != nil {
			t.Fatal(err)
		}
		l := b.Guest
		if host {
			l = b.Host
		}
		was := l.Quote
		wasEK, wasAK := string(l.EK.Public), string(l.AK.Public)
		l.EK.Public, l.AK.Public, l.Quote = ek, ak, quote.Quote{Attest: attest, Signature: signature}
		l.Logs = quote.Logs{UEFI: uefi, Userspace: userspace, IMA: ima}
		l.EK.Certificates = [][]byte{cert}
		data, err := b.Encode()
		if err != nil {
			return // over a limit
		}
		r, err := verify.Evidence(data, good.options)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Checks) != len(verify.Catalogue()) {
			t.Fatalf("%d checks", len(r.Checks))
		}
		if r.Guest() == nil {
			return
		}
		_, _, _ = r.Guest().Log.Components(), r.Guest().Log.CommandLines(nil), r.Guest().Log.Records(7)
		if string(attest) != string(was.Attest) || string(ek) != wasEK || string(ak) != wasAK {
			t.Fatal("what nobody signed is accepted")
		}
		if !host && string(signature) != string(was.Signature) {
			t.Fatal("a guest's signature is accepted that the host has not seen")
		}
	})
}
