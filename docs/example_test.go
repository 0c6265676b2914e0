package docs

import (
	"fmt"
	"time"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// The README shows what stands between the marks, word for word.

// README: begin
func admit(evidence, policyFile, challenge []byte, anchors verify.Anchors) error {
	p, err := policy.Parse(policyFile)
	if err != nil {
		return err // every fault of the file, with line and column
	}
	result, err := p.Verify(evidence, verify.Options{
		Challenge: challenge, // drawn here, used once
		Now:       time.Now(),
		Anchors:   anchors, // what you trust; never out of the evidence
	}, policy.Context{Verified: policy.OffGuest})
	if err != nil {
		return err // these options cannot be used
	}
	if result.Verdict != policy.Trusted {
		return fmt.Errorf("%s: %s", result.Verdict, result.Reason)
	}
	return nil
}

// README: end
