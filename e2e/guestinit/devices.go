//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/deepattest/deepattest/e2e/job"
)

// deviceLimit bounds waiting for a device that a driver announces.
const deviceLimit = 10 * time.Second

// setUp mounts what programs expect and loads the modules of the first root.
func setUp() error {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"},
		{"securityfs", "/sys/kernel/security"},
	} {
		// Another init may have mounted it before.
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	order, err := os.ReadFile("/modules/order")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		if err := loadModule("/modules/" + name); err != nil {
			return err
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

// disk returns the device of the virtio disk with a serial, "" without one.
func disk(serial string) (string, error) {
	found, err := filepath.Glob("/sys/block/vd*/serial")
	if err != nil {
		return "", err
	}
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if string(bytes.TrimSpace(text)) == serial {
			return "/dev/" + filepath.Base(filepath.Dir(path)), nil
		}
	}
	return "", nil
}

// waitFor repeats a look for a device until it is there.
func waitFor(what string, look func() bool) error {
	for end := time.Now().Add(deviceLimit); !look(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("no %s after %v", what, deviceLimit)
		}
	}
	return nil
}

func waitForDisk(serial string) (string, error) {
	var path string
	var err error
	late := waitFor("disk "+serial, func() bool {
		path, err = disk(serial)
		return path != "" || err != nil
	})
	return path, errors.Join(err, late)
}

// networkUp gives the addresses of QEMU's user networking. A machine without a
// network card keeps the loopback alone.
func networkUp() error {
	if err := address("lo", "127.0.0.1", "255.0.0.0"); err != nil {
		return err
	}
	cards, err := filepath.Glob("/sys/bus/virtio/drivers/virtio_net/virtio*")
	if err != nil || len(cards) == 0 {
		return err
	}
	// An earlier init may have given the card another name.
	var name string
	if err := waitFor("network interface", func() bool {
		found, err := filepath.Glob("/sys/bus/virtio/drivers/virtio_net/virtio*/net/*")
		if err != nil || len(found) == 0 {
			return false
		}
		name = filepath.Base(found[0])
		return true
	}); err != nil {
		return err
	}
	if err := address(name, "10.0.2.15", "255.255.255.0"); err != nil {
		return err
	}
	// An address alone is not a link: programs that dial at once would fail.
	return waitFor("link of "+name, func() bool {
		state, err := os.ReadFile("/sys/class/net/" + name + "/carrier")
		return err == nil && string(bytes.TrimSpace(state)) == "1"
	})
}

// address sets an interface's address and brings it up (netdevice(7)).
func address(name, ip, mask string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	for _, set := range []struct {
		request uint
		value   string
	}{{unix.SIOCSIFADDR, ip}, {unix.SIOCSIFNETMASK, mask}} {
		r, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := r.SetInet4Addr(net.ParseIP(set.value).To4()); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(s, set.request, r); err != nil {
			return fmt.Errorf("address of %s: %w", name, err)
		}
	}
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("bring %s up: %w", name, err)
	}
	return nil
}

// switchRoot makes the disk with serial "root" the root, adds the input disk's
// files and both programs to it, and goes on with its init (as switch_root(8)
// does).
func switchRoot() error {
	path, err := waitForDisk("root")
	if err != nil {
		return err
	}
	const root = "/newroot"
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(path, root, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	input, err := waitForDisk("in")
	if err == nil {
		err = unpack(input, root)
	}
	if err == nil {
		err = errors.Join(copyFile(job.Binary, root+"/usr/bin/deepattest"), copyFile("/init", root+"/usr/bin/guestinit"))
	}
	if err != nil {
		return err
	}
	// systemd mounts /run and /tmp itself.
	if err := errors.Join(os.Chdir("/"), unix.Unmount("/run", 0), unix.Unmount("/tmp", 0)); err != nil {
		return err
	}
	for _, at := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(at, root+at, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", at, err)
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := errors.Join(unix.Chroot("."), os.Chdir("/")); err != nil {
		return err
	}
	return unix.Exec("/sbin/init", []string{"/sbin/init"}, []string{"TERM=linux", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
}
