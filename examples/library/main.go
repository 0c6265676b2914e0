// Command library verifies an evidence bundle with the packages of deepattest:
//
//	library BUNDLE POLICY AUTHORITIES.pem HOST-EK-NAME HOST-AK-NAME CHALLENGE
//
// AUTHORITIES.pem holds certificates of TPM makers: those that signed themselves
// are trusted, the others help to get there. It prints the verdict with every check
// that decided against the evidence, and exits with the verdict's code. For the quote
// of one TPM by itself see verify.Quote.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

func main() {
	if len(os.Args) != 7 {
		fmt.Fprintln(os.Stderr, "usage: library BUNDLE POLICY AUTHORITIES.pem HOST-EK-NAME HOST-AK-NAME CHALLENGE")
		os.Exit(2)
	}
	result, err := appraise(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "library:", err)
		os.Exit(2)
	}
	fmt.Printf("%s: %s\n", result.Verdict, result.Reason)
	for _, c := range result.Failures() {
		fmt.Printf("  %s %s: %s\n    %s\n", c.Status, c.ID, c.Detail, c.Remedy)
	}
	os.Exit(result.Verdict.ExitCode())
}

func appraise(args []string) (*policy.Result, error) {
	evidence, err := os.ReadFile(args[0])
	if err != nil {
		return nil, err
	}
	rules, err := os.ReadFile(args[1])
	if err != nil {
		return nil, err
	}
	p, err := policy.Parse(rules)
	if err != nil {
		return nil, err // every fault of the file, with line and column
	}
	anchors, err := authorities(args[2])
	if err != nil {
		return nil, err
	}
	var ek, ak, challenge quote.Hex
	for i, h := range []*quote.Hex{&ek, &ak, &challenge} {
		if err := h.UnmarshalText([]byte(args[3+i])); err != nil {
			return nil, err
		}
	}
	anchors.Hosts = []verify.EnrolledHost{{Name: "my host", EK: ek, AK: ak, Source: "the command line"}}
	return p.Verify(evidence, verify.Options{
		Challenge: challenge, // that this program drew, in a real one
		Now:       time.Now(),
		Anchors:   anchors,
	}, policy.Context{Verified: policy.OffGuest})
}

func authorities(path string) (anchors verify.Anchors, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return anchors, err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return anchors, err
		}
		if cert.CheckSignatureFrom(cert) == nil {
			anchors.Roots = append(anchors.Roots, cert)
		} else {
			anchors.Intermediates = append(anchors.Intermediates, cert)
		}
	}
	return anchors, nil
}
