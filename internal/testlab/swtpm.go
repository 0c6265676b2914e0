package testlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// SWTPM is a running software TPM, 2.0 unless its options say otherwise, with plain command framing, as package
// tpm opens it.
type SWTPM struct {
	Dir     string // the TPM's state: keys, NV memory
	Address string // "unix:PATH" or "tcp:HOST:PORT", for tpm.Open

	process *exec.Cmd
	exited  chan struct{} // closed after Wait
	log     *bytes.Buffer // swtpm's stderr: read only after exited
	control string        // path of the control channel, of a TPM 1.2
	socket  string        // folder of the unix socket, removed by Stop
}

// SWTPMOptions says how StartSWTPM makes a TPM.
type SWTPMOptions struct {
	TCP   bool     // listen on 127.0.0.1, any port; otherwise on a unix socket
	Banks string   // PCR banks for a new TPM; "" is "sha1,sha256,sha384"
	VMID  string   // "name:uuid", the subject of a new TPM's certificates
	CA    *LocalCA // issues a new TPM's certificates; nil makes a TPM without any
	Tool  string   // issues them in the place of a CA: a program with swtpm_localca's command line

	// Certificates is a folder that gets a new TPM's EK certificates as files, the
	// way a hypervisor registers them.
	Certificates string

	// V12 makes a TPM 1.2 with an owner, whose secret is SHA-1 of Owner, as is that
	// of the SRK. It has no Banks and no VMID, and listens on a unix socket.
	V12   bool
	Owner string
}

// Limits of waiting for swtpm's programs. A setup makes an RSA key, and the first
// one with a CA makes the CA's keys too: about a second.
const (
	setupLimit = time.Minute
	stopLimit  = 5 * time.Second
)

// LookSWTPM reports whether swtpm's programs are installed; the error says what to
// install.
func LookSWTPM() error {
	for _, program := range []string{"swtpm", "swtpm_setup", "swtpm_localca"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed: apt-get install swtpm swtpm-tools", program)
		}
	}
	return nil
}

// RequireSWTPM skips a test where swtpm is not installed, and fails it instead
// when DEEPATTEST_NEED_SWTPM=1 says that it has to be there. t is a *testing.T.
func RequireSWTPM(t interface {
	Helper()
	Skip(args ...any)
	Fatal(args ...any)
}) {
	t.Helper()
	err := LookSWTPM()
	switch {
	case err == nil:
	case os.Getenv("DEEPATTEST_NEED_SWTPM") == "1":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// StartSWTPM runs a TPM 2.0 whose state is in dir. A folder without a TPM gets a
// new one, with RSA-2048 and P-384 EKs in the handles that the TCG reserves for
// them and, with a CA, certificates in NV memory. Starting again in the same
// folder is a reboot: same keys, PCRs reset. ctx limits the start only; the
// process ends with Stop, or when this program does.
func StartSWTPM(ctx context.Context, dir string, opts SWTPMOptions) (*SWTPM, error) {
	if err := LookSWTPM(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := SetupSWTPM(ctx, dir, opts); err != nil {
		return nil, err
	}
	s := &SWTPM{Dir: dir, exited: make(chan struct{}), log: new(bytes.Buffer)}
	listener, err := s.listen(ctx, opts.TCP)
	if err != nil {
		return nil, errors.Join(err, s.removeSocket())
	}
	defer listener.Close()
	// swtpm takes over a socket that already listens, so that nobody has to guess
	// a free port or wait until it is there. It accepts on it whatever its family
	// is, but only under the name "unixio": with type=tcp it would take the
	// descriptor for a connection.
	args := []string{"socket", "--tpmstate", "dir=" + dir, "--server", "type=unixio,fd=3", "--flags", "not-need-init,startup-clear"}
	files := []*os.File{listener}
	if opts.V12 {
		control, err := s.listenControl(ctx)
		if err != nil {
			return nil, errors.Join(err, s.removeSocket())
		}
		defer control.Close()
		args = append(args, "--ctrl", "type=unixio,fd=4", "--locality", "allow-set-locality")
		files = append(files, control)
	} else {
		args = append(args, "--tpm2")
	}
	s.process = exec.Command("swtpm", args...)
	s.process.ExtraFiles = files
	s.process.Stdout, s.process.Stderr = s.log, s.log
	s.process.SysProcAttr = EndWithParent()
	if err := s.process.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start swtpm: %w", err), s.removeSocket())
	}
	go func() {
		_ = s.process.Wait() // Stop reports what was not expected
		close(s.exited)
	}()
	if err := s.ready(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// listen opens the socket on which swtpm will serve, and sets Address. Unix
// socket names have at most 107 bytes, which a test's folder may exceed, so the
// socket has a folder of its own.
func (s *SWTPM) listen(ctx context.Context, tcp bool) (*os.File, error) {
	var config net.ListenConfig
	if tcp {
		l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		s.Address = "tcp:" + l.Addr().String()
		return l.(*net.TCPListener).File()
	}
	var err error
	if s.socket, err = os.MkdirTemp("", "swtpm"); err != nil {
		return nil, err
	}
	path := filepath.Join(s.socket, "sock")
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	unix := l.(*net.UnixListener)
	unix.SetUnlinkOnClose(false)
	defer unix.Close()
	s.Address = "unix:" + path
	return unix.File()
}

// ready waits until swtpm answers, which it does on the socket that has listened
// since before it started.
func (s *SWTPM) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	go func() {
		select {
		case <-s.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	network, where, _ := strings.Cut(s.Address, ":")
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, where)
	if err != nil {
		return fmt.Errorf("start swtpm in %s: %w", s.Dir, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES, TPM_PT_FAMILY_INDICATOR, 1). A TPM
	// 1.2 does not know the tag, and says so.
	if _, err = conn.Write([]byte("\x80\x01\x00\x00\x00\x16\x00\x00\x01\x7a\x00\x00\x00\x06\x00\x00\x01\x00\x00\x00\x00\x01")); err == nil {
		_, err = conn.Read(make([]byte, 4096))
	}
	if err != nil {
		return fmt.Errorf("start swtpm in %s: no answer: %w", s.Dir, err)
	}
	return nil
}

// Stop ends the process and waits for it. Stopping twice is harmless. The TPM's
// state stays in Dir.
func (s *SWTPM) Stop() error {
	var err error
	select {
	case <-s.exited:
	default:
		_ = s.process.Process.Signal(syscall.SIGTERM) // fails only when it has ended
		timer := time.NewTimer(stopLimit)
		defer timer.Stop()
		select {
		case <-s.exited:
		case <-timer.C:
			_ = s.process.Process.Kill()
			<-s.exited
			err = fmt.Errorf("swtpm in %s did not end within %v and was killed", s.Dir, stopLimit)
		}
	}
	if state := s.process.ProcessState; err == nil && !state.Success() && state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		err = fmt.Errorf("swtpm in %s: %s: %s", s.Dir, state, lastLines(s.log.Bytes()))
	}
	return errors.Join(err, s.removeSocket())
}

func (s *SWTPM) removeSocket() error {
	if s.socket == "" {
		return nil
	}
	return os.RemoveAll(s.socket)
}

// SetupSWTPM makes a new TPM in dir, which must exist, and starts nothing; a TPM that
// is there already is left alone.
func SetupSWTPM(ctx context.Context, dir string, opts SWTPMOptions) error {
	banks := opts.Banks
	if banks == "" {
		banks = "sha1,sha256,sha384"
	}
	args := []string{"--tpmstate", dir, "--createek", "--lock-nvram", "--not-overwrite"}
	if opts.V12 {
		args = append(args, "--take-ownership", "--srkpass", opts.Owner, "--ownerpass", opts.Owner)
	} else {
		args = append(args, "--tpm2", "--pcr-banks", banks)
	}
	if opts.CA != nil {
		if err := opts.CA.configure(); err != nil {
			return err
		}
		args = append(args, "--config", opts.CA.path("swtpm_setup.conf"))
	} else {
		// The system's configuration names a CA in a folder of the system's.
		conf, text := filepath.Join(dir, "swtpm_setup.conf"), ""
		if opts.Tool != "" {
			text = "create_certs_tool = " + opts.Tool + "\n"
		}
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return err
		}
		args = append(args, "--config", conf)
	}
	if opts.CA != nil || opts.Tool != "" {
		args = append(args, "--create-ek-cert", "--create-platform-cert")
		if opts.VMID != "" {
			if !vmid.MatchString(opts.VMID) {
				return fmt.Errorf("VM %q: want NAME:UUID with letters, digits, dots and dashes in the name", opts.VMID)
			}
			args = append(args, "--vmid", opts.VMID)
		}
		if opts.Certificates != "" {
			args = append(args, "--write-ek-cert-files", opts.Certificates)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "swtpm_setup", args...)
	// swtpm_setup starts swtpm and the certificate tool: SIGTERM lets it end them.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopLimit
	cmd.SysProcAttr = EndWithParent()
	var progress, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &progress, &complaint
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("swtpm_setup in %s: %w: %s", dir, err, lastLines(append(progress.Bytes(), complaint.Bytes()...)))
	}
	return nil
}

// vmid keeps what ends up in a certificate's subject free of separators.
var vmid = regexp.MustCompile(`^[A-Za-z0-9._-]+:[0-9a-fA-F-]{36}$`)

// lastLines shortens a program's output to what an error has room for.
func lastLines(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-4):], "; ")
}
