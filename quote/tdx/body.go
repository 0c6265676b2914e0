package tdx

import (
	"strings"

	"github.com/deepattest/deepattest/quote"
)

// Attributes are a TD's (Module, table "ATTRIBUTES (TD Attributes) Definition").
type Attributes uint64

// Bits of the attributes. The low 8 bits are the group TUD, "TD under debug".
const (
	AttributeDebug         Attributes = 1 << 0
	AttributeSEPTVEDisable Attributes = 1 << 28 // no #VE when the host takes a page away
	AttributeMigratable    Attributes = 1 << 29
	AttributePKS           Attributes = 1 << 30
	AttributeKL            Attributes = 1 << 31
	AttributePERFMON       Attributes = 1 << 63

	attributesDebugGroup Attributes = 0xFF
)

// Debug tells whether the host may read and change the TD's memory: any bit of the
// group TUD makes a TD untrusted, those not defined yet too.
func (a Attributes) Debug() bool { return a&attributesDebugGroup != 0 }

// Migratable tells whether a migration TD may move the TD to another host: it is as
// safe as the migration TD, whose measurement is in MRSERVICETD.
func (a Attributes) Migratable() bool { return a&AttributeMigratable != 0 }

func (a Attributes) String() string {
	var names []string
	for _, x := range []struct {
		bit  Attributes
		name string
	}{
		{attributesDebugGroup, "debug"}, {AttributeSEPTVEDisable, "SEPT_VE_DISABLE"}, {AttributeMigratable, "migratable"},
		{AttributePKS, "PKS"}, {AttributeKL, "KL"}, {AttributePERFMON, "PERFMON"},
	} {
		if a&x.bit != 0 {
			names = append(names, x.name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, "|")
}

// NumRTMR is the number of a TD's run-time measurement registers.
const NumRTMR = 4

// Sizes of a quote's body (DCAP, tables "TD Quote Body Descriptor" and "TD Quote
// Body").
const (
	bodySize10 = 584
	bodySize15 = bodySize10 + 16 + 48
)

// Body is what a quote says of a TD and of the TDX module that runs it. The byte
// fields are parts of the bytes that were read.
type Body struct {
	TEETCBSVN      quote.Hex // 16 security version numbers: [0] of the module, [1] its major version
	MRSEAM         quote.Hex // SHA-384 of the TDX module
	MRSIGNERSEAM   quote.Hex // zeros for Intel's module
	SEAMAttributes quote.Hex // 8 bytes, zeros for Intel's module
	Attributes     Attributes
	XFAM           uint64 // extended features that the TD may use
	MRTD           quote.Hex
	MRCONFIGID     quote.Hex
	MROWNER        quote.Hex
	MROWNERCONFIG  quote.Hex
	RTMR           [NumRTMR]quote.Hex
	ReportData     quote.Hex // 64 bytes

	// TDX 1.5 only, nil before: the version of the module that runs now, where it
	// was updated under the TD, and the measurement of service TDs.
	TEETCBSVN2  quote.Hex
	MRSERVICETD quote.Hex
}

// body reads the fields in the order of a quote.
func (r *reader) body(v15 bool) Body {
	b := Body{
		TEETCBSVN:      r.bytes(16, "TEE_TCB_SVN"),
		MRSEAM:         r.bytes(48, "MRSEAM"),
		MRSIGNERSEAM:   r.bytes(48, "MRSIGNERSEAM"),
		SEAMAttributes: r.bytes(8, "SEAMATTRIBUTES"),
	}
	r.measurements(&b)
	b.ReportData = r.bytes(64, "REPORTDATA")
	if v15 {
		b.TEETCBSVN2 = r.bytes(16, "TEE_TCB_SVN_2")
		b.MRSERVICETD = r.bytes(48, "MRSERVICETD")
	}
	return b
}

// measurements reads the fields that quotes and TDINFO_STRUCT have alike.
func (r *reader) measurements(b *Body) {
	b.Attributes = Attributes(r.u64("ATTRIBUTES"))
	b.XFAM = r.u64("XFAM")
	b.MRTD = r.bytes(48, "MRTD")
	b.MRCONFIGID = r.bytes(48, "MRCONFIGID")
	b.MROWNER = r.bytes(48, "MROWNER")
	b.MROWNERCONFIG = r.bytes(48, "MROWNERCONFIG")
	for i := range b.RTMR {
		b.RTMR[i] = r.bytes(48, "RTMR")
	}
}
