package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/policy"
)

// output is one FORMAT[=FILE].
type output struct {
	format string
	file   string // empty: standard output
}

// parseOutputs reads --format. Only one of them can have the standard output.
func (p *program) parseOutputs(c *cli.Context, formats ...string) ([]output, error) {
	var list []output
	stdout := 0
	for _, text := range c.StringSlice("format") {
		var o output
		o.format, o.file, _ = strings.Cut(text, "=")
		if !slices.Contains(formats, o.format) {
			return nil, usagef("-o %q: want one of %s, with =FILE or without", text, strings.Join(formats, ", "))
		}
		if o.file == "" {
			stdout++
		}
		if o.file != "" && slices.ContainsFunc(list, func(other output) bool { return other.file == o.file }) {
			return nil, usagef("-o %q: another format goes into the same file", text)
		}
		list = append(list, o)
	}
	if stdout > 1 {
		return nil, usagef("-o: %d formats for the standard output, which takes one; give the others a file, such as json=result.json", stdout)
	}
	if len(list) == 0 {
		list = []output{{format: formats[0]}}
	}
	for _, o := range list { // a missing key is found before any work is done
		if _, err := p.reportOptions(c, o); err != nil {
			return nil, err
		}
	}
	p.json = slices.Contains(list, output{format: "json"})
	return list, nil
}

// writeResult writes a result in every format asked for. A failure is one of
// delivery: the verdict stands.
func (p *program) writeResult(c *cli.Context, r *policy.Result, outputs []output) error {
	for _, o := range outputs {
		var b bytes.Buffer
		if err := p.render(c, &b, r, o); err != nil {
			return err
		}
		if err := p.deliver(o, b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) render(c *cli.Context, w io.Writer, r *policy.Result, o output) error {
	options, err := p.reportOptions(c, o)
	if err != nil {
		return err
	}
	return report.Render(w, r, o.format, options)
}

// textOptions are those of the terminal for what goes there.
func (p *program) textOptions(c *cli.Context, terminal bool) report.TextOptions {
	t := report.TextOptions{Verbose: c.Bool("verbose")}
	if terminal && p.colour {
		t.Color, t.Width = true, min(p.width, 120)
	}
	return t
}

func (p *program) deliver(o output, data []byte) error {
	path := o.file
	if path == "" {
		path = "-"
	}
	if err := p.writeOutput(path, data); err != nil {
		return undelivered(fmt.Errorf("the result could not be written: %w", err))
	}
	return nil
}

func verboseFlag() cli.Flag {
	return &cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "in text: every check on a line of its own, and the PCR values"}
}

// finish writes a result and turns its verdict into the exit code.
func (p *program) finish(c *cli.Context, r *policy.Result, outputs []output) error {
	if err := p.writeResult(c, r, outputs); err != nil {
		return err
	}
	if err := p.summarize(c, r); err != nil {
		return err
	}
	if c.Bool("exit-zero") {
		return nil
	}
	return verdictExit(r.Verdict)
}

func exitZeroFlag() cli.Flag {
	return &cli.BoolFlag{Name: "exit-zero", Usage: "exit 0 whatever the verdict is, for jobs that only record it"}
}

// writeJSON writes a value that is no result in the one form of this program's JSON.
func (p *program) writeJSON(v any) error {
	out, err := json.Marshal(v, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	return p.writeOutput("-", append(out, '\n'))
}
