package report

// The parts of OSCAL assessment results 1.1.2 that OSCAL writes
// (https://pages.nist.gov/OSCAL-Reference/models/v1.1.2/assessment-results/json-reference/).
// Lists that the model forbids to be empty are left out when they are.
type (
	oscalDocument struct {
		UUID       string          `json:"uuid"`
		Metadata   oscalMetadata   `json:"metadata"`
		Plan       oscalPlan       `json:"import-ap"`
		Results    []oscalResult   `json:"results"`
		BackMatter oscalBackMatter `json:"back-matter"`
	}
	oscalMetadata struct {
		Title        string `json:"title"`
		LastModified string `json:"last-modified"`
		Version      string `json:"version"`
		OSCAL        string `json:"oscal-version"`
		Remarks      string `json:"remarks,omitempty"`
	}
	oscalPlan struct {
		Href    string `json:"href"`
		Remarks string `json:"remarks,omitempty"`
	}
	oscalResult struct {
		UUID         string             `json:"uuid"`
		Title        string             `json:"title"`
		Description  string             `json:"description"`
		Start        string             `json:"start"`
		End          string             `json:"end"`
		Props        []oscalProp        `json:"props,omitempty"`
		Local        oscalLocal         `json:"local-definitions"`
		Reviewed     oscalReviewed      `json:"reviewed-controls"`
		Attestations []oscalAttestation `json:"attestations,omitempty"`
		Observations []oscalObservation `json:"observations,omitempty"`
		Findings     []oscalFinding     `json:"findings,omitempty"`
		Remarks      string             `json:"remarks,omitempty"`
	}
	oscalProp struct {
		Name      string `json:"name"`
		Namespace string `json:"ns,omitempty"`
		Value     string `json:"value"`
	}
	oscalLocal struct {
		Components []oscalComponent `json:"components,omitempty"`
		Assets     oscalAssets      `json:"assessment-assets"`
	}
	oscalAssets struct {
		Components []oscalComponent `json:"components"`
		Platforms  []oscalPlatform  `json:"assessment-platforms"`
	}
	oscalComponent struct {
		UUID        string      `json:"uuid"`
		Type        string      `json:"type"`
		Title       string      `json:"title"`
		Description string      `json:"description"`
		Props       []oscalProp `json:"props,omitempty"`
		Status      oscalState  `json:"status"`
	}
	oscalState struct {
		State string `json:"state"`
	}
	oscalPlatform struct {
		UUID  string     `json:"uuid"`
		Title string     `json:"title"`
		Uses  []oscalUse `json:"uses-components"`
	}
	oscalUse struct {
		Component string `json:"component-uuid"`
	}
	oscalReviewed struct {
		Description string           `json:"description,omitempty"`
		Selections  []oscalSelection `json:"control-selections"`
	}
	oscalSelection struct {
		Description string           `json:"description,omitempty"`
		Links       []oscalLink      `json:"links,omitempty"`
		Controls    []oscalControlID `json:"include-controls"`
	}
	oscalLink struct {
		Href string `json:"href"`
		Rel  string `json:"rel"`
	}
	oscalControlID struct {
		ID string `json:"control-id"`
	}
	oscalAttestation struct {
		Parts []oscalPart `json:"parts"`
	}
	oscalPart struct {
		Name      string `json:"name"`
		Namespace string `json:"ns"`
		Title     string `json:"title"`
		Prose     string `json:"prose"`
	}
	oscalObservation struct {
		UUID        string          `json:"uuid"`
		Title       string          `json:"title"`
		Description string          `json:"description"`
		Props       []oscalProp     `json:"props,omitempty"`
		Methods     []string        `json:"methods"`
		Types       []string        `json:"types"`
		Origins     []oscalOrigin   `json:"origins"`
		Subjects    []oscalSubject  `json:"subjects,omitempty"`
		Relevant    []oscalRelevant `json:"relevant-evidence"`
		Collected   string          `json:"collected"`
		Remarks     string          `json:"remarks,omitempty"`
	}
	oscalOrigin struct {
		Actors []oscalActor `json:"actors"`
	}
	oscalActor struct {
		Type string `json:"type"`
		UUID string `json:"actor-uuid"`
	}
	oscalSubject struct {
		UUID string `json:"subject-uuid"`
		Type string `json:"type"`
	}
	oscalRelevant struct {
		Href        string `json:"href"`
		Description string `json:"description"`
	}
	oscalFinding struct {
		UUID        string         `json:"uuid"`
		Title       string         `json:"title"`
		Description string         `json:"description"`
		Target      oscalTarget    `json:"target"`
		Related     []oscalRelated `json:"related-observations,omitempty"`
	}
	oscalTarget struct {
		Type    string      `json:"type"`
		ID      string      `json:"target-id"`
		Title   string      `json:"title"`
		Status  oscalStatus `json:"status"`
		Remarks string      `json:"remarks,omitempty"`
	}
	oscalStatus struct {
		State  string `json:"state"`
		Reason string `json:"reason"`
	}
	oscalRelated struct {
		UUID string `json:"observation-uuid"`
	}
	oscalBackMatter struct {
		Resources []oscalResource `json:"resources"`
	}
	oscalResource struct {
		UUID        string      `json:"uuid"`
		Title       string      `json:"title"`
		Description string      `json:"description"`
		Links       []oscalFile `json:"rlinks,omitempty"`
	}
	oscalFile struct {
		Href      string      `json:"href"`
		MediaType string      `json:"media-type"`
		Hashes    []oscalHash `json:"hashes"`
	}
	oscalHash struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"value"`
	}
)
