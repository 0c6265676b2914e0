package tpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"
	"go.uber.org/goleak"

	"github.com/deepattest/deepattest/quote"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a connection whose other end is a function: it gets a command and
// returns what is to be read, nil for silence.
type fake struct {
	answer func(command []byte) []byte
	piece  int  // bytes a read returns at most, 0 for all
	hangUp bool // ends the connection behind the replies

	replies chan []byte
	left    []byte
	closed  chan struct{}
	once    sync.Once
}

func newFake(answer func(command []byte) []byte) *fake {
	return &fake{answer: answer, replies: make(chan []byte, 16), closed: make(chan struct{})}
}

func (f *fake) Write(command []byte) (int, error) {
	if reply := f.answer(bytes.Clone(command)); reply != nil {
		f.replies <- reply
	}
	return len(command), nil
}

func (f *fake) Read(p []byte) (int, error) {
	if len(f.left) == 0 {
		if f.hangUp && len(f.replies) == 0 {
			return 0, io.EOF
		}
		select {
		case f.left = <-f.replies:
		case <-f.closed:
			return 0, io.ErrClosedPipe
		}
	}
	n := min(len(p), len(f.left))
	if f.piece > 0 {
		n = min(n, f.piece)
	}
	copy(p, f.left[:n])
	f.left = f.left[n:]
	return n, nil
}

func (f *fake) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

// response builds a response without sessions.
func response(rc tpm2.TPMRC, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTNoSessions))
	b = binary.BigEndian.AppendUint32(b, uint32(headerSize+len(body)))
	b = binary.BigEndian.AppendUint32(b, uint32(rc))
	return append(b, body...)
}

// properties answers TPM2_GetCapability with a manufacturer and nothing else.
func properties() []byte {
	return response(0, unhex("00 00000006 00000001 00000105 46414b45")...)
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// openFake opens a TPM that answers with properties first and then as told.
func openFake(t *testing.T, answer func(command []byte) []byte) *TPM {
	t.Helper()
	first := true
	d, err := open(t.Context(), newFake(func(command []byte) []byte {
		if first {
			first = false
			return properties()
		}
		return answer(command)
	}), "fake:tpm")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestResponses(t *testing.T) {
	good := properties()
	huge := bytes.Clone(good)
	binary.BigEndian.PutUint32(huge[2:], 1<<31)
	large := append(bytes.Clone(good), make([]byte, 2*maxResponseSize)...)
	binary.BigEndian.PutUint32(large[2:], uint32(len(large)))
	tiny := bytes.Clone(good)
	binary.BigEndian.PutUint32(tiny[2:], 9)
	for _, x := range []struct {
		name  string
		reply []byte
		is    error
		want  string
	}{
		{"good", good, nil, ""},
		{"TPM 1.2", unhex("00c4 0000000a 0000001e"), ErrTPM12, "TPM 1.2"},
		{"nothing", nil, io.ErrUnexpectedEOF, "cut off after 0 of at least 10"},
		{"half a header", good[:5], io.ErrUnexpectedEOF, "cut off after 5 of at least 10"},
		{"short", good[:20], io.ErrUnexpectedEOF, "cut off after 20 of at least 27"},
		{"long", append(bytes.Clone(good), 0), nil, "1 bytes after"},
		{"huge", huge, nil, "claims 2147483648 bytes"},
		{"larger than the buffer", large, nil, "want 10 to 4096"},
		{"size below the header", tiny, nil, "claims 9 bytes"},
		{"no body", response(0), nil, "read properties"},
		{"not started", response(tpm2.TPMRCInitialize), tpm2.TPMRCInitialize, "TPM2_Startup"},
	} {
		t.Run(x.name, func(t *testing.T) {
			for _, piece := range []int{0, 1} {
				f := newFake(func([]byte) []byte { return x.reply })
				f.piece, f.hangUp = piece, true
				if piece == 1 && x.name == "long" {
					continue // the next command meets the byte that is left
				}
				d, err := open(t.Context(), f, "fake:tpm")
				if x.want == "" {
					if err != nil {
						t.Fatal(err)
					}
					if info, _ := d.Info(t.Context()); info.Manufacturer != "FAKE" {
						t.Errorf("info %+v", info)
					}
					if err := d.Close(); err != nil {
						t.Error(err)
					}
					continue
				}
				if err == nil || x.is != nil && !errors.Is(err, x.is) || !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), "fake:tpm") {
					t.Errorf("error %v, want %q and the address", err, x.want)
				}
				select {
				case <-f.closed:
				default:
					t.Error("connection left open")
				}
			}
		})
	}
}

// TestRepeats has a TPM put a command off several times, by every code that says
// so, and for ever.
func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		codes := []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate}
		var commands [][]byte
		d := openFake(t, func(command []byte) []byte {
			commands = append(commands, command)
			if n := len(commands); n <= len(codes) {
				return response(codes[n-1])
			}
			return response(0, unhex("00 00000005 00000001 000b 03 ffffff")...)
		})
		banks, err := d.Banks(t.Context())
		if err != nil || len(banks) != 1 || banks[0] != quote.SHA256 {
			t.Errorf("banks %v, %v", banks, err)
		}
		if len(commands) != len(codes)+1 || d.Commands() != len(commands)+1 {
			t.Errorf("%d commands sent, %d counted", len(commands), d.Commands())
		}
		for _, c := range commands {
			if !bytes.Equal(c, commands[0]) {
				t.Errorf("repeated as %x, want %x", c, commands[0])
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}

		d = openFake(t, func([]byte) []byte { return response(tpm2.TPMRCRetry) })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		_, err = d.Banks(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, tpm2.TPMRCRetry) || !strings.Contains(err.Error(), "fake:tpm") {
			t.Errorf("put off for ever: %v", err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("gave up after %v, want 3s", took)
		}
		if n := d.Commands(); n > 25 {
			t.Errorf("%d commands in 3 s", n)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestSilence has a TPM that answers its first command only.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openFake(t, func([]byte) []byte { return nil })
		wait := func(ctx context.Context, want time.Duration) {
			t.Helper()
			began := time.Now()
			_, err := d.Banks(ctx)
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "fake:tpm") || !strings.Contains(err.Error(), "TPM2_GetCapability") {
				t.Errorf("silence: %v", err)
			}
			if took := time.Since(began); took != want {
				t.Errorf("gave up after %v, want %v", took, want)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wait(ctx, time.Second)
		wait(t.Context(), commandLimit)
		began := time.Now()
		if err := d.Close(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v", err)
		}
		if took := time.Since(began); took != cleanupLimit {
			t.Errorf("closed after %v, want %v", took, cleanupLimit)
		}
		if d.Commands() != 2 {
			t.Errorf("%d commands, want 2: none while one is unanswered", d.Commands())
		}
	})
}

// TestTurns has one caller wait for another whose TPM is silent.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openFake(t, func([]byte) []byte { return nil })
		long, cancelLong := context.WithTimeout(t.Context(), time.Minute)
		defer cancelLong()
		go d.Banks(long)
		synctest.Wait()
		short, cancelShort := context.WithTimeout(t.Context(), time.Second)
		defer cancelShort()
		if _, err := d.Banks(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "in use") {
			t.Errorf("second caller: %v", err)
		}
		if err := d.Close(); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("close during a call: %v", err)
		}
		synctest.Wait() // the closed connection has ended the first call
	})
}

// TestPCRsChange has PCRs that are extended between the parts of a reading.
func TestPCRsChange(t *testing.T) {
	for _, x := range []struct {
		changes int // readings that see a change
		fails   bool
	}{{0, false}, {maxReadings - 1, false}, {maxReadings, true}} {
		counter, changes, reading := uint32(7), x.changes, 0
		d := openFake(t, func(command []byte) []byte {
			asked := command[len(command)-3:] // of one bank
			n := 0
			if asked[0] == 0 {
				n = 1
				if changes > 0 {
					changes--
					counter++
				}
			} else {
				reading++
			}
			selected := make([]byte, 3)
			selected[n] = asked[n]
			body := binary.BigEndian.AppendUint32(nil, counter)
			body = append(body, unhex("00000001 000b 03")...)
			body = append(body, selected...)
			body = append(body, 0, 0, 0, 8)
			for range 8 {
				body = append(append(body, 0, 32), bytes.Repeat([]byte{byte(reading)}, 32)...)
			}
			return response(0, body...)
		})
		sel, err := quote.ParseSelection("sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15")
		if err != nil {
			t.Fatal(err)
		}
		values, err := d.ReadPCRs(t.Context(), sel)
		switch {
		case x.fails:
			if !errors.Is(err, errPCRsChanged) {
				t.Errorf("%d changes: %v", x.changes, err)
			}
		case err != nil:
			t.Errorf("%d changes: %v", x.changes, err)
		default:
			for n, v := range values[quote.SHA256] {
				if v[0] != byte(x.changes+1) {
					t.Errorf("%d changes: PCR %d is of reading %d", x.changes, n, v[0])
				}
			}
			if len(values[quote.SHA256]) != 16 {
				t.Errorf("%d values, want 16", len(values[quote.SHA256]))
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestNVRead reads an index in parts, and indices that are odd.
func TestNVRead(t *testing.T) {
	public := func(attributes uint32, size uint16) []byte {
		area := binary.BigEndian.AppendUint32(unhex("01c00002 000b"), attributes)
		area = binary.BigEndian.AppendUint16(append(area, 0, 0), size)
		body := append(binary.BigEndian.AppendUint16(nil, uint16(len(area))), area...)
		return response(0, append(body, 0, 3, 0, 0x0b, 1)...)
	}
	const authRead, ownerRead, written = 1 << 18, 1 << 17, 1 << 29
	for _, x := range []struct {
		name       string
		attributes uint32
		size       uint16
		short      bool
		parts      int
		auth       uint32
		want       string
	}{
		{"one part", authRead | ownerRead | written, 1024, false, 1, 0x01c00002, ""},
		{"three parts", authRead | written, 2500, false, 3, 0x01c00002, ""},
		{"owner", ownerRead | written, 10, false, 1, uint32(tpm2.TPMRHOwner), ""},
		{"not written", authRead, 10, false, 0, 0, "no certificate"},
		{"too large", authRead | written, maxNV + 1, false, 0, 0, "at most 16384"},
		{"nothing", authRead | written, 10, true, 1, 0x01c00002, "0 bytes at offset 0 of 10"},
	} {
		parts := 0
		d := openFake(t, func(command []byte) []byte {
			if commandCode(command) == tpm2.TPMCCNVReadPublic {
				return public(x.attributes, x.size)
			}
			parts++
			if auth := binary.BigEndian.Uint32(command[headerSize:]); auth != x.auth {
				t.Errorf("%s: authorized by 0x%x, want 0x%x", x.name, auth, x.auth)
			}
			size := binary.BigEndian.Uint16(command[len(command)-4:])
			if x.short {
				size = 0
			}
			params := binary.BigEndian.AppendUint16(nil, size)
			params = append(params, make([]byte, size)...)
			body := append(binary.BigEndian.AppendUint32(nil, uint32(len(params))), params...)
			rsp := response(0, append(body, 0, 0, 1, 0, 0)...) // the password's answer
			binary.BigEndian.PutUint16(rsp, uint16(tpm2.TPMSTSessions))
			return rsp
		})
		cert, err := d.EKCertificate(t.Context(), &EK{Alg: RSA2048, certificate: nvRSA2048Certificate})
		if x.want == "" && (err != nil || len(cert.DER) != int(x.size)) || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s: %d bytes, %v, want %q", x.name, len(cert.DER), err, x.want)
		}
		if parts != x.parts {
			t.Errorf("%s: %d reads, want %d", x.name, parts, x.parts)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCertificatesIn(t *testing.T) {
	a, b := unhex("3003020105"), unhex("3003020106")
	for _, x := range []struct {
		index uint32
		data  []byte
		want  [][]byte
	}{
		{nvRSA2048Certificate, a, [][]byte{a}},
		{nvRSA2048Certificate, append(bytes.Clone(a), 0xff), [][]byte{append(bytes.Clone(a), 0xff)}},
		{nvRSA2048Certificate, unhex("1001000007" + "10023003020105ff"), [][]byte{unhex("1001000007" + "10023003020105ff")}}, // a TPM 1.2's wrapper
		{nvChainFirst, append(unhex("1001000007"+"10023003020105"), b...), [][]byte{a, b}},
		{nvRSA2048Certificate, unhex("0023000b000300b2"), nil}, // a template
		{nvRSA2048Certificate, nil, nil},
		{nvChainFirst, append(bytes.Clone(a), b...), [][]byte{a, b}},
		{nvChainFirst, append(bytes.Clone(a), 0xff, 0xff), [][]byte{append(bytes.Clone(a), 0xff, 0xff)}},
	} {
		got := certificatesIn(x.index, x.data)
		if len(got) != len(x.want) {
			t.Errorf("%x in 0x%08x: %d certificates, want %d", x.data, x.index, len(got), len(x.want))
			continue
		}
		for i := range got {
			if !bytes.Equal(got[i].DER, x.want[i]) || got[i].Index != x.index {
				t.Errorf("%x in 0x%08x: certificate %d is %x", x.data, x.index, i, got[i].DER)
			}
		}
	}
}

func TestSetNonce(t *testing.T) {
	for _, alg := range []KeyAlg{RSA2048, ECCP256} {
		template, err := ekTemplate(alg)
		if err != nil {
			t.Fatal(err)
		}
		plain := tpm2.Marshal(template)
		if err := setNonce(&template, nil); err != nil || !bytes.Equal(tpm2.Marshal(template), plain) {
			t.Errorf("%s: no nonce changed the template: %v", alg, err)
		}
		if err := setNonce(&template, []byte{1, 2, 3}); err != nil {
			t.Fatal(err)
		}
		with := tpm2.Marshal(template)
		at := map[KeyAlg]int{RSA2048: len(plain) - 256, ECCP256: len(plain) - 32 - 2 - 32}[alg]
		want := bytes.Clone(plain)
		copy(want[at:], []byte{1, 2, 3})
		if !bytes.Equal(with, want) {
			t.Errorf("%s: with nonce\n%x\nwant\n%x", alg, with, want)
		}
		if err := setNonce(&template, make([]byte, 257)); err == nil {
			t.Errorf("%s: a nonce of 257 bytes was accepted", alg)
		}
	}
}

func TestOpenHints(t *testing.T) {
	for _, x := range []struct {
		err  error
		is   error
		want string
	}{
		{syscall.ENOENT, fs.ErrNotExist, "vTPM"},
		{syscall.EACCES, fs.ErrPermission, "tss"},
		{syscall.EBUSY, syscall.EBUSY, "/dev/tpmrm0"},
		{syscall.ECONNREFUSED, syscall.ECONNREFUSED, "emulator"},
	} {
		err := openError("device:/dev/tpm0", &fs.PathError{Op: "open", Path: "/dev/tpm0", Err: x.err})
		if !errors.Is(err, x.is) || !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), "device:/dev/tpm0") {
			t.Errorf("%v: %v, want %q", x.err, err, x.want)
		}
	}
}

func TestKeyAlgNames(t *testing.T) {
	for _, a := range []KeyAlg{AnyKey, ECCP256, ECCP384, RSA2048, RSA3072} {
		if got, err := ParseKeyAlg(a.String()); err != nil || got != a {
			t.Errorf("ParseKeyAlg(%q) is %v, %v", a, got, err)
		}
	}
	if _, err := ParseKeyAlg("rsa-1024"); err == nil {
		t.Error("rsa-1024 was accepted")
	}
}
