package vectors

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/deepattest/deepattest/internal/testlab"
	"github.com/deepattest/deepattest/quote"
)

// formatVectors are about the bundle as a file.
func formatVectors() []Vector {
	// Without a bundle there is no layer and no link to decide on.
	nothing := func(name, comment string, raw func(string) string) Vector {
		return Vector{
			Name: "Bundle" + name, Comment: comment, Flags: []string{"Ambiguous"}, Fails: []string{"bundle.format"}, raw: raw,
		}
	}
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	edit := func(pattern, with string) func(string) string {
		return func(s string) string {
			at := regexp.MustCompile(pattern).FindStringSubmatchIndex(s)
			if at == nil {
				return s
			}
			return s[:at[2]] + with + s[at[3]:]
		}
	}
	return []Vector{
		nothing("Empty", "no bytes at all", func(string) string { return "" }),
		nothing("NotJSON", "not JSON", func(string) string { return "deepattest\n" }),
		nothing("Truncated", "the file is cut", func(s string) string { return s[:len(s)/2] }),
		nothing("TrailingJSON", "a second value follows", func(s string) string { return s + "{}\n" }),
		nothing("WrongMediaType", "another version of the format", replace("evidence.v1+json", "evidence.v2+json")),
		nothing("NoMediaType", "the format is not named", edit(`("mediaType": "[^"]*",)`, "")),
		nothing("UnknownField", "a member that this version does not know", replace(`"challenge"`, `"verdict": "trusted", "challenge"`)),
		nothing("UnknownFieldInLayer", "a member that this version does not know, deep inside", replace(`"public"`, `"trusted": true, "public"`)),
		nothing("DuplicateKey", "a member twice", replace(`"challenge"`, `"challenge": "", "challenge"`)),
		nothing("KeyInOtherCase", "a member's name in another case", replace(`"challenge"`, `"Challenge"`)),
		nothing("PCRBankTwice", "a PCR bank twice", replace(`"sha256": {`, `"sha256": {}, "sha256": {`)),
		nothing("PCRTwice", "a PCR twice", edit(`"sha256": \{\s*()"0"`, fmt.Sprintf(`"0": "%064d", `, 0))),
		nothing("PCRIndexSpelledTwice", "a PCR under two spellings of its number", edit(`"sha256": \{\s*()"0"`, fmt.Sprintf(`"00": "%064d", `, 0))),
		nothing("PCRIndex24", "a PCR that no TPM has", edit(`"sha256": \{\s*()"0"`, fmt.Sprintf(`"24": "%064d", `, 0))),
		nothing("PCRIndexNegative", "a PCR with a negative number", edit(`"sha256": \{\s*()"0"`, fmt.Sprintf(`"-1": "%064d", `, 0))),
		nothing("PCRValueShort", "a PCR value that is too short for its bank", edit(`"0": "(..)`, "")),
		nothing("PCRBankUnknown", "a PCR bank that is no hash algorithm", replace(`"sha256": {`, `"md5": {`)),
		nothing("BadHex", "a digit that is not hexadecimal", edit(`"0": "(.)`, "g")),
		nothing("UpperHex", "a value has one spelling", edit(`"challenge": "([0-9a-f]*)"`, strings.ToUpper(quote.Hex(testlab.Challenge(1)).String()))),
		nothing("BadBase64", "a byte string that is not base64", edit(`"attest": "(.)`, "*")),
		nothing("ChallengeShort", "a challenge of 15 bytes", edit(`"challenge": "([0-9a-f]*)"`, strings.Repeat("00", 15))),
		nothing("ChallengeLong", "a challenge of 65 bytes", edit(`"challenge": "([0-9a-f]*)"`, strings.Repeat("00", 65))),
		nothing("ChallengeNull", "no challenge", edit(`"challenge": ("[0-9a-f]*")`, "null")),
		nothing("LayersNull", "neither a guest nor a host", func(string) string {
			return fmt.Sprintf(`{"mediaType": %q, "challenge": "%s", "guest": null, "host": null, "link": {"method": "none"}, "context": {}}`+"\n",
				quote.MediaType, quote.Hex(testlab.Challenge(1)))
		}),
		nothing("LinkMethodUnknown", "a link method that does not exist", replace(`"host-vouched"`, `"trust-me"`)),
		nothing("UUIDMalformed", "a uuid with a digit missing", edit(`"vm": "(.)`, "")),
		nothing("InvalidUTF8", "a text that is not UTF-8", replace(`"testlab"`, "\"test\xfflab\"")),
		nothing("LoneSurrogate", "a text with half a character", replace(`"testlab"`, `"test\ud800lab"`)),
		nothing("AttestOversize", "an attestation of 64 KiB", edit(`"attest": "([^"]*)"`, strings.Repeat("A", 64<<10))),
		nothing("InclusionOversize", "an inclusion proof of 1000 nodes",
			edit(`"inclusion": (\[[^\]]*\])`, "["+strings.Repeat(`"", `, 999)+`""]`)),
		nothing("Nested", "ten thousand arrays in each other", edit(`"challenge": ("[0-9a-f]*")`, strings.Repeat("[", 10_000))),
		{
			Name: "BundleQuoteNull", Comment: "the guest's quote is null: that is none", Flags: []string{"Ambiguous"},
			Fails:     []string{"link.guest-quote", "guest.quote.magic", "guest.quote.type"},
			Undecided: nil,
			raw:       edit(`(?s)"quote": (\{.*?\})`, "null"),
		},
	}
}
