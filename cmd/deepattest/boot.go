package main

import (
	"bytes"
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
)

// Places of the boot-time service under the root of a system.
const (
	unitsDir   = "etc/systemd/system"
	configDir  = "etc/deepattest"
	programBin = "usr/bin/deepattest"
)

func bootModes() []string { return []string{"gate", "monitor", "strict"} }

func (p *program) bootCommand() *cli.Command {
	root := &cli.StringFlag{Name: "root", Value: "/", Usage: "`FOLDER` of the system, such as that of an image"}
	yes := &cli.BoolFlag{Name: "yes", Usage: "do it; without this it is only said what would be done"}
	return &cli.Command{
		Name:  "boot",
		Usage: "attest this machine at boot, by systemd",
		Description: "A service attests once at boot and a timer from then on; workloads require deep-attested.target, which is reached when\n" +
			"the verdict is trusted. Mode gate keeps them from starting, monitor only records, strict leaves nothing else running.",
		Subcommands: []*cli.Command{
			{
				Name:  "install",
				Usage: "place units, configuration, policy and trust file",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "mode", Value: "gate", Usage: "`MODE`: " + strings.Join(bootModes(), ", ")},
					&cli.StringFlag{Name: "host", Usage: "`ADDRESS` of the host's quote service"},
					&cli.StringFlag{Name: "host-fingerprint", Usage: "SHA-256 of the service's certificate, as `HEX`"},
					vmFlag("`UUID` that the cloud shows for this machine"),
					&cli.StringFlag{Name: "policy", Usage: "`FILE` of the policy; default: the one that is installed already"},
					&cli.StringFlag{Name: "trust", Usage: "`FILE` of the trust anchors; default: the one that is installed already"},
					&cli.StringSliceFlag{Name: "workload", Usage: "`NAME`.service that must not start before; may be repeated"},
					root, yes,
				},
				Action: p.bootInstall,
			},
			{
				Name:        "remove",
				Usage:       "take the units away; configuration and state stay",
				Description: "Workloads that required the attestation start without it from then on.",
				Flags:       []cli.Flag{root, yes},
				Action:      p.bootRemove,
			},
			{
				Name:        "status",
				Usage:       "show which files are in place, and the mode",
				Description: "Exits 3 when something is missing. For the last verdict see `deepattest status`.",
				Flags:       []cli.Flag{root},
				Action:      p.bootStatus,
			},
		},
	}
}

// placed is a file or link of the boot-time service.
type placed struct {
	name string // under the root, slash-separated
	data []byte
	mode fs.FileMode
	link string // target, for a symbolic link; data is nil then
}

// units are the files and links of a mode.
func units(mode string) ([]placed, error) {
	var list []placed
	for _, from := range []string{".", mode} {
		if from == "gate" {
			continue // what is there already
		}
		err := fs.WalkDir(systemd.Files, from, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				if err == nil && from == "." && slices.Contains(bootModes(), name) {
					return fs.SkipDir
				}
				return err
			}
			if name == "boot.env" || name == "workload.conf" {
				return nil
			}
			data, err := systemd.Files.ReadFile(name)
			list = append(list, placed{name: path.Join(unitsDir, strings.TrimPrefix(name, mode+"/")), data: data, mode: 0o644})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	// As `systemctl enable` does it, which needs a running system.
	return append(list,
		placed{name: path.Join(unitsDir, "multi-user.target.wants/deep-attested.target"), link: "../deep-attested.target"},
		placed{name: path.Join(unitsDir, "timers.target.wants/deep-attestation-again.timer"), link: "../deep-attestation-again.timer"},
	), nil
}

// differs reports whether a file is not in place as it should be.
func (f placed) differs(root string) bool {
	path := filepath.Join(root, filepath.FromSlash(f.name))
	if f.link != "" {
		target, err := os.Readlink(path)
		return err != nil || target != f.link
	}
	data, err := os.ReadFile(path)
	return err != nil || !bytes.Equal(data, f.data)
}

func (f placed) place(root string) error {
	path := filepath.Join(root, filepath.FromSlash(f.name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if f.link == "" {
		return writeFile(path, f.data, f.mode)
	}
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new") // a link cannot be written over, only renamed over
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(f.link, fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return nil
}

func (p *program) bootInstall(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	mode := c.String("mode")
	if !slices.Contains(bootModes(), mode) {
		return usagef("--mode %q: want one of %s", mode, strings.Join(bootModes(), ", "))
	}
	list, err := units(mode)
	if err != nil {
		return err
	}
	more, hidden, err := bootFiles(c)
	if err != nil {
		return err
	}
	list = append(list, more...)
	gone, err := otherModes(mode, list)
	if err != nil {
		return err
	}
	for _, f := range list {
		if err := p.step(c, f.differs(c.String("root")), "write "+f.name, func() error { return f.place(c.String("root")) }); err != nil {
			return err
		}
	}
	if err := p.removeFiles(c, gone); err != nil {
		return err
	}
	for _, name := range hidden {
		if _, err := fmt.Fprintf(p.out, "next: the service sees %[1]s only as a credential: put it into /%[2]s, name it without a folder, and add LoadCredential=%[1]s:/%[2]s/%[1]s in a drop-in of deep-attestation-.service.d\n",
			filepath.Base(name), configDir); err != nil {
			return err
		}
	}
	return p.bootEnd(c, "systemctl daemon-reload, and start deep-attested.target or boot")
}

// otherModes are files that only other modes have.
func otherModes(mode string, have []placed) ([]placed, error) {
	var gone []placed
	for _, other := range bootModes() {
		list, err := units(other)
		if err != nil {
			return nil, err
		}
		for _, f := range list {
			same := func(o placed) bool { return o.name == f.name }
			if other != mode && !slices.ContainsFunc(have, same) && !slices.ContainsFunc(gone, same) {
				gone = append(gone, f)
			}
		}
	}
	return gone, nil
}

// step says what has to be done, and does it with --yes.
func (p *program) step(c *cli.Context, needed bool, what string, do func() error) error {
	word := "would "
	switch {
	case !needed:
		return nil
	case c.Bool("yes"):
		word = ""
		if err := do(); err != nil {
			return cannot(err)
		}
	}
	_, err := fmt.Fprintln(p.out, word+what)
	return err
}

func (p *program) removeFiles(c *cli.Context, list []placed) error {
	for _, f := range list {
		path := filepath.Join(c.String("root"), filepath.FromSlash(f.name))
		_, err := os.Lstat(path)
		if err := p.step(c, err == nil, "remove "+f.name, func() error { return os.Remove(path) }); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) bootEnd(c *cli.Context, next string) error {
	if !c.Bool("yes") {
		next = "say --yes to do it"
	}
	_, err := fmt.Fprintf(p.out, "next: %s\n", next)
	return err
}

func (p *program) bootRemove(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	list, err := otherModes("", nil)
	if err != nil {
		return err
	}
	drop, err := systemd.Files.ReadFile("workload.conf")
	if err != nil {
		return err
	}
	drops, err := filepath.Glob(filepath.Join(c.String("root"), unitsDir, "*.service.d/attested.conf"))
	if err != nil {
		return err
	}
	for _, found := range drops {
		name, err := filepath.Rel(c.String("root"), found)
		if err != nil {
			return err
		}
		if f := (placed{name: filepath.ToSlash(name), data: drop}); !f.differs(c.String("root")) {
			list = append(list, f)
		}
	}
	if err := p.removeFiles(c, list); err != nil {
		return err
	}
	return p.bootEnd(c, "systemctl daemon-reload")
}

func (p *program) bootStatus(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	root := c.String("root")
	mode, wrong := installedMode(root)
	if mode == "" {
		return cannot(fmt.Errorf("not installed under %s: see `deepattest boot install --help`", root))
	}
	for _, name := range []string{"boot.env", "policy.yaml", "trust.yaml"} {
		if _, err := os.Stat(filepath.Join(root, configDir, name)); err != nil {
			wrong = append(wrong, path.Join(configDir, name))
		}
	}
	if _, err := os.Stat(filepath.Join(root, programBin)); err != nil {
		wrong = append(wrong, programBin)
	}
	if _, err := fmt.Fprintf(p.out, "installed, mode %s\n", mode); err != nil {
		return err
	}
	if len(wrong) > 0 {
		return cannot(fmt.Errorf("missing or changed: %s", strings.Join(wrong, ", ")))
	}
	return nil
}

// installedMode is the mode with the fewest files that are missing or changed; ""
// when the service itself is not there.
func installedMode(root string) (mode string, wrong []string) {
	if _, err := os.Stat(filepath.Join(root, unitsDir, "deep-attestation-boot.service")); err != nil {
		return "", nil
	}
	for _, m := range bootModes() {
		list, err := units(m)
		if err != nil {
			continue
		}
		other, err := otherModes(m, list)
		if err != nil {
			continue
		}
		var bad []string
		for _, f := range list {
			if f.differs(root) {
				bad = append(bad, f.name)
			}
		}
		for _, f := range other {
			if _, err := os.Lstat(filepath.Join(root, f.name)); err == nil {
				bad = append(bad, f.name)
			}
		}
		if mode == "" || len(bad) < len(wrong) {
			mode, wrong = m, bad
		}
	}
	return mode, wrong
}
