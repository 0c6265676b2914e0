package report

import (
	"crypto/sha1" // the hash that version 5 of a UUID is made with; no security rests on it
	"crypto/sha256"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// OSCAL writes a result as OSCAL assessment results 1.1.2, JSON: an observation
// for each check, a finding for each control of the mapping, and the evidence and
// the policy, by their hashes, in the back matter. No finding is ever "satisfied":
// one machine's evidence cannot say so.
func OSCAL(w io.Writer, r *policy.Result, o Options) error {
	if r.Now.IsZero() {
		return errNoTime
	}
	controls, err := o.controls()
	if err != nil {
		return err
	}
	encoded, err := r.Encode()
	if err != nil {
		return err
	}
	a := &assessment{r: r, controls: controls, known: newCatalogue(), build: o.build(), seed: sha256.Sum256(encoded)}
	a.at, a.tool, a.evidence = r.Now.UTC().Format(time.RFC3339), a.id("tool"), a.id("evidence")
	for i := range r.Checks {
		a.checks = append(a.checks, a.id("check/"+strconv.Itoa(i)))
	}
	data, err := json.Marshal(map[string]any{"assessment-results": a.document()}, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return fmt.Errorf("encode OSCAL: %w", err)
	}
	return write(w, append(data, '\n'))
}

// assessment is an OSCAL document being made.
type assessment struct {
	r        *policy.Result
	controls *Controls
	known    catalogue
	build    string
	seed     [sha256.Size]byte // of the result's canonical form
	at       string            // the time of the appraisal
	checks   []string          // the UUIDs of the observations
	tool     string            // the UUID of this program
	evidence string            // the UUID of the evidence
}

// id is a UUID of version 5 (RFC 9562, section 5.5) over the result and the name
// of a part, so that the same result always gives the same document.
func (a *assessment) id(part string) string {
	// The name space for URLs of RFC 9562, section 6.6.
	space := []byte{0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}
	sum := sha1.Sum(fmt.Appendf(space, "%s/result/%x/%s", project, a.seed, part))
	u := sum[:16]
	u[6], u[8] = u[6]&0x0f|0x50, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

func (a *assessment) document() oscalDocument {
	r := a.r
	title := "Deep attestation: " + VerdictWord(r.Verdict)
	d := oscalDocument{
		UUID: a.id("document"),
		Metadata: oscalMetadata{
			Title: title, LastModified: a.at, Version: a.at, OSCAL: "1.1.2",
			Remarks: "A rendering of an attestation result. " + a.controls.Limits,
		},
		Plan: oscalPlan{Href: "#" + a.id("policy"), Remarks: "The plan is the appraisal policy that the tenant wrote."},
		BackMatter: oscalBackMatter{Resources: []oscalResource{
			a.resource("evidence", "Evidence bundle", "The bytes that were verified.", "application/vnd.deepattest.evidence.v1+json", r.Evidence),
			a.resource("policy", "Appraisal policy", "Policy "+code(r.Policy.Name, maxName)+".", "application/yaml", r.Policy.Digest),
		}},
	}
	result := oscalResult{
		UUID: a.id("result"), Title: title,
		Description: "Layered attestation of a virtual machine and the host under it: " + code(r.Reason, maxLine) + ". " + placeWorth(r.Verified) + ".",
		Start:       a.at, End: a.at,
		Props: a.props("verdict", r.Verdict.String(), "verified", string(r.Verified), "challenge", r.Challenge.String(), "policy", r.Policy.Name),
		Local: oscalLocal{Assets: oscalAssets{
			Components: []oscalComponent{{
				UUID: a.tool, Type: "software", Title: "deepattest", Description: "Verifies layered TPM evidence and appraises it against a policy.",
				Status: oscalState{State: "operational"}, Props: []oscalProp{{Name: "version", Value: a.build}},
			}},
			Platforms: []oscalPlatform{{UUID: a.id("platform"), Title: "deepattest", Uses: []oscalUse{{Component: a.tool}}}},
		}},
		Remarks: a.controls.Limits,
	}
	for _, l := range layerNames() {
		if l == verify.Link {
			continue
		}
		layer := layerNamed(r, l)
		c := oscalComponent{
			UUID: a.id("component/" + string(l)), Type: "system", Title: "The " + string(l),
			Description: "Name " + code(layer.Name, maxName) + ": " + code(layer.Summary, maxLine) + ".", Status: oscalState{State: "operational"},
		}
		if k := layer.Claims; k != nil {
			c.Props = a.props("ek-name", k.EK.String(), "ak-name", k.AK.String(), "tpm-firmware", k.Firmware)
		}
		result.Local.Components = append(result.Local.Components, c)
	}
	for i, c := range r.Checks {
		result.Observations = append(result.Observations, a.observation(i, c))
	}
	result.Reviewed.Description = "Controls that checks of this result bear on. Evidence for a control is not a decision on it."
	for _, f := range a.controls.Frameworks {
		s := oscalSelection{Description: clean(f.Title, maxLine)}
		for _, k := range f.Controls {
			s.Controls = append(s.Controls, oscalControlID{ID: k.Token})
			result.Findings = append(result.Findings, a.finding(f, k))
		}
		if f.Source != "" {
			s.Links = []oscalLink{{Href: f.Source, Rel: "reference"}}
		}
		result.Reviewed.Selections = append(result.Reviewed.Selections, s)
	}
	for _, limit := range r.Limits {
		result.Attestations = append(result.Attestations, oscalAttestation{Parts: []oscalPart{{
			Name: "limit", Namespace: project, Title: "Not covered", Prose: code(limit, maxLine),
		}}})
	}
	d.Results = []oscalResult{result}
	return d
}

// resource is a file that is known by its hash. Its link is a name by that hash
// (RFC 6920), as where it is stored is nobody's business here.
func (a *assessment) resource(part, title, text, media string, digest []byte) oscalResource {
	res := oscalResource{UUID: a.id(part), Title: title, Description: text}
	if len(digest) == sha256.Size {
		res.Links = []oscalFile{{Href: "ni:///sha-256;" + base64url(digest), MediaType: media, Hashes: []oscalHash{{Algorithm: "SHA-256", Value: fmt.Sprintf("%x", digest)}}}}
	}
	return res
}

// props makes properties of names and values in turn, without those that are
// empty: an OSCAL string has at least one character, none of them blank at its
// ends.
func (a *assessment) props(pairs ...string) []oscalProp {
	var list []oscalProp
	for i := 0; i < len(pairs); i += 2 {
		if v := strings.TrimSpace(both(pairs[i+1], maxText)); v != "" {
			list = append(list, oscalProp{Name: pairs[i], Namespace: project, Value: v})
		}
	}
	return list
}

func (a *assessment) observation(i int, c policy.CheckResult) oscalObservation {
	spec := a.known.of(c.ID)
	o := oscalObservation{
		UUID: a.checks[i], Title: strings.TrimSpace(clean(c.ID, maxName)),
		Description: must(spec) + "Found: " + code(c.Detail, maxLine) + ".",
		Methods:     []string{"TEST"}, Types: []string{"finding"}, Collected: a.at,
		Props: a.props("check", c.ID, "status", c.Status.String(), "layer", string(c.Layer), "required", strconv.FormatBool(c.Required),
			"got", c.Got, "want", c.Want, "diff", differing(c.Want, c.Got), "where", c.Where, "blocked-by", c.BlockedBy, "citation", spec.Citation),
		Origins: []oscalOrigin{{Actors: []oscalActor{{Type: "tool", UUID: a.tool}}}},
		Relevant: []oscalRelevant{{
			Href: "#" + a.evidence, Description: "The evidence bundle, SHA-256 " + code(a.r.Evidence.String(), maxValue) + ".",
		}},
	}
	if l := layerOf(c.Check); l == verify.Host || l == verify.Guest {
		o.Subjects = []oscalSubject{{UUID: a.id("component/" + string(l)), Type: "component"}}
	}
	if c.Remedy != "" {
		o.Remarks = "Next: " + code(c.Remedy, maxLine)
	}
	return o
}

// must is what a check demands, in a sentence.
func must(spec verify.Spec) string {
	if spec.Title == "" {
		return ""
	}
	return "Must hold: " + spec.Title + ". "
}

func (a *assessment) finding(f Framework, k Control) oscalFinding {
	about := clean(f.Title, maxLine) + ", " + clean(k.ID, maxLine) + " " + clean(k.Title, maxLine)
	n := oscalFinding{
		UUID: a.id("finding/" + f.ID + "/" + k.Token), Title: about,
		Description: "This result " + clean(k.sentence(a.r), maxLine) + ": " + clean(k.Why, maxLine) + ".",
		Target: oscalTarget{
			Type: "objective-id", ID: k.Token + "_obj", Title: about,
			// The other state that OSCAL has claims that the objective is completely
			// satisfied.
			Status:  oscalStatus{State: "not-satisfied", Reason: "other"},
			Remarks: "This program gives evidence and leaves the decision to an assessor. " + a.controls.Limits,
		},
	}
	switch k.given(a.r) {
	case givesFor:
		n.Target.Status.Reason = "pass"
	case givesAgainst:
		n.Target.Status.Reason = "fail"
	}
	for i, c := range a.r.Checks {
		if c.Status != verify.NotApplicable && k.covers(c.ID) {
			n.Related = append(n.Related, oscalRelated{UUID: a.checks[i]})
		}
	}
	return n
}
