package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// defaultPCRs is what a layer quotes: everything that a boot measures.
const defaultPCRs = "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"

// envPrefix begins the names of the environment variables of flags.
const envPrefix = "DEEPATTEST_"

// env is the environment variable of a flag.
func env(flag string) []string {
	return []string{envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))}
}

func tpmFlag() cli.Flag {
	return &cli.StringFlag{Name: "tpm", Value: tpm.DefaultAddress, EnvVars: env("tpm"), Usage: "`ADDRESS` of the TPM: device:PATH, unix:PATH or tcp:HOST:PORT"}
}

func challengeFlag(usage string) cli.Flag {
	return &cli.StringFlag{Name: "challenge", Usage: usage}
}

func issuedFlag(usage string) cli.Flag {
	return &cli.StringFlag{Name: "issued", Usage: usage}
}

func vmFlag(usage string) cli.Flag {
	return &cli.StringFlag{Name: "vm", EnvVars: env("vm"), Usage: usage}
}

func policyFlag() cli.Flag {
	return &cli.StringFlag{Name: "policy", EnvVars: env("policy"), Usage: "`FILE` that says what is accepted; without one the verdict is at most inconclusive"}
}

func trustFlag() cli.Flag {
	return &cli.StringFlag{Name: "trust", EnvVars: env("trust"), Usage: "`FILE` with your trust anchors: roots, enrolled hosts, pinned guests"}
}

func timeoutFlag() cli.Flag {
	return &cli.DurationFlag{Name: "timeout", Value: 2 * time.Minute, EnvVars: env("timeout"), Usage: "longest time for the whole command"}
}

// hostFlags say how to reach a host's quote service.
func hostFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "host", EnvVars: env("host"), Usage: "`ADDRESS` of the host's quote service: https://HOST:PORT or unix:PATH; vendordata, to reach it through OpenStack; keylime:https://HOST:9002, its Keylime agent; or xen, for the deep quote of a Xen vTPM (TPM 1.2). Default: the service that OpenStack's vendordata names"},
		&cli.StringFlag{Name: "host-fingerprint", EnvVars: env("host-fingerprint"), Usage: "SHA-256 of the service's certificate, as `HEX`; default: that of the trust file's host with this address, else the system's roots"},
		&cli.StringFlag{Name: "host-ca", EnvVars: env("host-ca"), Usage: "PEM `FILE` of the authority that issued the service's certificate"},
	}
}

// logFlags name the files that explain PCRs.
func logFlags() []cli.Flag {
	const standard = "; default: where Linux and systemd keep it"
	return []cli.Flag{
		&cli.StringFlag{Name: "event-log", EnvVars: env("event-log"), Usage: "`FILE` with the firmware's event log" + standard},
		&cli.StringFlag{Name: "userspace-log", EnvVars: env("userspace-log"), Usage: "`FILE` with systemd's measurement log" + standard},
		&cli.StringFlag{Name: "ima-log", EnvVars: env("ima-log"), Usage: "`FILE` with the binary IMA list" + standard},
	}
}

// oneFormat reads --format of a command that writes one thing to the standard
// output.
func (p *program) oneFormat(c *cli.Context, formats ...string) (string, error) {
	format := c.String("format")
	if !slices.Contains(formats, format) {
		return "", usagef("-o %q: want %s or %s", format, strings.Join(formats[:len(formats)-1], ", "), formats[len(formats)-1])
	}
	p.json = format == "json"
	return format, nil
}

func formatFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "format", Aliases: []string{"o"}, EnvVars: env("format"), Usage: "`FORMAT[=FILE]`: " + strings.Join(report.Formats(), ", ") + "; into a file or on stdout; may be repeated"}
}

func jobsFlag() cli.Flag {
	return &cli.IntFlag{Name: "jobs", Value: runtime.GOMAXPROCS(0), Usage: "bundles worked on at the same time"}
}

// deadline gives a command's context the limit of its --timeout.
func deadline(c *cli.Context) (context.Context, context.CancelFunc, error) {
	d := c.Duration("timeout")
	if d <= 0 {
		return nil, nil, usagef("--timeout %s: want a time above zero, such as 2m", d)
	}
	ctx, cancel := context.WithTimeoutCause(c.Context, d, fmt.Errorf("not finished within --timeout %s", d))
	return ctx, cancel, nil
}

// ended adds why a context ended to an error that only says that it did.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && context.Cause(ctx) != ctx.Err() {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

func parseChallenge(text string) (quote.Hex, error) {
	var h quote.Hex
	if err := h.UnmarshalText([]byte(strings.TrimSpace(text))); err != nil {
		return nil, usagef("--challenge: %w; draw one with `deepattest challenge`", err)
	}
	if err := quote.CheckChallenge(h); err != nil {
		return nil, usagef("--challenge: %w", err)
	}
	return h, nil
}

func parseVM(text string) (quote.UUID, error) {
	if text == "" {
		return quote.UUID{}, nil
	}
	vm, err := quote.ParseUUID(text)
	if err != nil {
		return vm, usagef("--vm: %w", err)
	}
	return vm, nil
}

func parseTime(flag, text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, usagef("--%s %q: want a time as in RFC 3339, such as 2027-01-01T00:00:00Z", flag, text)
	}
	return t, nil
}

// parseIssued reads --issued; the zero time, not known, without it.
func parseIssued(c *cli.Context) (time.Time, error) {
	if c.String("issued") == "" {
		return time.Time{}, nil
	}
	return parseTime("issued", c.String("issued"))
}

func parseSelection(flag, text string) (quote.Selection, error) {
	if text == "" {
		return nil, nil
	}
	sel, err := quote.ParseSelection(text)
	if err != nil {
		return nil, usagef("--%s: %w", flag, err)
	}
	return sel, nil
}

// hostClient makes the client of --host, or of the service that a hint names; nil
// without either. trust may know the certificate of the service.
func hostClient(c *cli.Context, t *trustFile, hint *host.Vendordata) (*host.Client, error) {
	address := c.String("host")
	if address == xenHost {
		return nil, nil
	}
	o := host.Options{Fingerprint: c.String("host-fingerprint")}
	if file := c.String("host-ca"); file != "" {
		pool, err := certPool(file)
		if err != nil {
			return nil, err
		}
		o.RootCAs = pool
	}
	if address == "" {
		var err error
		if address, err = hinted(hint, t, &o); address == "" {
			return nil, usage(err)
		}
	}
	if o.Fingerprint == "" && o.RootCAs == nil && t != nil {
		o.Fingerprint = t.fingerprint(address)
	}
	client, err := host.NewClient(address, o)
	return client, usage(err)
}

// noArgs refuses arguments that a command does not take.
func noArgs(c *cli.Context) error {
	if c.NArg() > 0 {
		return usagef("%s takes no argument; got %q", c.Command.FullName(), c.Args().First())
	}
	return nil
}

// oneArg returns the only argument.
func oneArg(c *cli.Context, what string) (string, error) {
	if c.NArg() != 1 {
		return "", usagef("%s takes one argument, %s; got %d", c.Command.FullName(), what, c.NArg())
	}
	return c.Args().First(), nil
}

// readInput reads a file of at most limit bytes, or the standard input for "-".
func (p *program) readInput(path string, limit int) ([]byte, error) {
	if path == "-" {
		return readAll(p.in, "standard input", limit)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, path, limit)
}

// concat joins lists of flags.
func concat(lists ...[]cli.Flag) []cli.Flag { return slices.Concat(lists...) }
