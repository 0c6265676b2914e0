package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/examples/systemd"
	"github.com/deepattest/deepattest/policy"
)

// bootFiles are configuration, policy, trust file, workloads and the program, as
// far as they are given or missing; and the names of files that policy and trust
// file name in turn, which the service's sandbox hides.
func bootFiles(c *cli.Context) (list []placed, hidden []string, err error) {
	root := c.String("root")
	for name, check := range map[string]func(string) ([]string, error){"policy": filesOfPolicy, "trust": filesOfTrust} {
		to := path.Join(configDir, name+".yaml")
		switch from := c.String(name); {
		case from != "":
			names, err := check(from)
			if err != nil {
				return nil, nil, usage(err)
			}
			hidden = append(hidden, names...)
			data, err := readFile(from, maxPEM) // the most that systemd hands on as a credential
			if err != nil {
				return nil, nil, usagef("--%s: %w; systemd hands on 1 MiB at most", name, err)
			}
			list = append(list, placed{name: to, data: data, mode: 0o644})
		default:
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				return nil, nil, usagef("--%s is missing, and none is installed: %w", name, err)
			}
		}
	}
	env, err := bootEnvironment(c)
	if err != nil {
		return nil, nil, err
	}
	list = append(list, env...)
	drop, err := systemd.Files.ReadFile("workload.conf")
	if err != nil {
		return nil, nil, err
	}
	for _, name := range c.StringSlice("workload") {
		if !strings.HasSuffix(name, ".service") || strings.ContainsAny(name, "/\\ ") {
			return nil, nil, usagef("--workload %q: want the name of a service, such as nginx.service", name)
		}
		list = append(list, placed{name: path.Join(unitsDir, name+".d/attested.conf"), data: drop, mode: 0o644})
	}
	if _, err := os.Stat(filepath.Join(root, programBin)); errors.Is(err, fs.ErrNotExist) {
		self, err := os.Executable()
		if err != nil {
			return nil, nil, err
		}
		data, err := os.ReadFile(self)
		if err != nil {
			return nil, nil, err
		}
		list = append(list, placed{name: programBin, data: data, mode: 0o755})
	}
	slices.SortFunc(list, func(a, b placed) int { return strings.Compare(a.name, b.name) })
	slices.Sort(hidden)
	return list, slices.Compact(hidden), nil
}

// filesOfPolicy checks a policy and returns the names of the files in it.
func filesOfPolicy(path string) (names []string, err error) {
	data, err := readFile(path, policy.MaxPolicy)
	if err != nil {
		return nil, err
	}
	load := besideFiles(path)
	p, err := policy.ParseFiles(data, func(name string) ([]byte, error) {
		names = append(names, name)
		return load(name)
	})
	if err != nil {
		return nil, inFile(path, err)
	}
	return append(names, pemFiles(p.Trust.Roots)...), nil
}

// filesOfTrust checks a trust file and returns the names of the files in it.
func filesOfTrust(path string) ([]string, error) {
	t, err := openTrust(path)
	if err != nil {
		return nil, err
	}
	return slices.Concat(pemFiles(t.Roots), t.Intermediates, t.CRLs), nil
}

func pemFiles(roots []string) []string {
	return slices.DeleteFunc(slices.Clone(roots), func(name string) bool { return name == policy.Builtin })
}

// bootEnvironment is boot.env with the host that was named; nothing when none was
// and there is one already.
func bootEnvironment(c *cli.Context) ([]placed, error) {
	to := path.Join(configDir, "boot.env")
	if c.String("host") == "" {
		if _, err := os.Stat(filepath.Join(c.String("root"), to)); err != nil {
			return nil, usagef("--host is missing, and no /%s is installed: name the host's quote service", to)
		}
		return nil, nil
	}
	if _, err := parseVM(c.String("vm")); err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# How this machine attests itself: see the units in /%s.\nDEEPATTEST_HOST=%s\n", unitsDir, c.String("host"))
	for _, v := range [][2]string{{"DEEPATTEST_HOST_FINGERPRINT", c.String("host-fingerprint")}, {"DEEPATTEST_VM", c.String("vm")}} {
		if v[1] != "" {
			fmt.Fprintf(&b, "%s=%s\n", v[0], v[1])
		}
	}
	if strings.ContainsAny(c.String("host")+c.String("host-fingerprint"), "\n\"'\\ ") {
		return nil, usagef("--host and --host-fingerprint may hold no blanks and quotes")
	}
	return []placed{{name: to, data: []byte(b.String()), mode: 0o644}}, nil
}
