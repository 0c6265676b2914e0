package quote

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Limits of a bundle. They bound what a hostile attester can make a verifier
// read; real evidence stays far below.
const (
	MaxBundle       = 64 << 20
	MaxUEFILog      = 16 << 20
	MaxUserspaceLog = 16 << 20
	MaxIMALog       = 64 << 20
	MaxCertificates = 32 // in one layer, chain included
	MaxCertificate  = 16 << 10
	MaxCRLs         = 8 // in one layer: two or three issuers, and parts of large ones
	MaxCRL          = 1 << 20
	maxText         = 1024
)

// FormatError says why bytes are not a bundle.
type FormatError struct {
	Offset int64  // bytes from the start, -1 when the fault is in a decoded value
	Line   int    // 1-based, 0 without an offset
	Field  string // JSON pointer (RFC 6901)
	Reason string
}

func (e *FormatError) Error() string {
	s := "evidence bundle"
	if e.Line > 0 {
		s += fmt.Sprintf(": line %d, offset %d", e.Line, e.Offset)
	}
	if e.Field != "" {
		s += ": " + e.Field
	}
	return s + ": " + e.Reason
}

// ParseBundle reads a bundle. Unknown and duplicate members, trailing data, other
// media types and anything over the limits are a *FormatError. The TPM structures
// inside are not parsed: that is each check's matter.
func ParseBundle(data []byte) (*Bundle, error) {
	if len(data) > MaxBundle {
		return nil, &FormatError{Offset: -1, Reason: fmt.Sprintf("%d bytes, at most %d", len(data), MaxBundle)}
	}
	var b Bundle
	if err := json.Unmarshal(data, &b, json.RejectUnknownMembers(true)); err != nil {
		return nil, formatError(data, err)
	}
	if err := b.validate(); err != nil {
		return nil, err
	}
	return &b, nil
}

// formatError puts a JSON error's place into words.
func formatError(data []byte, err error) *FormatError {
	e := &FormatError{Offset: -1, Reason: err.Error()}
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.As(err, &syntactic):
		e.Offset, e.Field = syntactic.ByteOffset, string(syntactic.JSONPointer)
		e.Reason = syntactic.Err.Error()
	case errors.As(err, &semantic):
		e.Offset, e.Field = semantic.ByteOffset, string(semantic.JSONPointer)
		switch {
		case semantic.Err != nil:
			e.Reason = semantic.Err.Error()
		case semantic.GoType != nil:
			e.Reason = fmt.Sprintf("JSON %s where %s is wanted", semantic.JSONKind, semantic.GoType.Kind())
		}
	}
	if e.Offset >= 0 && e.Offset <= int64(len(data)) {
		e.Line = 1 + bytes.Count(data[:e.Offset], []byte("\n"))
	}
	return e
}

// Encode writes the bundle's one canonical form: members in a fixed order, map
// keys sorted, two spaces of indentation, a final newline. ParseBundle(Encode(b))
// gives b back.
func (b *Bundle) Encode() ([]byte, error) {
	if err := b.validate(); err != nil {
		return nil, err
	}
	out, err := json.Marshal(b, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("encode evidence bundle: %w", err)
	}
	return append(out, '\n'), nil
}

func (b *Bundle) validate() error {
	if b.MediaType != MediaType {
		return invalid("/mediaType", "%q, want %q", b.MediaType, MediaType)
	}
	if err := CheckChallenge(b.Challenge); err != nil {
		return invalid("/challenge", "%v", err)
	}
	if b.Guest == nil && b.Host == nil {
		return invalid("", "neither a guest nor a host layer")
	}
	for _, l := range []struct {
		field string
		layer *Layer
	}{{"/guest", b.Guest}, {"/host", b.Host}} {
		if l.layer == nil {
			continue
		}
		if err := l.layer.validate(l.field); err != nil {
			return err
		}
	}
	if err := b.Link.validate(); err != nil {
		return err
	}
	c := b.Context
	if err := checkTexts("/context", c.Collector, c.Collected, c.GuestName, c.HostName); err != nil || c.Cloud == nil {
		return err
	}
	o := c.Cloud
	return checkTexts("/context/cloud", o.Source, o.Project, o.HostID, o.Image, o.VTPM, o.Missing)
}

func (l *Layer) validate(field string) error {
	if err := checkTexts(field+"/tpm", l.TPM.Version, l.TPM.Manufacturer, l.TPM.Model, l.TPM.Firmware); err != nil {
		return err
	}
	if n := len(l.EK.Certificates) + len(l.EK.Chain); n > MaxCertificates {
		return invalid(field+"/ek", "%d certificates, at most %d", n, MaxCertificates)
	}
	for _, c := range append(append([][]byte{l.AK.Certificate}, l.EK.Certificates...), l.EK.Chain...) {
		if len(c) > MaxCertificate {
			return invalid(field+"/ek", "certificate of %d bytes, at most %d", len(c), MaxCertificate)
		}
	}
	if n := len(l.EK.CRLs); n > MaxCRLs {
		return invalid(field+"/ek/crls", "%d revocation lists, at most %d", n, MaxCRLs)
	}
	for i, c := range l.EK.CRLs {
		if len(c) > MaxCRL {
			return invalid(fmt.Sprintf("%s/ek/crls/%d", field, i), "revocation list of %d bytes, at most %d", len(c), MaxCRL)
		}
	}
	if len(l.EK.Public) > MaxPublic || len(l.AK.Public) > MaxPublic {
		return invalid(field, "public area over %d bytes", MaxPublic)
	}
	if len(l.Quote.Attest) > MaxAttest || len(l.Quote.Signature) > MaxSignature {
		return invalid(field+"/quote", "attest of %d and signature of %d bytes, at most %d and %d",
			len(l.Quote.Attest), len(l.Quote.Signature), MaxAttest, MaxSignature)
	}
	if len(l.PCRs) > MaxBanks {
		return invalid(field+"/pcrs", "%d banks, at most %d", len(l.PCRs), MaxBanks)
	}
	for _, alg := range slices.Sorted(maps.Keys(l.PCRs)) {
		for _, n := range slices.Sorted(maps.Keys(l.PCRs[alg])) {
			v := l.PCRs[alg][n]
			if n < 0 || n >= NumPCRs {
				return invalid(field+"/pcrs", "%s PCR %d: indices are 0 to %d", alg, n, NumPCRs-1)
			}
			if len(v) != alg.Size() {
				return invalid(field+"/pcrs", "%s PCR %d: %d bytes, want %d", alg, n, len(v), alg.Size())
			}
		}
	}
	switch {
	case len(l.Logs.UEFI) > MaxUEFILog:
		return invalid(field+"/logs/uefi", "%d bytes, at most %d", len(l.Logs.UEFI), MaxUEFILog)
	case len(l.Logs.Userspace) > MaxUserspaceLog:
		return invalid(field+"/logs/userspace", "%d bytes, at most %d", len(l.Logs.Userspace), MaxUserspaceLog)
	case len(l.Logs.IMA) > MaxIMALog:
		return invalid(field+"/logs/ima", "%d bytes, at most %d", len(l.Logs.IMA), MaxIMALog)
	case len(l.Missing) > 16:
		return invalid(field+"/missing", "%d entries, at most 16", len(l.Missing))
	}
	for _, m := range l.Missing {
		if err := checkTexts(field+"/missing", m.What, m.Reason); err != nil {
			return err
		}
	}
	return nil
}

func (l *Link) validate() error {
	if len(l.Inclusion) > MaxInclusion {
		return invalid("/link/inclusion", "%d nodes, at most %d", len(l.Inclusion), MaxInclusion)
	}
	for _, f := range []Hex{l.GuestEK, l.GuestAK, l.HostAK, l.GuestQuote} {
		if len(f) > maxData {
			return invalid("/link", "a name or digest of %d bytes, at most %d", len(f), maxData)
		}
	}
	if l.CA != nil {
		if l.Method != LinkEKCertified {
			return invalid("/link/ca", "with method %.40q, want %s", l.Method, LinkEKCertified)
		}
		if err := l.CA.validate(); err != nil {
			return err
		}
	}
	if l.DeepQuote != nil {
		if l.Method != LinkXenDeepQuote {
			return invalid("/link/deepQuote", "with method %.40q, want %s", l.Method, LinkXenDeepQuote)
		}
		if err := l.DeepQuote.validate(); err != nil {
			return err
		}
	}
	switch l.Method {
	case LinkHostVouched, LinkXenDeepQuote, LinkEKCertified, LinkNonceOnly, LinkNone:
		return nil
	}
	return invalid("/link/method", "%.40q, want %s, %s, %s, %s or %s", l.Method,
		LinkHostVouched, LinkXenDeepQuote, LinkEKCertified, LinkNonceOnly, LinkNone)
}

func (c *CAStatement) validate() error {
	for _, f := range []struct {
		name  string
		value []byte
		max   int
	}{
		{"public", c.Public, MaxPublic}, {"certificate", c.Certificate, MaxCertificate},
		{"statement", c.Statement.Attest, MaxAttest}, {"statement", c.Statement.Signature, MaxSignature},
	} {
		if len(f.value) > f.max {
			return invalid("/link/ca/"+f.name, "%d bytes, at most %d", len(f.value), f.max)
		}
	}
	return nil
}

func checkTexts(field string, texts ...string) error {
	for _, t := range texts {
		if len(t) > maxText {
			return invalid(field, "a text of %d bytes, at most %d", len(t), maxText)
		}
	}
	return nil
}

func invalid(field, format string, args ...any) *FormatError {
	return &FormatError{Offset: -1, Field: field, Reason: fmt.Sprintf(format, args...)}
}
