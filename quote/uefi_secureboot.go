package quote

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/deepattest/deepattest/quote/internal/wire"
)

// SecureBootState is what the records of PCR 7 say of Secure Boot (PFP 3.3.4.8).
// All of it is read from bytes that their digests prove; what firmware says of
// itself comes from before PCR 7's separator, authorities from after it too.
type SecureBootState struct {
	Found     bool // a SecureBoot variable was measured; nothing else holds when false
	Enabled   bool
	SetupMode bool // no platform key: whoever boots can change the databases
	// DebugMode: a debugger could change the firmware (PFP 10.4.4, "UEFI Debug Mode").
	DebugMode bool
	// ShimOff: shim verifies nothing that it starts (shim, MokSBState).
	ShimOff     bool
	PK          SecureBootVariable
	KEK         SecureBootVariable
	DB          SecureBootVariable
	DBX         SecureBootVariable
	Authorities []Authority // what the firmware and shim verified images with
	// Unproven lists the events that are not understood from what their digests
	// prove: any of them could be an authority or turn a check off.
	Unproven []int
	// Late lists variables of the firmware's policy that were measured after the
	// separator: by whoever came later, or because the policy changed in this boot.
	Late []int
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
	SbatLevel   bool   // shim's level of revocations (shim, SBAT.md), which authorises nothing
	Certificate *Certificate
}

// SecureBoot reads the Secure Boot state that the firmware measured into PCR 7
// of a bank. It returns an error when an event before the separator is not proven,
// when variables contradict each other, or when there is not exactly one good
// separator: then nothing can be said. Found is false when the firmware measured
// no SecureBoot variable.
//
// Event types are not protected, so the separator is known by its digest, and
// variables and actions by the bytes that were measured.
func (l *EventLog) SecureBoot(alg Alg) (*SecureBootState, error) {
	if _, err := newExtender(alg); err != nil {
		return nil, fmt.Errorf("state of Secure Boot: %w", err)
	}
	if !hasBank(l, alg) {
		return nil, fmt.Errorf("state of Secure Boot: no %s digests: the log has %v", alg, l.Banks())
	}
	return ReadSecureBoot(l.Records(alg, 7))
}

// ReadSecureBoot is SecureBoot over the records of a log; those of other PCRs than
// 7 are passed over.
func ReadSecureBoot(records []Record) (*SecureBootState, error) {
	s := &SecureBootState{}
	seen := make(map[string][]byte)
	separated := false
	for _, r := range records {
		if r.PCR != 7 {
			continue
		}
		if separator, failed := r.Separator(); separator {
			if separated || failed {
				return nil, fmt.Errorf("event %d: a second or failed separator in PCR 7", r.Index)
			}
			separated = true
			continue
		}
		v, err := ParseUEFIVariable(r.Measured)
		known := r.Measured != nil && (err == nil && v.Size == len(r.Measured) || isAction(string(r.Measured)))
		switch {
		case !known && !separated:
			return nil, fmt.Errorf("event %d: what PCR 7 was extended with before the separator does not match its digest, or is no variable (%s)", r.Index, wire.Printable(r.Hint()))
		case !known:
			s.Unproven = append(s.Unproven, r.Index)
		case err != nil:
			s.DebugMode = s.DebugMode || string(r.Measured) == actionDebugMode
		case !v.secureBootPolicy():
			s.after(&r, v, separated)
		case separated:
			s.Late = append(s.Late, r.Index)
		default:
			key := v.GUID.String() + v.Name
			if old, dup := seen[key]; dup && !bytes.Equal(old, v.Data) {
				return nil, fmt.Errorf("event %d: variable %s measured twice with different values", r.Index, v.Name)
			}
			seen[key] = v.Data
			if err := s.set(r.Index, r.Digest, v); err != nil {
				return nil, fmt.Errorf("event %d: %w", r.Index, err)
			}
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

// LateVariable returns the first record that measures a variable of the firmware's
// policy behind PCR 7's separator.
func LateVariable(records []Record) (*Record, bool) {
	separated := false
	for i := range records {
		r := &records[i]
		if r.PCR != 7 {
			continue
		}
		if separator, _ := r.Separator(); separator || !separated {
			separated = separated || separator
			continue
		}
		if v, err := ParseUEFIVariable(r.Measured); r.Measured != nil && err == nil && v.secureBootPolicy() {
			return r, true
		}
	}
	return nil, false
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

// after takes a variable that is none of the firmware's policy. One that boot
// software measured is shim's state or an authority, with a certificate in it or
// without (PFP 10.4.1, EV_EFI_VARIABLE_AUTHORITY: the entry of a database may be
// the hash of an image).
func (s *SecureBootState) after(r *Record, v UEFIVariable, separated bool) {
	if v.GUID.String() == guidShim && len(v.Data) == 1 {
		// One byte is a switch of shim's, which it measures when it is set
		// (shim, mok.c, mok_state_variables).
		s.ShimOff = s.ShimOff || v.Name == "MokSBState" && v.Data[0] != 0
		return
	}
	a := Authority{Event: r.Index, Digest: r.Digest, Variable: wire.Printable(v.Name), SbatLevel: v.GUID.String() == guidShim && v.Name == "SbatLevel"}
	if c, ok := parseAuthority(v.Data); ok {
		a.Certificate = &c
	} else if _, err := ParseSignatureDB(v.Data); !separated && (err == nil || v.GUID.String() != guidSecurityDatabase) {
		return // one more setting of the firmware's, such as DeployedMode or dbt
	}
	s.Authorities = append(s.Authorities, a)
}

// SignatureDatabaseDigest is what firmware measures of a Secure Boot variable, one
// of PK, KEK, db and dbx, that holds data: a UEFI_VARIABLE_DATA (PFP 10.2, 3.3.4.8).
// data is a sequence of EFI_SIGNATURE_LISTs, or that behind the four bytes of
// attributes that Linux's efivarfs puts in front.
func SignatureDatabaseDigest(name string, data []byte, alg Alg) (digest Hex, db SignatureDB, err error) {
	guid := guidGlobalVariable
	switch name {
	case "PK", "KEK":
	case "db", "dbx":
		guid = guidSecurityDatabase
	default:
		return nil, db, fmt.Errorf("variable %q: want PK, KEK, db or dbx", name)
	}
	if db, err = ParseSignatureDB(data); err != nil {
		inner, innerErr := SignatureDB{}, err
		if len(data) >= 4 && data[0]&0x06 == 0x06 && data[1]|data[2]|data[3] == 0 { // attributes of all such variables
			inner, innerErr = ParseSignatureDB(data[4:])
		}
		if innerErr != nil {
			return nil, db, fmt.Errorf("variable %s: want EFI_SIGNATURE_LISTs, bare or as efivarfs shows them, not a signed update: %w", name, err)
		}
		data, db = data[4:], inner
	}
	digest, err = digestOfData(alg, marshalVariable(guid, name, data))
	return digest, db, err
}
