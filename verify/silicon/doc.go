// Package silicon verifies processors' reports: AMD SEV-SNP attestation reports and
// Intel TDX quotes, with the certificates and the collateral that they need, offline
// and at a given time. It is pure, as package verify is: roots and time are
// arguments, and nothing in the evidence is ever an anchor.
//
// It says what is authentic and what the maker says of it (TCB status, advisories).
// Whether that is good enough is a policy's matter.
//
// "ABI" is the SEV Secure Nested Paging Firmware ABI Specification, AMD document
// 56860; "KDS" the Versioned Chip Endorsement Key (VCEK) Certificate and KDS
// Interface Specification, AMD document 57230; "DCAP" the Intel TDX DCAP Quoting
// Library API; "PCS" Intel's Provisioning Certification Service API, version 4;
// "PCK profile" the Intel SGX PCK Certificate and Certificate Revocation List
// Profile Specification.
package silicon

import (
	"crypto/x509"
	"errors"
	"time"
)

// Options say whom a verifier trusts, and when.
type Options struct {
	// Roots end each path: AMD Root Keys, the Intel SGX Root CA.
	Roots []*x509.Certificate
	// Intermediates help to build paths and are never trusted by themselves.
	Intermediates []*x509.Certificate
	// Now is the time at which everything is looked at: of the challenge for fresh
	// evidence, its own for recorded evidence.
	Now time.Time
}

// Verifier verifies processors' reports. It is not changed after New, so that any
// number of verifications may share it.
type Verifier struct {
	roots         *x509.CertPool
	intermediates []*x509.Certificate
	now           time.Time
}

// New refuses options without a root or a time: nothing could be verified with them.
func New(o Options) (*Verifier, error) {
	if len(o.Roots) == 0 {
		return nil, errors.New("no processor maker's root: give at least one")
	}
	if o.Now.IsZero() {
		return nil, errors.New("no time at which to verify a processor's report")
	}
	v := &Verifier{roots: x509.NewCertPool(), intermediates: o.Intermediates, now: o.Now}
	for _, c := range o.Roots {
		v.roots.AddCert(c)
	}
	return v, nil
}
