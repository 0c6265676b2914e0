package tdx

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/deepattest/deepattest/quote"
)

// fill returns n bytes of one value, which tells fields from each other.
func fill(n int, v byte) []byte { return bytes.Repeat([]byte{v}, n) }

// bodyBytes is a body in which each field has a value of its own.
func bodyBytes(v15 bool) []byte {
	b := bytes.Join([][]byte{
		fill(16, 1), fill(48, 2), fill(48, 3), fill(8, 4), {1, 0, 0, 0x30, 0, 0, 0, 0x80}, fill(8, 6),
		fill(48, 7), fill(48, 8), fill(48, 9), fill(48, 10), fill(48, 11), fill(48, 12), fill(48, 13), fill(48, 14), fill(64, 15),
	}, nil)
	if v15 {
		b = append(append(b, fill(16, 16)...), fill(48, 17)...)
	}
	return b
}

// parts of a quote that tests change.
type parts struct {
	header, descriptor, body, signature, key, qe, qeSignature, auth, chain []byte
	outer, inner                                                           uint16 // kinds of certification data
}

func good(version uint16) parts {
	h := make([]byte, headerSize)
	binary.LittleEndian.PutUint16(h, version)
	h[2], h[4] = keyECDSAP256, teeType
	vendor, _ := hex.DecodeString(intelQE)
	copy(h[12:], vendor)
	copy(h[28:], fill(20, 0x77))
	qe := make([]byte, enclaveReportSize)
	copy(qe[16:], []byte{0, 0, 0, 5})
	copy(qe[48:], fill(16, 0x21))
	copy(qe[64:], fill(32, 0x22))
	copy(qe[128:], fill(32, 0x23))
	copy(qe[256:], []byte{2, 0, 7, 0})
	copy(qe[320:], fill(64, 0x24))
	p := parts{
		header: h, body: bodyBytes(version == 5), signature: fill(64, 0x31), key: fill(64, 0x32), qe: qe,
		qeSignature: fill(64, 0x33), auth: fill(32, 0x34), outer: certQEReport, inner: certPCKChain,
		chain: bytes.Join([][]byte{certPEM(1), certPEM(2), certPEM(3), {0}}, nil),
	}
	if version == 5 {
		p.descriptor = binary.LittleEndian.AppendUint32([]byte{bodyTDX15, 0}, bodySize15)
	}
	return p
}

func certPEM(v byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: fill(70, v)})
}

func data(kind uint16, b []byte) []byte {
	out := binary.LittleEndian.AppendUint16(nil, kind)
	return append(binary.LittleEndian.AppendUint32(out, uint32(len(b))), b...)
}

func (p parts) bytes() []byte {
	qe := bytes.Join([][]byte{
		p.qe, p.qeSignature, binary.LittleEndian.AppendUint16(nil, uint16(len(p.auth))), p.auth, data(p.inner, p.chain),
	}, nil)
	signature := bytes.Join([][]byte{p.signature, p.key, data(p.outer, qe)}, nil)
	return bytes.Join([][]byte{
		p.header, p.descriptor, p.body, binary.LittleEndian.AppendUint32(nil, uint32(len(signature))), signature,
	}, nil)
}

func all(b []byte, n int, v byte) bool { return bytes.Equal(b, fill(n, v)) }

func TestParseQuote(t *testing.T) {
	for version, signed := range map[uint16]int{4: 48 + 584, 5: 48 + 6 + 648} {
		raw := good(version).bytes()
		q, err := ParseQuote(append(bytes.Clone(raw), make([]byte, 99)...))
		if err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		for name, ok := range map[string]bool{
			"raw without padding": bytes.Equal(q.Raw, raw),
			"version":             q.Version == version,
			"user data":           all(q.UserData, 20, 0x77),
			"TEE_TCB_SVN":         all(q.TEETCBSVN, 16, 1),
			"MRSEAM":              all(q.MRSEAM, 48, 2),
			"MRSIGNERSEAM":        all(q.MRSIGNERSEAM, 48, 3),
			"SEAMATTRIBUTES":      all(q.SEAMAttributes, 8, 4),
			"ATTRIBUTES":          q.Attributes.String() == "debug|SEPT_VE_DISABLE|migratable|PERFMON",
			"XFAM":                q.XFAM == 0x0606060606060606,
			"MRTD":                all(q.MRTD, 48, 7),
			"MRCONFIGID":          all(q.MRCONFIGID, 48, 8),
			"MROWNER":             all(q.MROWNER, 48, 9),
			"MROWNERCONFIG":       all(q.MROWNERCONFIG, 48, 10),
			"RTMR0":               all(q.RTMR[0], 48, 11),
			"RTMR3":               all(q.RTMR[3], 48, 14),
			"REPORTDATA":          all(q.ReportData, 64, 15),
			"TEE_TCB_SVN_2":       version == 4 && q.TEETCBSVN2 == nil || all(q.TEETCBSVN2, 16, 16),
			"MRSERVICETD":         version == 4 && q.MRSERVICETD == nil || all(q.MRSERVICETD, 48, 17),
			"signed":              len(q.Signed()) == signed,
			"signature":           all(q.Signature[:], 64, 0x31),
			"attestation key":     all(q.AttestationKey, 64, 0x32),
			"QE report":           len(q.QE.Raw) == enclaveReportSize,
			"MISCSELECT":          bytes.Equal(q.QE.MISCSELECT, []byte{0, 0, 0, 5}),
			"QE attributes":       all(q.QE.Attributes, 16, 0x21),
			"MRENCLAVE":           all(q.QE.MRENCLAVE, 32, 0x22),
			"MRSIGNER":            all(q.QE.MRSIGNER, 32, 0x23),
			"ISVPRODID, ISVSVN":   q.QE.ISVProdID == 2 && q.QE.ISVSVN == 7,
			"QE REPORTDATA":       all(q.QE.ReportData, 64, 0x24),
			"QE signature":        all(q.QESignature[:], 64, 0x33),
			"QE data":             all(q.QEAuthData, 32, 0x34),
			"chain":               len(q.PCKChain) == 3 && all(q.PCKChain[0], 70, 1) && all(q.PCKChain[2], 70, 3),
		} {
			if !ok {
				t.Errorf("version %d: %s is wrong", version, name)
			}
		}
	}
}

// A version 5 quote may hold the body of TDX 1.0 too.
func TestParseQuoteBodyTypes(t *testing.T) {
	p := good(5)
	p.descriptor, p.body = binary.LittleEndian.AppendUint32([]byte{bodyTDX10, 0}, bodySize10), bodyBytes(false)
	q, err := ParseQuote(p.bytes())
	if err != nil || q.MRSERVICETD != nil || len(q.Signed()) != 48+6+584 {
		t.Errorf("TDX 1.0 body in version 5: %v", err)
	}
}

func TestParseQuoteRefuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		version uint16
		change  func(*parts)
		offset  int
		want    string
	}{
		{"version 3", 4, func(p *parts) { p.header[0] = 3 }, 0, "version: 3"},
		{"version 6", 4, func(p *parts) { p.header[0] = 6 }, 0, "version: 6"},
		{"P-384 key", 4, func(p *parts) { p.header[2] = 3 }, 2, "attestation key type: 3"},
		{"SGX", 4, func(p *parts) { p.header[4] = 0 }, 4, "TEE type: 0x0"},
		{"another maker's QE", 4, func(p *parts) { p.header[12] ^= 1 }, 12, "QE vendor id"},
		{"body type 1", 5, func(p *parts) { p.descriptor[0] = 1 }, 48, "body type 1 of 648"},
		{"body of the other size", 5, func(p *parts) { binary.LittleEndian.PutUint32(p.descriptor[2:], bodySize10) }, 48, "body type 3 of 584"},
		{"QE report missing", 4, func(p *parts) { p.outer = 5 }, 764, "certification data type: 5, want 6"},
		{"no PCK chain", 4, func(p *parts) { p.inner = 3 }, 764 + 6 + 384 + 64 + 2 + 32, "certification data type: 3, want 5"},
		{"empty chain", 4, func(p *parts) { p.chain = nil }, 1258, "empty"},
		{"chain of zeros", 4, func(p *parts) { p.chain = make([]byte, 9) }, 1258, "empty"},
		{"text before the chain", 4, func(p *parts) { p.chain = append([]byte("x"), p.chain...) }, 1258, "want a PEM certificate"},
		{"text between", 4, func(p *parts) {
			p.chain = bytes.Join([][]byte{certPEM(1), []byte("x\n"), certPEM(2)}, nil)
		}, 1258 + len(certPEM(1)), "want a PEM certificate"},
		{"key in the chain", 4, func(p *parts) { p.chain = bytes.ReplaceAll(p.chain, []byte("CERTIFICATE"), []byte("PRIVATE KEY")) }, 1258, "PEM"},
		{"damaged certificate", 4, func(p *parts) { p.chain[40] = '!' }, 1258, "not a PEM certificate"},
		{"long chain", 4, func(p *parts) { p.chain = bytes.Repeat(certPEM(1), MaxCertificates+1) }, 1258 + MaxCertificates*len(certPEM(1)), "more than 8"},
		{"huge chain", 4, func(p *parts) { p.chain = bytes.Repeat([]byte("\n"), MaxPCKChain+1) }, 1258, "at most 16384"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := good(c.version)
			c.change(&p)
			refused(t, p.bytes(), c.offset, c.want)
		})
	}
	b := good(4).bytes()
	lengths := []struct {
		name   string
		at     int
		put    uint32
		offset int
		want   string
	}{
		{"signature data over the end", 632, uint32(len(b)), 632, "bytes left"},
		{"signature data of 4 GiB", 632, 0xFFFFFFFF, 632, "at most 32768"},
		{"signature data short by one", 632, uint32(len(b) - 636 - 1), 766, "certification data length"},
		{"signature data empty", 632, 0, 636, "signature: want 64 bytes, 0 left"},
		{"QE data short", 766, 10, 766, "certification data length: 10"},
		{"chain over the end", 1254, 0xFFFF, 1254, "at most 32768"},
		{"chain short", 1254, 7, 1254, "certification data length: 7"},
	}
	for _, c := range lengths {
		t.Run(c.name, func(t *testing.T) {
			d := bytes.Clone(b)
			binary.LittleEndian.PutUint32(d[c.at:], c.put)
			refused(t, d, c.offset, c.want)
		})
	}
	refused(t, append(bytes.Clone(b), 0, 1), len(b)+1, "after the quote: reserved byte 0x01")
	refused(t, make([]byte, MaxQuote+1), 0, "at most")
	for n := range b {
		if _, err := ParseQuote(b[:n]); err == nil {
			t.Errorf("a quote cut to %d of %d bytes was read", n, len(b))
		}
	}
}

func refused(t *testing.T, b []byte, offset int, want string) {
	t.Helper()
	_, err := ParseQuote(b)
	var p *quote.ParseError
	if !errors.As(err, &p) || p.Offset != offset || !strings.Contains(p.Reason, want) {
		t.Errorf("got %v, want offset %d and %q", err, offset, want)
	}
}

func TestAttributes(t *testing.T) {
	for bit := range 64 {
		a := Attributes(1) << bit
		if a.Debug() != (bit < 8) || a.Migratable() != (bit == 29) {
			t.Errorf("bit %d: debug %t, migratable %t", bit, a.Debug(), a.Migratable())
		}
	}
	if s := Attributes(0).String(); s != "none" {
		t.Errorf("no attributes: %q", s)
	}
}

func goodReport(version byte) []byte {
	b := make([]byte, ReportSize)
	b[0], b[2] = teeType, version
	copy(b[16:], fill(16, 0x41))
	copy(b[128:], fill(64, 15))
	copy(b[224:], fill(32, 0x42))
	body := bodyBytes(true)
	copy(b[256:], fill(8, 0xFF))
	copy(b[264:], body[:120])    // TEE_TCB_SVN to SEAMATTRIBUTES
	copy(b[512:], body[120:520]) // ATTRIBUTES to RTMR3
	if version > 0 {
		copy(b[384:], body[584:600])
		copy(b[912:], body[600:])
	}
	h := sha512.Sum384(b[256:495])
	copy(b[32:], h[:])
	h = sha512.Sum384(b[512:])
	copy(b[80:], h[:])
	return b
}

func TestParseReport(t *testing.T) {
	for _, version := range []byte{0, 1} {
		r, err := ParseReport(goodReport(version))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.CheckHashes(); err != nil {
			t.Error(err)
		}
		q, err := ParseQuote(good(4 + uint16(version)).bytes())
		if err != nil {
			t.Fatal(err)
		}
		for name, ok := range map[string]bool{
			"MRTD":        bytes.Equal(r.MRTD, q.MRTD),
			"RTMR3":       bytes.Equal(r.RTMR[3], q.RTMR[3]),
			"REPORTDATA":  bytes.Equal(r.ReportData, q.ReportData),
			"MRSEAM":      bytes.Equal(r.MRSEAM, q.MRSEAM),
			"ATTRIBUTES":  r.Attributes == q.Attributes && r.XFAM == q.XFAM,
			"TEE_TCB_SVN": bytes.Equal(r.TEETCBSVN, q.TEETCBSVN) && bytes.Equal(r.TEETCBSVN2, q.TEETCBSVN2),
			"MRSERVICETD": bytes.Equal(r.MRSERVICETD, q.MRSERVICETD),
			"MAC, CPUSVN": all(r.MAC, 32, 0x42) && all(r.CPUSVN, 16, 0x41),
		} {
			if !ok {
				t.Errorf("version %d: %s: report and quote of the same TD differ", version, name)
			}
		}
	}
	for _, at := range []int{0, 1, 3, 4, 192, 400, 494, 495, 511, 960, 1023} {
		b := goodReport(0)
		b[at] ^= 2
		if _, err := ParseReport(b); err == nil {
			t.Errorf("byte %d: a reserved value was accepted", at)
		}
	}
	for _, at := range []int{32, 80, 264, 512, 1000 - 100} {
		b := goodReport(0)
		b[at] ^= 2
		if r, err := ParseReport(b); err == nil && r.CheckHashes() == nil {
			t.Errorf("byte %d: a hash that does not join was accepted", at)
		}
	}
	for _, n := range []int{0, 1023, 1025} {
		if _, err := ParseReport(make([]byte, n)); err == nil {
			t.Errorf("%d bytes were read", n)
		}
	}
}

func FuzzParseQuote(f *testing.F) {
	f.Add(good(4).bytes())
	f.Add(good(5).bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := ParseQuote(b)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, q.Raw) || len(q.PCKChain) == 0 || len(q.QE.Raw) != enclaveReportSize || len(q.ReportData) != 64 {
			t.Error("a quote was read that is not whole")
		}
		again, err := ParseQuote(q.Raw)
		if err != nil || !bytes.Equal(again.Signed(), q.Signed()) {
			t.Errorf("without its padding: %v", err)
		}
	})
}

func FuzzParseReport(f *testing.F) {
	f.Add(goodReport(0))
	f.Add(goodReport(1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseReport(b); err == nil && (len(r.MRTD) != 48 || len(r.ReportData) != 64) {
			t.Error("a report was read that is not whole")
		}
	})
}
