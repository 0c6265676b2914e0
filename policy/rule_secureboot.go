package policy

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/deepattest/deepattest/quote"
)

// secureBoot judges the state that PCR 7 proves. What the rule asks may be undone
// by an event that is not understood, so it holds only when there is none.
func (s *section) secureBoot() outcome {
	rule := s.rules.SecureBoot
	state, err := s.claims.Log.SecureBoot()
	switch {
	case err != nil:
		return unknown("the log does not prove the Secure Boot state: %s", err)
	case rule.Required && !state.Enabled:
		return fail("Secure Boot is off").evidence("SecureBoot 0", "SecureBoot 1", "PCR 7")
	case rule.Required && state.DebugMode:
		return fail("the firmware is in debug mode: a debugger can change what it does").evidence("UEFI Debug Mode", "no debug mode", "PCR 7")
	case rule.Required && state.ShimOff:
		return fail("shim verifies nothing that it starts").evidence("MokSBState 1", "no MokSBState", "PCR 7")
	case rule.ForbidSetupMode && state.SetupMode:
		return fail("the firmware is in setup mode: whoever boots can change the signature databases").evidence("no platform key", "a platform key", "PCR 7")
	}
	if o, bad := s.signers(state, rule); bad {
		return o
	}
	if o, bad := revocations(state, rule); bad {
		return o
	}
	for _, open := range [][]int{state.Unproven, state.Late} {
		if len(open) > 0 {
			return unknown("the log does not say what was measured, which may be a certificate or turn a check off: pin PCR 7 by value, and leave the rule out").
				evidence("", "only events that their digests explain", fmt.Sprintf("PCR 7, event %d", open[0]))
		}
	}
	if state.Enabled {
		return pass("Secure Boot is on")
	}
	if state.SetupMode {
		return pass("Secure Boot is off and the firmware is in setup mode, which the policy accepts")
	}
	return pass("Secure Boot is off, which the policy accepts; a platform key is enrolled")
}

// signers compares what the firmware and shim verified images with to the
// certificates that the policy accepts (PFP 3.3.4.8, EV_EFI_VARIABLE_AUTHORITY).
func (s *section) signers(state *quote.SecureBootState, rule *SecureBootRule) (outcome, bool) {
	if len(rule.Certificates) == 0 {
		return outcome{}, false
	}
	want := fmt.Sprintf("one of %d certificates", len(rule.Certificates))
	if !state.Enabled {
		return fail("Secure Boot is off, so nothing was verified with a certificate").evidence("SecureBoot 0", want, "PCR 7"), true
	}
	verified := 0
	for _, a := range state.Authorities {
		where := fmt.Sprintf("PCR 7, event %d", a.Event)
		switch {
		case a.SbatLevel:
		case a.Certificate == nil:
			return fail("something was started that no certificate vouches for").evidence(a.Variable, want, where), true
		case !slices.ContainsFunc(rule.Certificates, func(h quote.Hex) bool { return bytes.Equal(h, a.Certificate.SHA256) }):
			return fail("something was started that is signed by a certificate which the policy does not accept").
				evidence(a.Certificate.Subject()+" sha256:"+a.Certificate.SHA256.String(), want, where), true
		default:
			verified++
		}
	}
	if len(state.Unproven) > 0 {
		return unknown("the log does not say what was measured, which may be a certificate").evidence("", want, fmt.Sprintf("PCR 7, event %d", state.Unproven[0])), true
	}
	if verified == 0 {
		return unknown("the log names no certificate that anything was verified with").evidence("", want, "PCR 7"), true
	}
	return outcome{}, false
}

// revocations compares dbx with what it must hold at least.
func revocations(state *quote.SecureBootState, rule *SecureBootRule) (outcome, bool) {
	dbx := &state.DBX
	if rule.DBXEntries == 0 && len(rule.DBXContains) == 0 {
		return outcome{}, false
	}
	where := fmt.Sprintf("PCR 7, event %d (dbx)", dbx.Event)
	if !dbx.Found {
		return unknown("the log holds no dbx").evidence("", "a dbx", "PCR 7"), true
	}
	if n := dbx.Hashes + dbx.Other + len(dbx.Certificates); n < rule.DBXEntries {
		return fail("dbx is older than the policy accepts").evidence(fmt.Sprintf("%d entries", n), fmt.Sprintf("at least %d", rule.DBXEntries), where), true
	}
	for _, h := range rule.DBXContains {
		if !dbx.HasImage(h) {
			return fail("dbx lacks a revocation that the policy wants").evidence("no entry", h.String(), where), true
		}
	}
	return outcome{}, false
}
