package report

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"
	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

// Profiles of an EAT Attestation Result. They differ in the names of claims.
const (
	EARProfileIETF     = "tag:ietf.org,2026:rats/ear#03"    // draft-ietf-rats-ear-03, section 3
	EARProfileVeraison = "tag:github.com,2023:veraison/ear" // draft-fv-rats-ear-05, section 3
)

// Tier is a trustworthiness tier (draft-ietf-rats-ar4si, section 3.2), as EAR
// writes it in JSON.
type Tier string

// The tiers, with their numbers.
const (
	TierNone            Tier = "none"            // 0
	TierAffirming       Tier = "affirming"       // 2
	TierWarning         Tier = "warning"         // 32
	TierContraindicated Tier = "contraindicated" // 96
)

// Values of trustworthiness claims (draft-ietf-rats-ar4si, section 2.3.4).
const (
	claimMalfunction     = -1
	claimNone            = 0
	claimAffirming       = 2  // recognized, genuine, approved
	claimBootOnly        = 3  // of executables: only those of the boot process are known to be approved
	claimContraindicated = 96 // recognized and not trustworthy
	claimNotAuthentic    = 99 // cryptographic validation of the evidence has failed
)

// tierOf is the tier of a claim's value (draft-ietf-rats-ar4si, section 2.3.2).
func tierOf(value int) Tier {
	switch {
	case value >= 96 || value <= -97:
		return TierContraindicated
	case value >= 32 || value <= -33:
		return TierWarning
	case value >= 2 || value <= -2:
		return TierAffirming
	}
	return TierNone
}

// rank orders tiers by trust, the worst first. No statement is less than an
// affirmation or a warning that the machine was looked at, and more than a
// statement against it.
func (t Tier) rank() int {
	switch t {
	case TierContraindicated:
		return 0
	case TierWarning:
		return 2
	case TierAffirming:
		return 3
	}
	return 1
}

func verdictTier(v policy.Verdict) Tier {
	switch v {
	case policy.Trusted:
		return TierAffirming
	case policy.Untrusted, policy.Rejected:
		return TierContraindicated
	}
	return TierNone
}

// earNames are the claim names of a profile.
type earNames struct {
	verifier, raw, status, vector, policies string
	list                                    bool // policies is a list and the token has a status as a whole
}

func earProfile(profile string) (earNames, bool) {
	switch profile {
	case EARProfileIETF:
		return earNames{"ear_verifier_id", "ear_raw_evidence", "ear_status", "ear_trustworthiness_vector", "ear_appraisal_policy_ids", true}, true
	case EARProfileVeraison:
		return earNames{"ear.verifier-id", "ear.raw-evidence", "ear.status", "ear.trustworthiness-vector", "ear.appraisal-policy-id", false}, true
	}
	return earNames{}, false
}

// earExtension is the name of the claim with what EAR has no claim for. A public
// name, as section 4.1 recommends, and a map, as section 3 demands.
const earExtension = project + "/ear"

// DefaultEARLifetime is how long after the appraisal a token may be relied on: what it
// says is about one moment, and a machine is not what it was then for long (RFC 9334,
// section 10).
const DefaultEARLifetime = time.Hour

// EAR writes a result as an EAT Attestation Result: a JWT in compact form, signed
// with o.Signer, with a submodule each for host, link and guest. An ECDSA key of
// Go's own kind signs deterministically (RFC 6979).
func EAR(w io.Writer, r *policy.Result, o Options) error {
	if o.Signer == nil {
		return errors.New("an EAR is a signed token: give a key to sign it with")
	}
	if r.Now.IsZero() {
		return errNoTime
	}
	claims, err := earClaims(r, o)
	if err != nil {
		return err
	}
	payload, err := json.Marshal(claims, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("encode EAR: %w", err)
	}
	token, err := signJWT(payload, o.Signer)
	if err != nil {
		return fmt.Errorf("sign EAR: %w", err)
	}
	return write(w, []byte(token+"\n"))
}

func earClaims(r *policy.Result, o Options) (map[string]any, error) {
	if o.EARProfile == "" {
		o.EARProfile = EARProfileIETF
	}
	if o.EARLifetime < 0 || o.EARLifetime%time.Second != 0 {
		return nil, fmt.Errorf("an EAR cannot be good for %s: want whole seconds", o.EARLifetime)
	}
	names, ok := earProfile(o.EARProfile)
	if !ok {
		return nil, fmt.Errorf("no EAR profile is called %.60q: want %s or %s", o.EARProfile, EARProfileIETF, EARProfileVeraison)
	}
	submods := make(map[string]any)
	worst := verdictTier(r.Verdict)
	for _, name := range layerNames() {
		l := layerNamed(r, name)
		a := map[string]any{names.status: verdictTier(l.Verdict), names.vector: trustVector(r, l)}
		if t := verdictTier(l.Verdict); t.rank() < worst.rank() {
			worst = t
		}
		// A URI of the policy's digest (RFC 6920, section 3) is unique everywhere.
		if id := "ni:///sha-256;" + base64url(r.Policy.Digest); len(r.Policy.Digest) == sha256.Size && names.list {
			a[names.policies] = []string{id}
		} else if len(r.Policy.Digest) == sha256.Size {
			a[names.policies] = id
		}
		// The nonce of the evidence; its size is that of EAT (RFC 9711, section 4.1).
		if n := len(r.Challenge); names.list && 8 <= n && n <= 64 {
			a["eat_nonce"] = base64url(r.Challenge)
		}
		submods[string(name)] = a
	}
	claims := map[string]any{
		"eat_profile":  o.EARProfile,
		"iat":          r.Now.Unix(),
		"exp":          r.Now.Add(cmp.Or(o.EARLifetime, DefaultEARLifetime)).Unix(),
		names.verifier: map[string]any{"developer": project, "build": "deepattest " + o.build()},
		"submods":      submods,
		earExtension: map[string]any{
			"verdict": r.Verdict.String(), "reason": clean(r.Reason, maxLine), "verified": clean(string(r.Verified), maxName),
			"evidence_sha256": r.Evidence.String(), "unsafe_options": len(r.Unsafe),
		},
	}
	if names.list {
		claims[names.status] = worst
	}
	if o.Evidence != nil {
		if sum := sha256.Sum256(o.Evidence); !bytes.Equal(sum[:], r.Evidence) {
			return nil, fmt.Errorf("the evidence has SHA-256 %x, the result is about %s", sum, r.Evidence)
		}
		claims[names.raw] = base64url(o.Evidence)
	}
	return claims, nil
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// trustVector breaks a layer's verdict down into trustworthiness claims. It only
// affirms what a check that passed shows, and never more than the verdict.
func trustVector(r *policy.Result, l policy.LayerResult) map[string]int {
	const identity, executables, configuration, hardware = "instance-identity", "executables", "configuration", "hardware"
	switch l.Verdict {
	case policy.Rejected:
		return map[string]int{identity: claimNotAuthentic}
	case policy.Trusted, policy.Untrusted:
	default:
		broken := func(c verify.Check) bool { return layerOf(c) == l.Layer && c.Status == verify.Malfunction }
		if len(under(r, broken)) > 0 {
			return map[string]int{identity: claimMalfunction}
		}
		return map[string]int{identity: claimNone}
	}
	v := map[string]int{identity: claimAffirming}
	var boot, files bool
	for _, c := range under(r, func(c verify.Check) bool { return layerOf(c) == l.Layer }) {
		// What a check that failed is against, and what one that passed is for.
		against, affirms := "", ""
		switch name := label(c.ID); {
		case c.ID == "host.ek.chain":
			against = hardware
			if l.Claims != nil && len(l.Claims.EK) > 0 { // a key that nothing binds is nobody's
				affirms = hardware
			}
		case name == "firmware":
			against, affirms = hardware, hardware
		case strings.HasPrefix(name, "pcr."), name == "profile", name == "events":
			// One value, or one event, says that it is known, and not that nothing else ran.
			against, affirms = executables, configuration
			boot = boot || name == "pcr.4" && c.Status == verify.Pass
		case name == "ima" && c.Layer == verify.Policy:
			against = executables
			files = c.Status == verify.Pass && listsFiles(r, c, l.Layer)
		case name == "coverage":
			against, affirms = configuration, configuration
			boot = boot || c.Status == verify.Pass
		case name == "binding":
			against, affirms = identity, identity
		case c.Layer == verify.Policy:
			against, affirms = configuration, configuration
		}
		switch {
		case against != "" && c.Status == verify.Fail && c.Required:
			v[against] = claimContraindicated
		case affirms != "" && c.Status == verify.Pass && v[affirms] != claimContraindicated:
			v[affirms] = claimAffirming
		}
	}
	// "Only approved executables have been loaded" (draft-ietf-rats-ar4si, section
	// 2.3.4.5), during boot: every image that the firmware started is in PCR 4 (PFP 1.06,
	// section 3.3.4.5). After it: every file was compared with a list.
	if boot && v[executables] != claimContraindicated {
		v[executables] = claimBootOnly
		if files {
			v[executables] = claimAffirming
		}
	}
	return v
}

// listsFiles reports whether a passed IMA check compared files with a list: a rule
// without one accepts any, which the check and the result's limits say.
func listsFiles(r *policy.Result, ima policy.CheckResult, layer verify.Layer) bool {
	limit := fmt.Sprintf("programs of the %s that run after boot: the policy demands no IMA allow-list", layer)
	return !slices.Contains(r.Limits, limit) && !strings.Contains(ima.Detail, "the policy accepts any")
}

func signJWT(payload []byte, key crypto.Signer) (string, error) {
	alg, err := jwtAlgorithm(key.Public())
	if err != nil {
		return "", err
	}
	if k, ok := key.(*ecdsa.PrivateKey); ok {
		key = sameEachTime{k}
	}
	kid, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256) // RFC 7638
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: alg, Key: cryptosigner.Opaque(key)},
		(&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", base64url(kid)))
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// sameEachTime makes crypto/ecdsa derive its nonce from key and message, which it
// does when it is given no randomness.
type sameEachTime struct{ *ecdsa.PrivateKey }

// Sign signs a digest.
func (s sameEachTime) Sign(_ io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	return s.PrivateKey.Sign(nil, digest, o)
}

// minRSA is the least size of an RSA key in bits (RFC 7518, section 3.3).
const minRSA = 2048

// jwtAlgorithm is the one algorithm that a key signs with here. It follows from
// the key and never from a token (RFC 8725, section 3.1).
func jwtAlgorithm(public crypto.PublicKey) (jose.SignatureAlgorithm, error) {
	if k, ok := public.(*rsa.PublicKey); ok {
		if k.N.BitLen() < minRSA {
			return "", fmt.Errorf("RSA key of %d bits: want at least %d", k.N.BitLen(), minRSA)
		}
		return jose.RS256, nil
	}
	if algs := cryptosigner.Opaque(publicOnly{public}).Algs(); len(algs) == 1 {
		return algs[0], nil
	}
	return "", fmt.Errorf("a key of type %T: want ECDSA on P-256, P-384 or P-521, Ed25519 or RSA", public)
}

// publicOnly is a key to ask for its algorithms.
type publicOnly struct{ key crypto.PublicKey }

// Public returns the key.
func (p publicOnly) Public() crypto.PublicKey { return p.key }

// Sign always fails.
func (p publicOnly) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("no private key")
}
