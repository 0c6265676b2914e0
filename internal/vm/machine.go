package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/deepattest/deepattest/internal/testlab"
)

// Config is one machine. Dir is mandatory, and so is a boot source: a disk with
// Boot set, or Kernel.
type Config struct {
	Dir       string // for the console's text, firmware variables and results
	TPM       string // swtpm's state folder; empty: no TPM
	UUID      string // SMBIOS system UUID
	MemoryMiB int    // 0 is 256; OVMF's PCR 0 follows it
	KVM       bool   // only after Probe

	Code string // OVMF code; empty boots with SeaBIOS
	Vars string // OVMF variables, copied for this boot
	SMM  bool   // OVMFCodeSMM wants it

	Kernel, Initrd, CommandLine string // boots a kernel without boot loader

	Disks   []Disk
	Input   []byte // tar archive, the disk with serial "in"
	Network bool   // user networking: 10.0.2.15, the machine that runs this is 10.0.2.2
	Forward int    // a port of the guest that Port leads to; 0: none
}

// Disk is one virtio disk. Writes are discarded.
type Disk struct {
	Serial, File string
	Boot         bool
}

// outputSize is that of the disk with serial "out", which takes the results.
const outputSize = 64 << 20

// Machine is a running or ended machine.
type Machine struct {
	cfg     Config
	port    int
	qemu    *process
	swtpm   *process
	qmp     *qmp
	sockets string
	started time.Time
}

// process is a child with its standard error.
type process struct {
	cmd    *exec.Cmd
	text   *bytes.Buffer // read only after exited
	exited chan struct{}
}

func startProcess(files []*os.File, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), text: new(bytes.Buffer), exited: make(chan struct{})}
	p.cmd.ExtraFiles = files
	p.cmd.Stdout, p.cmd.Stderr = p.text, p.text
	p.cmd.SysProcAttr = testlab.EndWithParent()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // whoever waits looks at ProcessState
		close(p.exited)
	}()
	return p, nil
}

// end stops the process, by force when it does not react.
func (p *process) end() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	t := time.NewTimer(5 * time.Second)
	defer t.Stop()
	select {
	case <-p.exited:
	case <-t.C:
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// Start boots a machine. It has ended when Wait or Stop returns; ctx limits the
// start only.
func Start(ctx context.Context, cfg Config) (*Machine, error) {
	m := &Machine{cfg: cfg, started: time.Now()}
	if err := m.start(ctx); err != nil {
		return nil, errors.Join(err, m.Stop())
	}
	return m, nil
}

func (m *Machine) start(ctx context.Context) error {
	cfg := &m.cfg
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	var err error
	// Unix socket names have at most 107 bytes.
	if m.sockets, err = os.MkdirTemp("", "vm"); err != nil {
		return err
	}
	args, err := m.devices()
	if err != nil {
		return err
	}
	if cfg.TPM != "" {
		more, err := m.startTPM()
		if err != nil {
			return err
		}
		args = append(args, more...)
	}
	monitor, err := listen(filepath.Join(m.sockets, "qmp"))
	if err != nil {
		return err
	}
	defer monitor.Close()
	args = append(args, "-chardev", "socket,id=qmp,fd=3,server=on,wait=off", "-mon", "chardev=qmp,mode=control")
	if m.qemu, err = startProcess([]*os.File{monitor}, "qemu-system-x86_64", args...); err != nil {
		return err
	}
	if m.qmp, err = dialQMP(ctx, filepath.Join(m.sockets, "qmp"), m.qemu.exited); err != nil {
		m.qemu.end()
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(m.qemu.text.String()))
	}
	if cfg.Forward != 0 {
		m.port, err = m.forwarded()
	}
	return err
}

// devices returns QEMU's arguments for everything but TPM and monitor.
func (m *Machine) devices() ([]string, error) {
	cfg := &m.cfg
	accel, cpu := "tcg", "max"
	if cfg.KVM {
		accel, cpu = "kvm", "host"
	}
	smm := "off"
	if cfg.SMM {
		smm = "on"
	}
	memory := cfg.MemoryMiB
	if memory == 0 {
		memory = 256
	}
	args := []string{"-M", "q35,accel=" + accel + ",smm=" + smm, "-cpu", cpu, "-m", fmt.Sprint(memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "file:" + m.file("console.log")}
	if cfg.UUID != "" {
		args = append(args, "-uuid", cfg.UUID)
	}
	if cfg.Code != "" {
		vars, err := os.ReadFile(cfg.Vars)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(m.file("vars.fd"), vars, 0o600); err != nil {
			return nil, err
		}
		args = append(args,
			"-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+cfg.Code,
			"-drive", "if=pflash,format=raw,unit=1,file="+m.file("vars.fd"),
			"-global", "driver=cfi.pflash01,property=secure,value="+smm)
	}
	if cfg.Kernel != "" {
		args = append(args, "-kernel", cfg.Kernel, "-initrd", cfg.Initrd, "-append", cfg.CommandLine)
	}
	if err := os.WriteFile(m.file("out.img"), nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(m.file("out.img"), outputSize); err != nil {
		return nil, err
	}
	args = append(args, "-drive", "if=none,id=out,format=raw,cache=unsafe,file="+m.file("out.img"), "-device", "virtio-blk-pci,drive=out,serial=out")
	disks := cfg.Disks
	if cfg.Input != nil {
		padded := append(bytes.Clone(cfg.Input), make([]byte, -len(cfg.Input)&511)...)
		if err := os.WriteFile(m.file("in.img"), padded, 0o600); err != nil {
			return nil, err
		}
		disks = append(disks[:len(disks):len(disks)], Disk{Serial: "in", File: m.file("in.img")})
	}
	for _, d := range disks {
		device := "virtio-blk-pci,drive=" + d.Serial + ",serial=" + d.Serial
		if d.Boot {
			device += ",bootindex=0"
		}
		args = append(args, "-drive", "if=none,format=raw,snapshot=on,id="+d.Serial+",file="+d.File, "-device", device)
	}
	if cfg.Network {
		net := "user,id=n0"
		if cfg.Forward != 0 {
			// Port 0 has the kernel choose a free one; forwarded asks which.
			net += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:0-:%d", cfg.Forward)
		}
		// No option ROM: it would be measured, and would look for servers to boot from.
		args = append(args, "-netdev", net, "-device", "virtio-net-pci,netdev=n0,romfile=")
	}
	return args, nil
}

// startTPM runs swtpm on a socket that already listens, and returns QEMU's
// arguments for it. swtpm ends when QEMU does.
func (m *Machine) startTPM() ([]string, error) {
	path := filepath.Join(m.sockets, "tpm")
	l, err := listen(path)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	m.swtpm, err = startProcess([]*os.File{l}, "swtpm", "socket", "--tpm2",
		"--tpmstate", "dir="+m.cfg.TPM, "--ctrl", "type=unixio,fd=3", "--terminate")
	return []string{"-chardev", "socket,id=tpm,path=" + path, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"}, err
}

// usernet is a line of `info usernet`: protocol, state, socket, address, port.
var usernet = regexp.MustCompile(`TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s`)

func (m *Machine) forwarded() (int, error) {
	text, err := m.qmp.human("info usernet")
	if err != nil {
		return 0, err
	}
	found := usernet.FindStringSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("QEMU does not say which port it forwards: %s", text)
	}
	var port int
	_, err = fmt.Sscan(found[1], &port)
	return port, err
}

func (m *Machine) file(name string) string { return filepath.Join(m.cfg.Dir, name) }

// Port is the port of 127.0.0.1 that leads to the guest's Forward.
func (m *Machine) Port() int { return m.port }

// Console returns what the machine wrote to its serial port so far, as text.
func (m *Machine) Console() string {
	data, err := os.ReadFile(m.file("console.log"))
	if err != nil {
		return err.Error()
	}
	return strings.ToValidUTF8(strings.ReplaceAll(string(data), "\r", ""), "?")
}

// Wait waits until the machine has powered itself off and returns the seconds it
// took from Start. A machine that does not, such as one whose firmware refuses
// the boot loader, is stopped when ctx ends, and that is the error.
func (m *Machine) Wait(ctx context.Context) (time.Duration, error) {
	var err error
	select {
	case <-m.qemu.exited:
		if state := m.qemu.cmd.ProcessState; !state.Success() {
			err = fmt.Errorf("QEMU: %s: %s", state, strings.TrimSpace(m.qemu.text.String()))
		}
	case <-ctx.Done():
		err = fmt.Errorf("the machine did not power off: %w", context.Cause(ctx))
	}
	took := time.Since(m.started)
	return took, errors.Join(err, m.Stop())
}

// Exited is closed when the machine has ended.
func (m *Machine) Exited() <-chan struct{} { return m.qemu.exited }

// Stop ends the machine as if its plug was pulled. Stopping twice is harmless.
func (m *Machine) Stop() error {
	if m.qmp != nil {
		m.qmp.close()
	}
	m.qemu.end()
	m.swtpm.end()
	if m.sockets == "" {
		return nil
	}
	return os.RemoveAll(m.sockets)
}

// Output returns the files of the tar archive that the guest wrote to the disk
// with serial "out", by name. It may be called once the machine has ended.
func (m *Machine) Output() (map[string][]byte, error) {
	f, err := os.Open(m.file("out.img"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	files := make(map[string][]byte)
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("output of the machine in %s: %w", m.cfg.Dir, err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			return nil, fmt.Errorf("output of the machine in %s: %s: %w", m.cfg.Dir, h.Name, err)
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the machine in %s wrote no output: see console.log there", m.cfg.Dir)
	}
	return files, nil
}
