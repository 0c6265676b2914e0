package silicon

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Status is Intel's word on a TCB level (PCS, "TCB status").
type Status string

// The statuses.
const (
	UpToDate                          Status = "UpToDate"
	SWHardeningNeeded                 Status = "SWHardeningNeeded"
	ConfigurationNeeded               Status = "ConfigurationNeeded"
	ConfigurationAndSWHardeningNeeded Status = "ConfigurationAndSWHardeningNeeded"
	OutOfDate                         Status = "OutOfDate"
	OutOfDateConfigurationNeeded      Status = "OutOfDateConfigurationNeeded"
	Revoked                           Status = "Revoked"
)

// Level is the status of one part of a platform.
type Level struct {
	Status     Status
	Date       time.Time // when Intel recovered the TCB to this level
	Advisories []string  // INTEL-SA-..., of faults that the level has
}

// TCB is Intel's word on a platform at the time of the collateral.
type TCB struct {
	Status     Status   // of all parts together
	Advisories []string // of all parts, sorted
	Platform   Level
	Module     *Level // of the TDX module; nil when the platform's level speaks for it
	QE         Level

	Number     int       // tcbEvaluationDataNumber of the TCB info
	Issued     time.Time // of the older of TCB info and QE identity
	NextUpdate time.Time // of the one to be replaced first
}

func (s status) level() Level {
	return Level{Status: s.Status, Date: s.Date, Advisories: s.Advisories}
}

// check refuses a status that this package could not order.
func (s status) check() error {
	if _, err := s.Status.needs(); err != nil {
		return err
	}
	if s.Date.IsZero() {
		return fmt.Errorf("status %s without a tcbDate", s.Status)
	}
	return nil
}

// needs are what a status is made of.
type needs uint8

const (
	needsHardening needs = 1 << iota
	needsConfiguration
	needsUpdate
	needsReplacement
)

func (s Status) needs() (needs, error) {
	switch s {
	case UpToDate:
		return 0, nil
	case SWHardeningNeeded:
		return needsHardening, nil
	case ConfigurationNeeded:
		return needsConfiguration, nil
	case ConfigurationAndSWHardeningNeeded:
		return needsConfiguration | needsHardening, nil
	case OutOfDate:
		return needsUpdate, nil
	case OutOfDateConfigurationNeeded:
		return needsUpdate | needsConfiguration, nil
	case Revoked:
		return needsReplacement, nil
	}
	return 0, fmt.Errorf("unknown TCB status %.60q", string(s))
}

// together is the status of parts that all must be well. Out of date outdoes
// hardening, for which there is no status of both (PCS, "Get TDX TCB Info", merging
// of the TDX module's status).
func together(parts ...Status) Status {
	var all needs
	for _, s := range parts {
		n, err := s.needs()
		if err != nil {
			return Revoked // check refused it before
		}
		all |= n
	}
	switch {
	case all&needsReplacement != 0:
		return Revoked
	case all&needsUpdate != 0 && all&needsConfiguration != 0:
		return OutOfDateConfigurationNeeded
	case all&needsUpdate != 0:
		return OutOfDate
	case all == needsConfiguration|needsHardening:
		return ConfigurationAndSWHardeningNeeded
	case all == needsConfiguration:
		return ConfigurationNeeded
	case all == needsHardening:
		return SWHardeningNeeded
	}
	return UpToDate
}

// level finds the platform's TCB level and the TDX module's (PCS, "Get TDX TCB
// Info", determination of the status of a TDX TCB level). Whether the status is good
// enough is a policy's matter.
func (t *tdxRun) level() error {
	pck, info := t.facts.PCK, t.info
	if !bytes.Equal(pck.FMSPC, info.FMSPC) || !bytes.Equal(pck.PCEID, info.PCEID) {
		return fmt.Errorf("the platform has FMSPC %s and PCE id %s, and the TCB info is for %x and %x: collect the platform's own", pck.FMSPC, pck.PCEID, []byte(info.FMSPC), []byte(info.PCEID))
	}
	module, err := t.module()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(info.Levels, func(l tcbLevel) bool { return t.short(l) == "" })
	if at < 0 {
		return fmt.Errorf("no TCB level is as low as the platform: its %s", t.short(info.Levels[len(info.Levels)-1]))
	}
	tcb := &TCB{
		Platform: info.Levels[at].level(), Module: module, QE: t.qe, Number: info.Number,
		Issued: earlier(info.IssueDate, t.enclave.IssueDate), NextUpdate: earlier(info.NextUpdate, t.enclave.NextUpdate),
	}
	parts := []Level{tcb.Platform, tcb.QE}
	if module != nil {
		parts = append(parts, *module)
	}
	var statuses []Status
	for _, p := range parts {
		statuses = append(statuses, p.Status)
		tcb.Advisories = append(tcb.Advisories, p.Advisories...)
	}
	slices.Sort(tcb.Advisories)
	tcb.Advisories = slices.Compact(tcb.Advisories)
	tcb.Status = together(statuses...)
	t.facts.TCB = tcb
	return nil
}

// module compares the TDX module with Intel's word on it: of the major version in
// TEE_TCB_SVN[1], or before there were any of the only one. It has a level of its
// own in the first case.
func (t *tdxRun) module() (*Level, error) {
	b := t.facts.Quote.Body
	version := b.TEETCBSVN[1]
	m := t.info.Module
	if version > 0 {
		id := fmt.Sprintf("TDX_%02x", version)
		at := slices.IndexFunc(t.info.Modules, func(m moduleInfo) bool { return strings.EqualFold(m.ID, id) })
		if at < 0 {
			return nil, fmt.Errorf("the TCB info has no TDX module %s", id)
		}
		m = t.info.Modules[at]
	}
	if !bytes.Equal(b.MRSIGNERSEAM, m.MRSIGNER) {
		return nil, fmt.Errorf("MRSIGNERSEAM is %s, want %x: not Intel's TDX module", b.MRSIGNERSEAM, []byte(m.MRSIGNER))
	}
	if !masked(b.SEAMAttributes, m.Mask, m.Attributes) {
		return nil, fmt.Errorf("SEAMATTRIBUTES are %s, want %x under mask %x: not a production TDX module", b.SEAMAttributes, []byte(m.Attributes), []byte(m.Mask))
	}
	if version == 0 {
		return nil, nil
	}
	l, ok := find(m.Levels, uint16(b.TEETCBSVN[0]))
	if !ok {
		return nil, fmt.Errorf("TDX module %s has security version %d, and no level is that low", m.ID, b.TEETCBSVN[0])
	}
	out := l.level()
	return &out, nil
}

// short says in what the platform falls short of a level, component by component;
// nothing when it reaches it. The first two of the TDX components are the module's,
// which has levels of its own from its major version 1 on.
func (t *tdxRun) short(l tcbLevel) string {
	svn := t.facts.Quote.TEETCBSVN
	first := 0
	if svn[1] > 0 {
		first = 2
	}
	lower := func(what string, got, want any) string {
		return fmt.Sprintf("%s is %d, and the lowest level has %d", what, got, want)
	}
	for i := range svnCount {
		if got, want := t.facts.PCK.SVN[i], l.TCB.SGX[i].SVN; got < want {
			return lower(fmt.Sprintf("SGX component %d", i+1), got, want)
		}
		if got, want := svn[i], l.TCB.TDX[i].SVN; i >= first && got < want {
			return lower(fmt.Sprintf("TDX component %d", i+1), got, want)
		}
	}
	if got, want := t.facts.PCK.PCESVN, l.TCB.PCESVN; got < want {
		return lower("PCESVN", got, want)
	}
	return ""
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
