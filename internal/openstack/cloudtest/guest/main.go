//go:build openstack && linux

// Command guest is the first process of the test's VM: it loads drivers, waits for
// the network card that the test plugs in, and runs the programs that the test asks
// for over HTTP.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"github.com/go-json-experiment/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/deepattest/deepattest/internal/openstack/cloudtest/job"
)

func main() {
	defer func() { _ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) }()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
}

func run() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"}, {"securityfs", "/sys/kernel/security"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	if err := loadModules(); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "guest: ready for a network card")
	if err := setUpNetwork(); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "guest: network is up")
	if err := forward(strings.Split(parameter("forward"), ",")); err != nil {
		return err
	}
	return work()
}

func loadModules() error {
	order, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		f, err := os.Open(filepath.Join("/modules", name))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

// cardLimit bounds waiting for the card that the test plugs in.
const cardLimit = 5 * time.Minute

func setUpNetwork() error {
	for end := time.Now().Add(cardLimit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		cards, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, card := range cards {
			if card.Flags&net.FlagLoopback == 0 {
				return errors.Join(configure("lo", net.IPv4(127, 0, 0, 1)), configure(card.Name, net.IPv4(10, 0, 2, 15)))
			}
		}
	}
	return errors.New("no network card was plugged in")
}

// ifreqSize is that of struct ifreq (netdevice(7)).
const ifreqSize = 40

// configure gives a card its address and brings it up (netdevice(7)).
func configure(name string, ip net.IP) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	address := func(ip net.IP) [ifreqSize - unix.IFNAMSIZ]byte {
		var b [ifreqSize - unix.IFNAMSIZ]byte
		b[0] = unix.AF_INET
		copy(b[4:], ip.To4())
		return b
	}
	var up [ifreqSize - unix.IFNAMSIZ]byte
	up[0] = unix.IFF_UP
	for _, q := range []struct {
		request uintptr
		data    [ifreqSize - unix.IFNAMSIZ]byte
	}{
		{unix.SIOCSIFADDR, address(ip)}, {unix.SIOCSIFNETMASK, address(net.IPv4(255, 255, 255, 0))}, {unix.SIOCSIFFLAGS, up},
	} {
		var r struct {
			name [unix.IFNAMSIZ]byte
			data [ifreqSize - unix.IFNAMSIZ]byte
		}
		copy(r.name[:], name)
		r.data = q.data
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), q.request, uintptr(unsafe.Pointer(&r))); errno != 0 {
			return fmt.Errorf("configure %s: %w", name, errno)
		}
	}
	return nil
}

// outside is the machine that runs QEMU, as its user network shows it.
const outside = "10.0.2.2"

// parameter returns NAME=VALUE of the kernel's command line.
func parameter(name string) string {
	line, _ := os.ReadFile("/proc/cmdline")
	for _, word := range strings.Fields(string(line)) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return value
		}
	}
	return ""
}

// forward makes ports of the machine outside ports of this one: the cloud's catalog
// names its services by 127.0.0.1.
func forward(ports []string) error {
	for _, port := range ports {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			return err
		}
		go func() {
			for {
				in, err := l.Accept()
				if err != nil {
					return
				}
				out, err := net.Dial("tcp", net.JoinHostPort(outside, port))
				if err != nil {
					in.Close()
					continue
				}
				go func() { _, _ = io.Copy(out, in); out.Close() }()
				go func() { _, _ = io.Copy(in, out); in.Close() }()
			}
		}()
	}
	return nil
}

// work runs jobs until one says that it was the last.
func work() error {
	base := "http://" + net.JoinHostPort(outside, parameter("jobs"))
	client := &http.Client{Timeout: 5 * time.Minute}
	for failures := 0; ; {
		var j job.Job
		answer, err := client.Get(base + "/job")
		if err == nil {
			err = json.UnmarshalRead(answer.Body, &j)
			answer.Body.Close()
		}
		if err != nil {
			if failures++; failures > 60 {
				return err
			}
			time.Sleep(500 * time.Millisecond)
			continue
		}
		if len(j.Args) == 0 {
			return nil
		}
		body, err := json.Marshal(perform(&j))
		if err != nil {
			return err
		}
		answer, err = client.Post(base+"/done", "application/json", bytes.NewReader(body))
		if err != nil {
			return err
		}
		answer.Body.Close()
	}
}

func perform(j *job.Job) job.Done {
	for name, text := range j.Files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return job.Done{Code: -1, Err: err.Error()}
		}
	}
	cmd := exec.Command(j.Args[0], j.Args[1:]...)
	cmd.Env = append(os.Environ(), j.Env...)
	cmd.Dir = "/tmp"
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	began := time.Now()
	err := cmd.Run()
	d := job.Done{Out: out.String(), Err: complaint.String(), Seconds: time.Since(began).Seconds()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		d.Code = exit.ExitCode()
	case err != nil:
		d.Code, d.Err = -1, err.Error()
	}
	return d
}
