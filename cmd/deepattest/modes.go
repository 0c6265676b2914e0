package main

import (
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// mode is a way to call a command in which some of its flags say nothing. Whoever
// gives such a flag believes that it holds, so it is refused: on the command line
// always. The environment and the configuration file serve many commands, so what
// they say of others is left alone, unless the mode is strict.
type mode struct {
	name    string                  // as a message says it, such as "with --package"
	on      func(*cli.Context) bool // whether a call is of this mode
	ignores []string                // flags that it does not read
	reads   []string                // instead of ignores: all that it reads
	strict  bool
	why     string // what to know or to do about it
}

// unread reports whether a mode does not read a flag.
func (m mode) unread(flag string) bool {
	if flag == "config" {
		return false
	}
	if m.reads != nil {
		return !slices.Contains(m.reads, flag)
	}
	return slices.Contains(m.ignores, flag)
}

// refuse refuses the flags that a call's modes do not read. typed are those of the
// command line.
func refuse(c *cli.Context, command string, typed []string) error {
	for _, m := range modes()[command] {
		if !m.on(c) {
			continue
		}
		for _, f := range c.Command.Flags {
			name := f.Names()[0]
			switch {
			case !m.unread(name):
			case slices.Contains(typed, name):
				return usagef("%s: %s is not read %s: %s", command, dashed(name), m.name, firstOf(m.why, "leave it out, or see `"+called(command)+" --help`"))
			case m.strict && c.IsSet(name):
				return usagef("%s: %s is not read %s, and %s or the configuration file sets it: %s", command, dashed(name), m.name, env(name)[0], firstOf(m.why, "unset it for this call"))
			}
		}
	}
	return nil
}

// typed are the flags on a command line that flagsFirst has put in order.
func typed(flags []cli.Flag, line []string) (names []string) {
	at := slices.IndexFunc(line, func(a string) bool { return strings.HasPrefix(a, "-") })
	for at >= 0 && at < len(line) && strings.HasPrefix(line[at], "-") && strings.Trim(line[at], "-") != "" {
		name, _, _ := strings.Cut(strings.TrimLeft(line[at], "-"), "=")
		for _, f := range flags {
			if slices.Contains(f.Names(), name) {
				names = append(names, f.Names()[0])
			}
		}
		if takesValue(flags, line[at]) {
			at++
		}
		at++
	}
	return names
}

// modes are the modes of all commands that have any.
func modes() map[string][]mode {
	service := []string{"host-fingerprint", "host-ca"}
	return map[string][]mode{
		"attest": slices.Concat(sourceModes(), formatModes(), []mode{
			{name: "without --challenge", on: not(set("challenge")), ignores: []string{"issued"}},
		}),
		"collect": append(sourceModes(), // the anchors are the verifier's
			mode{name: "where --host is no https address", on: noService, ignores: []string{"trust"}},
			mode{name: "without --host keylime", on: not(onKeylime), ignores: []string{"registrar-record"}}),
		"doctor": sourceModes(),
		"verify": append(formatModes(),
			mode{name: "without --package", on: not(set("package")), ignores: []string{"key"}},
			mode{name: "with --package", on: set("package"), reads: slices.Concat(packageDemands(), []string{
				"format", "verbose", "exit-zero", "in-guest", "ear-key", "ear-profile", "controls", "summary-file",
			})},
			mode{name: "with --package and no --key", on: all(set("package"), not(set("key"))), reads: append(packageDemands(), "format")}),
		"report": append(formatModes(),
			mode{name: "with --package", on: set("package"), reads: []string{"package", "evidence", "policy", "trust", "sign-key"}},
			mode{name: "without --package", on: not(set("package")), ignores: []string{"evidence", "policy", "trust", "sign-key"}},
			mode{name: "for several results", on: all(not(set("package")), not(oneResult)), reads: []string{"package", "format"}}),
		"explain": {{
			name: "without --challenge or --unsafe-any-challenge", on: all(not(set("challenge")), not(set("unsafe-any-challenge"))),
			ignores: []string{"trust", "now"}, strict: true, why: "to verify the evidence, give the challenge that you drew, or --unsafe-any-challenge",
		}},
		"policy update": {{
			name: "without --prune or --stage bundle=FILE", on: all(not(set("prune")), not(canaries)),
			ignores: []string{"challenge", "trust", "now", "unsafe-any-challenge", "jobs"},
		}},
		"boot install": {{name: "without --host", on: not(set("host")), ignores: []string{"vm", "host-fingerprint"}, strict: true, why: "what is installed stays as it is; name the host, too"}},
		"host serve": {
			{name: "with --xen-vtpmmgr", on: set("xen-vtpmmgr"), reads: []string{"xen-vtpmmgr", "xen-group", "xen-identity", "token", "listen", "cert", "key", "tpm"}},
			{name: "without --xen-vtpmmgr", on: not(set("xen-vtpmmgr")), ignores: []string{"xen-group", "xen-identity", "token"}},
			{name: "without --libvirt", on: not(set("libvirt")), ignores: []string{"swtpm-ca"}},
		},
		"host vms": {{name: "without --libvirt", on: not(set("libvirt")), ignores: []string{"swtpm-ca"}}},
		"host enroll": {
			{name: "with --xen", on: set("xen"), ignores: service},
			{name: "without --xen", on: not(set("xen")), ignores: []string{"ek-certificate", "identity", "accept-expired-ek", "tpm"}},
			{name: "for a service on unix:PATH", on: func(c *cli.Context) bool { return strings.HasPrefix(c.Args().First(), "unix:") }, ignores: service},
		},
		"host certify-ca":  {{name: "with --issue", on: set("issue"), reads: []string{"issue", "tpm", "timeout"}}},
		"keylime ek-check": {{name: "without --result", on: not(set("result")), ignores: []string{"max-age"}}},
		"push keylime": {
			{name: "without --register", on: not(set("register")), ignores: []string{"registrar"}},
			{name: "without RESULT or --spool", on: all(not(set("spool")), not(arguments)), ignores: []string{"verifier", "carry", "document-key", "event-log", "ima-text"}},
		},
		"openstack show": {{name: "with UUID", on: arguments, ignores: []string{"vm"}}},
		"pcr": {
			{name: "without --host", on: not(set("host")), ignores: append(service, "trust")},
			{name: "with --host xen", on: hostIs(xenHost), ignores: append(service, "trust")},
			{name: "with --host unix:PATH", on: hostIs("unix:"), ignores: append(service, "trust")},
			{name: "with the --host of a service", on: all(set("host"), not(hostIs(xenHost))), ignores: []string{"tpm"}},
		},
		"ek": {
			{name: "with --tpm12", on: set("tpm12"), ignores: []string{"ek"}},
			{name: "without --tpm12", on: not(set("tpm12")), ignores: []string{"xen-owner"}},
			{name: "with -o pem", on: func(c *cli.Context) bool { return c.String("format") == "pem" }, ignores: []string{"ek"}},
		},
		"demo": {
			{name: "with --xen", on: set("xen"), ignores: []string{"verbose"}},
			{name: "with --keylime", on: set("keylime"), ignores: []string{"verbose", "keep"}, why: "it keeps no files and shows no result"},
		},
	}
}

// packageDemands are the flags by which a verifier says of a package what it knows
// itself: each is held against the package.
func packageDemands() []string {
	return []string{"package", "key", "trust", "policy", "require-signed", "challenge", "vm", "now", "issued", "previous", "registrar-record"}
}

// sourceModes are those of commands that collect evidence: which flags say
// something depends on how the host is reached.
func sourceModes() []mode {
	return []mode{
		{name: "with --host xen", on: hostIs(xenHost), ignores: []string{"host-fingerprint", "host-ca", "ek", "ak", "userspace-log", "wait"}},
		{name: "with --host keylime", on: onKeylime, ignores: []string{"host-fingerprint"}, strict: true, why: "the agent's certificate is in the registrar's record"},
		{name: "with --host vendordata", on: hostIs(throughCloud), ignores: []string{"host-fingerprint", "host-ca"}},
		{name: "with --host unix:PATH", on: hostIs("unix:"), ignores: []string{"host-fingerprint", "host-ca"}},
		{name: "without --host xen", on: not(hostIs(xenHost)), ignores: []string{"xen-identity", "xen-owner"}},
		{name: "without --host keylime", on: not(onKeylime), ignores: []string{"agent-cert", "agent-key", "host-ca-statement"}},
		{name: "with --openstack no", on: all(openstackNo, not(hostIs(throughCloud))), ignores: []string{"cloud", "metadata", "config-drive"}},
		{name: "with --host and --cloud", on: all(set("host"), set("cloud"), not(hostIs(throughCloud))), ignores: []string{"metadata", "config-drive"}},
		{name: "with --host vendordata and --cloud", on: all(set("cloud"), hostIs(throughCloud)), ignores: []string{"config-drive"}},
	}
}

// formatModes are those of commands that render results.
func formatModes() []mode {
	return []mode{
		{name: "without -o text", on: not(renders("text")), ignores: []string{"verbose"}},
		{name: "without -o ear", on: not(renders("ear")), ignores: []string{"ear-key", "ear-profile"}},
		{name: "without -o html or oscal", on: all(not(renders("html")), not(renders("oscal"))), ignores: []string{"controls"}},
	}
}

// set reports whether a flag has a value other than none.
func set(flag string) func(*cli.Context) bool {
	return func(c *cli.Context) bool {
		if o, ok := c.Generic(flag).(*optional); ok {
			return o.text != ""
		}
		if v, ok := c.Value(flag).(bool); ok {
			return v
		}
		return c.String(flag) != ""
	}
}

// hostIs reports whether --host has such a value, or begins with one that ends in a
// colon.
func hostIs(value string) func(*cli.Context) bool {
	return func(c *cli.Context) bool {
		address := c.String("host")
		return address == value || strings.HasSuffix(value, ":") && strings.HasPrefix(address, value)
	}
}

// noService reports whether the host is reached otherwise than by a certificate
// that a trust file may pin.
func noService(c *cli.Context) bool {
	return hostIs(xenHost)(c) || onKeylime(c) || hostIs(throughCloud)(c) || hostIs("unix:")(c)
}

// renders reports whether a result is rendered in a format; text without any.
func renders(name string) func(*cli.Context) bool {
	return func(c *cli.Context) bool {
		list := c.StringSlice("format")
		return len(list) == 0 && name == "text" ||
			slices.ContainsFunc(list, func(o string) bool { o, _, _ = strings.Cut(o, "="); return o == name })
	}
}

func openstackNo(c *cli.Context) bool { return c.String("openstack") == "no" }

func arguments(c *cli.Context) bool { return c.NArg() > 0 }

func canaries(c *cli.Context) bool { return slices.ContainsFunc(c.StringSlice("stage"), isCanary) }

// oneResult reports whether a report is of one result, and of no folder of them.
func oneResult(c *cli.Context) bool {
	info, err := os.Stat(c.Args().First())
	return c.NArg() == 1 && err == nil && !info.IsDir()
}

func not(on func(*cli.Context) bool) func(*cli.Context) bool {
	return func(c *cli.Context) bool { return !on(c) }
}

func all(list ...func(*cli.Context) bool) func(*cli.Context) bool {
	return func(c *cli.Context) bool {
		return !slices.ContainsFunc(list, func(on func(*cli.Context) bool) bool { return !on(c) })
	}
}
