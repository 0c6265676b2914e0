package quote

import (
	"bytes"
	"errors"
	"fmt"
)

// SecureBootState is what the events of PCR 7 say of Secure Boot (PFP 3.3.4.8).
// All of it comes from events before PCR 7's separator whose digests match their
// data, but for Authorities, which come after it too.
type SecureBootState struct {
	Found       bool // a SecureBoot variable was measured; nothing else holds when false
	Enabled     bool
	SetupMode   bool // no platform key: whoever boots can change the databases
	PK          SecureBootVariable
	KEK         SecureBootVariable
	DB          SecureBootVariable
	DBX         SecureBootVariable
	Authorities []Authority // what the firmware and shim verified images with
	// Unproven lists the events after the separator that do not prove their data:
	// any of them could be an authority.
	Unproven []int
}

// SecureBootVariable is one measured signature database.
type SecureBootVariable struct {
	Found  bool
	Event  int // index in the log
	Digest Hex // of the event, in the bank asked for
	SignatureDB
}

// Authority is an EV_EFI_VARIABLE_AUTHORITY event: the entry of a database that
// an image's signature was verified with.
type Authority struct {
	Event       int    // index in the log
	Digest      Hex    // of the event, in the bank asked for
	Variable    string // "db", "MokListRT", "SbatLevel", ...
	Certificate *Certificate
}

// SecureBoot reads the Secure Boot state that the firmware measured into PCR 7
// of a bank. It returns an error when an event before the separator does not
// prove its data, when variables contradict each other, or when there is not
// exactly one good separator: then nothing can be said. Found is false when the
// firmware measured no SecureBoot variable.
//
// Event types are not protected, so the separator is known by its digest, and
// variables by what their proven data hold.
func (l *EventLog) SecureBoot(alg Alg) (*SecureBootState, error) {
	x, err := newExtender(alg)
	if err != nil {
		return nil, fmt.Errorf("state of Secure Boot: %w", err)
	}
	if !hasBank(l, alg) {
		return nil, fmt.Errorf("state of Secure Boot: no %s digests: the log has %v", alg, l.Banks())
	}
	s := &SecureBootState{}
	seen := make(map[string][]byte)
	separated := false
	for i := range l.Events {
		e := &l.Events[i]
		if e.PCR != 7 || !e.Extended() {
			continue
		}
		if separator, failed := x.separator(e.Digest(alg)); separator {
			if separated || failed {
				return nil, fmt.Errorf("event %d: a second or failed separator in PCR 7", e.Index)
			}
			separated = true
			continue
		}
		if e.DataDigested(alg) != DataMatches {
			if !separated {
				return nil, fmt.Errorf("event %d: %s in PCR 7 before the separator does not match its digest", e.Index, e.Type)
			}
			s.Unproven = append(s.Unproven, e.Index)
			continue
		}
		v, err := ParseUEFIVariable(e.Data)
		if err != nil {
			continue // an action, such as "DMA Protection Disabled"
		}
		if !v.secureBootPolicy() {
			s.addAuthority(e, e.Digest(alg), v)
			continue
		}
		if separated {
			continue
		}
		key := v.GUID.String() + v.Name
		if old, dup := seen[key]; dup && !bytes.Equal(old, v.Data) {
			return nil, fmt.Errorf("event %d: variable %s measured twice with different values", e.Index, v.Name)
		}
		seen[key] = v.Data
		if err := s.set(e.Index, e.Digest(alg), v); err != nil {
			return nil, fmt.Errorf("event %d: %w", e.Index, err)
		}
	}
	if !separated {
		return nil, errors.New("state of Secure Boot: no separator in PCR 7")
	}
	if s.Found && !s.PK.Found {
		return nil, errors.New("state of Secure Boot: SecureBoot was measured and PK was not")
	}
	return s, nil
}

// separator reports whether a digest is that of a separator's four bytes, and
// whether it says that something failed before it (PFP 10.4.1, EV_SEPARATOR).
func (x *extender) separator(digest []byte) (separator, failed bool) {
	if x.sumIs(digest, []byte{1, 0, 0, 0}) {
		return true, true
	}
	return x.sumIs(digest, []byte{0, 0, 0, 0}) || x.sumIs(digest, ones[:4]), false
}

// secureBootPolicy tells the variables that PFP 3.3.4.8 has measured before the
// separator from the database entries that authorised an image, which go by the
// same names.
func (v *UEFIVariable) secureBootPolicy() bool {
	switch v.GUID.String() {
	case guidGlobalVariable:
		switch v.Name {
		case "SecureBoot", "SetupMode", "PK", "KEK":
			return true
		}
	case guidSecurityDatabase:
		_, err := ParseSignatureDB(v.Data)
		return err == nil && (v.Name == "db" || v.Name == "dbx")
	}
	return false
}

func (s *SecureBootState) set(event int, digest []byte, v UEFIVariable) error {
	var db *SecureBootVariable
	switch v.Name {
	case "SecureBoot", "SetupMode":
		on := len(v.Data) == 1 && v.Data[0] == 1
		if !on && len(v.Data) > 0 && !bytes.Equal(v.Data, []byte{0}) {
			return fmt.Errorf("variable %s is %x, want 00 or 01", v.Name, v.Data[:min(len(v.Data), 8)])
		}
		if v.Name == "SetupMode" {
			s.SetupMode = s.SetupMode || on
			return nil
		}
		s.Found, s.Enabled = true, on
		return nil
	case "PK":
		db = &s.PK
		s.SetupMode = s.SetupMode || len(v.Data) == 0
	case "KEK":
		db = &s.KEK
	case "db":
		db = &s.DB
	case "dbx":
		db = &s.DBX
	}
	list, err := ParseSignatureDB(v.Data)
	if err != nil {
		return fmt.Errorf("variable %s: %w", v.Name, err)
	}
	*db = SecureBootVariable{Found: true, Event: event, Digest: digest, SignatureDB: list}
	return nil
}

// addAuthority takes an event for an authority when it holds a certificate,
// whatever its type says, and when its type says so.
func (s *SecureBootState) addAuthority(e *Event, digest []byte, v UEFIVariable) {
	a := Authority{Event: e.Index, Digest: digest, Variable: printable(v.Name)}
	if c, ok := parseAuthority(v.Data); ok {
		a.Certificate = &c
	} else if e.Type != EventEFIVariableAuthority {
		return
	}
	s.Authorities = append(s.Authorities, a)
}
