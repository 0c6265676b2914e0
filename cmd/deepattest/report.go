package main

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/internal/signing"
	"github.com/deepattest/deepattest/policy"
)

// reportFlags say how results are rendered.
func reportFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "ear-key", EnvVars: env("ear-key"), Usage: "PEM `FILE` of the private key (Ed25519 or ECDSA P-256) that signs -o ear"},
		&cli.StringFlag{Name: "ear-profile", EnvVars: env("ear-profile"), Usage: "profile of -o ear: " + report.EARProfileIETF + ", the default, or " + report.EARProfileVeraison},
		&cli.StringFlag{Name: "controls", EnvVars: env("controls"), Usage: "YAML `FILE` that maps controls to checks, for html and oscal; default: the built-in one"},
		&cli.StringFlag{Name: "summary-file", EnvVars: env("summary-file"), Usage: "append a short Markdown summary to `FILE`, as CI systems take it"},
	}
}

// reportOptions reads the flags of reportFlags, as far as a format needs them.
func (p *program) reportOptions(c *cli.Context, o output) (report.Options, error) {
	options := report.Options{Text: p.textOptions(c, o.file == ""), Build: version(), EARProfile: c.String("ear-profile")}
	if path := c.String("ear-key"); path != "" && o.format == "ear" {
		key, err := privateKey(path)
		if err != nil {
			return options, usagef("--ear-key: %w", err)
		}
		options.Signer = key
	}
	if o.format == "ear" && options.Signer == nil {
		return options, usagef("-o ear is signed: give --ear-key, a private key that the relying party knows the public half of")
	}
	if path := c.String("controls"); path != "" {
		data, err := readFile(path, maxConfig)
		if err != nil {
			return options, usagef("--controls: %w", err)
		}
		if options.Controls, err = report.ParseControls(data); err != nil {
			return options, usagef("--controls %s: %w", path, err)
		}
	}
	return options, nil
}

func privateKey(path string) (crypto.Signer, error) {
	data, err := readFile(path, maxKey)
	if err != nil {
		return nil, err
	}
	key, err := signing.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// summarize appends the Markdown summary of --summary-file.
func (p *program) summarize(c *cli.Context, results ...*policy.Result) error {
	path := c.String("summary-file")
	if path == "" {
		return nil
	}
	var b bytes.Buffer
	for _, r := range results {
		if err := report.Render(&b, r, "markdown", report.Options{Build: version()}); err != nil {
			return err
		}
		b.WriteByte('\n')
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return undelivered(err)
	}
	_, err = f.Write(b.Bytes())
	return undelivered(errors.Join(err, f.Close()))
}

func (p *program) reportCommand() *cli.Command {
	return &cli.Command{
		Name:      "report",
		Usage:     "render stored results: one, or those of a fleet or a period together",
		ArgsUsage: "RESULT|FOLDER...",
		Description: "RESULT is a file that -o json wrote. One result is rendered as attest and verify render it. Several, or a folder of\n" +
			"them, give one report in html or json: who is trusted and since when, what changed, which hosts were seen.\n" +
			"Nothing signs stored results. With --package one result goes into an archive with all that it was made from,\n" +
			"which `deepattest verify --package` verifies again anywhere.",
		Flags: concat([]cli.Flag{formatFlag(), verboseFlag()}, reportFlags(), []cli.Flag{
			&cli.StringFlag{Name: "package", Usage: "write an evidence package into `FILE`"},
			&cli.StringFlag{Name: "evidence", Usage: "with --package: the bundle, as a `FILE`; default: the file beside RESULT that it is about"},
			policyFlag(), trustFlag(),
			&cli.StringFlag{Name: "sign-key", Usage: "with --package: PEM `FILE` of the private key (Ed25519 or ECDSA P-256) that signs it"},
		}),
		Action: p.reportResults,
	}
}

func (p *program) reportResults(c *cli.Context) error {
	if c.NArg() == 0 {
		return usagef("report needs results: name files that -o json wrote, or folders of them")
	}
	first, err := os.Stat(c.Args().First())
	single := err == nil && c.NArg() == 1 && !first.IsDir()
	if c.String("package") != "" {
		if !single {
			return usagef("--package takes one result")
		}
		return p.writePackage(c)
	}
	if single {
		return p.reportOne(c)
	}
	return p.reportFleet(c)
}

// reportOne renders one stored result.
func (p *program) reportOne(c *cli.Context) error {
	outputs, err := p.parseOutputs(c, report.Formats()...)
	if err != nil {
		return err
	}
	r, err := readResult(c.Args().First())
	if err != nil {
		return err
	}
	if err := p.writeResult(c, r, outputs); err != nil {
		return err
	}
	return p.summarize(c, r)
}

func readResult(path string) (*policy.Result, error) {
	data, err := readFile(path, policy.MaxResult)
	if err != nil {
		return nil, usage(err)
	}
	r, err := policy.DecodeResult(data)
	if err != nil {
		return nil, usagef("%s: %w", path, err)
	}
	return r, nil
}

// reportFleet reads results one after another into one report.
func (p *program) reportFleet(c *cli.Context) error {
	outputs, err := p.parseOutputs(c, "html", "json")
	if err != nil {
		return err
	}
	paths, err := resultFiles(c.Args().Slice())
	if err != nil {
		return usage(err)
	}
	fleet := report.NewFleet()
	progress := p.progress(len(paths))
	defer progress.end()
	for _, path := range paths {
		if err := c.Context.Err(); err != nil {
			return cannot(err)
		}
		r, err := readResult(path)
		if err != nil {
			return err
		}
		if err := fleet.Add(path, r); err != nil {
			return cannot(err)
		}
		progress.one()
	}
	all := fleet.Report()
	for _, o := range outputs {
		var b bytes.Buffer
		if o.format == "json" {
			err = all.JSON(&b)
		} else {
			err = all.HTML(&b, version())
		}
		if err == nil {
			err = p.deliver(o, b.Bytes())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// resultFiles lists the results that arguments name: files as they are, and what
// ends in .json in folders and under them.
func resultFiles(args []string) ([]string, error) {
	var list []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			list = append(list, arg)
			continue
		}
		err = filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && strings.HasSuffix(path, ".json") {
				list = append(list, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no result in %s: want files that end in .json", strings.Join(args, ", "))
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
