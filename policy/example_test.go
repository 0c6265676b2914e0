package policy_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// exampleInput reads the files of examples/bundles, and what the tenant trusts.
func exampleInput(bundle string) (*policy.Policy, []byte, verify.Options) {
	read := func(name string) []byte {
		data, err := os.ReadFile("../examples/bundles/" + name)
		if err != nil {
			panic(err)
		}
		return data
	}
	p, err := policy.Parse(read("policy.yaml"))
	if err != nil {
		panic(err)
	}
	trust, err := policy.ParseTrust(read("trust.yaml"), "trust.yaml")
	if err != nil {
		panic(err)
	}
	var challenge quote.Hex
	if err := challenge.UnmarshalText([]byte(strings.TrimSpace(string(read("challenge"))))); err != nil {
		panic(err)
	}
	return p, read(bundle), verify.Options{
		Challenge: challenge, Now: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		Anchors: verify.Anchors{Hosts: []verify.EnrolledHost{trust.Hosts[0].EnrolledHost}},
	}
}

// A result tells what decided against the evidence, and who does what about it.
func ExampleResult_Failures() {
	p, evidence, opts := exampleInput("relayed.json")
	result, err := p.Verify(evidence, opts, policy.Context{Verified: policy.OffGuest})
	if err != nil {
		fmt.Println(err) // these options cannot be used
		return
	}
	fmt.Println(result.Verdict)
	for _, c := range result.Failures() {
		fmt.Printf("%s: %s\n  %s\n", c.ID, c.Detail, c.Remedy)
	}
	// Output:
	// rejected
	// link.guest-key: the host signed for another guest's key
	//   cloud operator: treat as an attack: a host's quote for one VM was shown beside another VM's
	// link.guest-quote: the host signed for another quote of the guest
	//   cloud operator: treat as an attack: the guest's quote is not the one the host saw
}

// What the policy decides is not the caller's to say.
func ExamplePolicy_Verify_options() {
	p, evidence, opts := exampleInput("good.json")
	opts.AnyHost = true
	_, err := p.Verify(evidence, opts, policy.Context{})
	fmt.Println(errors.Is(err, verify.ErrOptions))
	fmt.Println(err)
	// Output:
	// true
	// verification options: the policy "web-tier" decides about AnyHost, and not as the caller did: leave them to the policy, or change it there
}
