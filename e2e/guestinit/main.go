//go:build linux

// Command guestinit is the first process of the guests in the end-to-end tests:
// it sets up devices and network, runs the programs of a job, writes their output
// to a disk and powers the machine off. As `guestinit report` it does the last
// two in a guest whose first process is systemd.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/deepattest/deepattest/e2e/job"
)

func main() {
	if os.Getpid() != 1 {
		if err := report(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "guestinit:", err)
			os.Exit(1)
		}
		return
	}
	g := &guest{files: make(map[string][]byte)}
	// Whatever happens, the machine goes off: the test would wait for its limit.
	defer func() {
		unix.Sync()
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}()
	defer func() {
		if r := recover(); r != nil {
			g.complain(fmt.Errorf("panic: %v\n%s", r, debug.Stack()))
		}
		if err := writeOutput(g.files); err != nil {
			g.complain(err)
		}
	}()
	if err := g.run(); err != nil {
		g.complain(err)
	}
}

// guest collects what goes to the output disk.
type guest struct {
	files map[string][]byte
}

func (g *guest) complain(err error) {
	fmt.Fprintln(os.Stderr, "guestinit:", err)
	g.files["guestinit.err"] = fmt.Appendln(g.files["guestinit.err"], err)
}

func (g *guest) run() error {
	if err := setUp(); err != nil {
		return err
	}
	j, err := readJob()
	if err != nil {
		return err
	}
	if j.SwitchRoot {
		return switchRoot()
	}
	if err := networkUp(); err != nil {
		return err
	}
	return g.steps(j)
}

// report is for a unit of systemd: it runs a job, keeps the output and powers off.
func report(args []string) error {
	if len(args) != 2 || args[0] != "report" {
		return errors.New("want: report JOB-FILE")
	}
	j, err := parseJob(args[1])
	if err != nil {
		return err
	}
	g := &guest{files: make(map[string][]byte)}
	err = errors.Join(g.steps(j), writeOutput(g.files))
	unix.Sync()
	return errors.Join(err, unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func parseJob(path string) (*job.Job, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	j := new(job.Job)
	if err := unmarshal(data, j); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return j, nil
}
