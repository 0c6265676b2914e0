package main

import (
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/policy"
)

// xenlab starts a fake Xen host. $DOM0 and $XEN are the addresses of the vTPMs of
// its control domain and of a guest, $XEN_VM is the guest's uuid; ek.pem is the
// physical TPM's EK certificate, maker-root.pem and maker-issuer.pem are its
// maker's, trust.yaml trusts them and the host, identity.json is what the guest has of its host, and owner holds the
// secret of the guest's vTPM.
func xenlab(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: xenlab")
	}
	b := benchOf(ts)
	l, err := testlab.StartXenLab(b.t.Context(), ts.MkAbs("xen"), testlab.XenLabOptions{Software: true})
	ts.Check(err)
	ts.Defer(func() {
		if err := l.Close(); err != nil {
			b.t.Errorf("xenlab: %v", err)
		}
	})
	ts.Setenv("DOM0", l.Control.Address)
	ts.Setenv("XEN", l.Guest.Address)
	ts.Setenv("XEN_VM", l.Guest.VM.String())
	identity, err := l.Enrolled.Identity.Encode()
	ts.Check(err)
	text := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	trust := fmt.Appendf(nil, "apiVersion: %s\nkind: Trust\nroots: [maker-root.pem]\nintermediates: [maker-issuer.pem]\nhosts:\n  - name: guests of xen-a\n    ek: %s\n    ak: %s\n",
		policy.APIVersion, l.Enrolled.EKName, l.Enrolled.AKName)
	for name, data := range map[string][]byte{
		"ek.pem":           append(text(l.Enrolled.Identity.EK.Certificates[0]), text(l.Issuer.Raw)...),
		"maker-root.pem":   text(l.Root.Raw),
		"maker-issuer.pem": text(l.Issuer.Raw),
		"identity.json":    identity,
		"trust.yaml":       trust,
		"owner":            []byte(hex.EncodeToString(l.OwnerSecret()) + "\n"),
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), data, 0o600))
	}
}
