package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/libvirt"
)

// defaultCA is where swtpm_localca keeps the certificate of the host's vTPM CA.
const defaultCA = "/var/lib/swtpm-localca/issuercert.pem"

// optional is the value of a flag that may stand alone: --libvirt, --libvirt=URI.
type optional struct {
	text     string
	standard string // for the flag alone
}

// Set takes the value; "true" is what the flag package gives a flag that stands
// alone.
func (o *optional) Set(text string) error {
	if text == "true" {
		text = o.standard
	}
	o.text = text
	return nil
}

func (o *optional) String() string {
	if o == nil {
		return ""
	}
	return o.text
}

// IsBoolFlag lets the flag package accept the flag alone.
func (o *optional) IsBoolFlag() bool { return true }

// optionalFlag is a flag with such a value.
type optionalFlag struct{ *cli.GenericFlag }

// TakesValue tells that the argument after the flag is not its value as a rule.
func (optionalFlag) TakesValue() bool { return false }

// registryFlags say where the host's VMs and their vTPMs are known from.
func registryFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "registry", EnvVars: env("registry"), Usage: "`FOLDER` of the vTPMs' endorsement keys"},
		optionalFlag{&cli.GenericFlag{Name: "libvirt", Value: &optional{standard: libvirt.DefaultURI}, EnvVars: env("libvirt"), Usage: "instead: follow the VMs of libvirt; =URI for another driver or socket than " + libvirt.DefaultURI}},
		&cli.StringSliceFlag{Name: "swtpm-ca", Value: cli.NewStringSlice(defaultCA), EnvVars: env("swtpm-ca"), Usage: "with --libvirt, PEM `FILE` of the CA that certifies this host's vTPMs; may be repeated, for VMs that come from other hosts"},
	}
}

// registry is a VM registry with what keeps it up to date.
type registry struct {
	host.Registry
	run func(context.Context) // nil: nothing has to run
}

// openRegistry opens the registry of --registry or --libvirt.
func (p *program) openRegistry(c *cli.Context, log func(string)) (*registry, error) {
	dir, uri := c.String("registry"), c.Generic("libvirt").(*optional).text
	switch {
	case dir == "" && uri == "":
		return nil, usagef("--registry is missing, and so is --libvirt: name the folder with the endorsement keys of this host's vTPMs, or follow libvirt")
	case dir != "" && uri != "":
		return nil, usagef("--registry and --libvirt exclude each other: one of them says which VMs are vouched for")
	case dir != "":
		r, err := host.NewDirRegistry(dir)
		return &registry{Registry: r}, usage(err)
	}
	issuers := func() ([]*x509.Certificate, error) { return authorities(c.StringSlice("swtpm-ca")) }
	r, err := libvirt.New(libvirt.Options{URI: uri, Issuers: issuers, Now: p.now, Log: log})
	if err != nil {
		return nil, usagef("--libvirt: %w", err)
	}
	switch _, err := issuers(); {
	case errors.Is(err, fs.ErrNotExist):
		log(fmt.Sprintf("--swtpm-ca: %v; no VM is vouched for until it is there: swtpm_localca makes it with this host's first vTPM", err))
	case err != nil:
		return nil, usagef("--swtpm-ca: %w", err)
	}
	return &registry{Registry: r, run: r.Run}, nil
}

// authorities reads the certificates of vTPM CAs.
func authorities(paths []string) (list []*x509.Certificate, err error) {
	for _, path := range paths {
		certs, err := readCertificates(path)
		if err != nil {
			return nil, err
		}
		for _, cert := range certs {
			if !cert.IsCA {
				return nil, fmt.Errorf("%s: the certificate of %s is not one of an authority", path, cert.Subject)
			}
		}
		list = append(list, certs...)
	}
	return list, nil
}

// start keeps the registry up to date until stop is called.
func (r *registry) start(ctx context.Context) (stop func()) {
	if r.run == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); r.run(ctx) }()
	return func() { cancel(); <-done }
}

// mayTake reports whether the argument after a flag is its optional value: in
// `--libvirt qemu:///system`, and not in `--libvirt --listen :8443`.
func mayTake(flags []cli.Flag, arg, next string) bool {
	return strings.Contains(next, "://") && slices.ContainsFunc(flags, func(f cli.Flag) bool {
		_, is := f.(optionalFlag)
		return is && slices.Contains(f.Names(), strings.TrimLeft(arg, "-"))
	})
}
