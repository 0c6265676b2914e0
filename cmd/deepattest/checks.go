package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/verify"
)

func (p *program) checksCommand() *cli.Command {
	return &cli.Command{
		Name:      "checks",
		Usage:     "explain the checks: what each stops, where it is specified, who can mend it",
		ArgsUsage: "[ID...]",
		Description: "Without an ID all checks, in the order of results. An ID may be one of a result, such as policy.guest.pcr.4, or the\n" +
			"beginning of several, such as guest.quote.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT`: text, json or markdown"},
		},
		Action: p.checks,
	}
}

func (p *program) checks(c *cli.Context) error {
	format, err := p.oneFormat(c, "text", "json", "markdown")
	if err != nil {
		return err
	}
	specs := slices.Concat(verify.Catalogue(), policy.Catalogue())
	if c.NArg() > 0 {
		if specs, err = selectChecks(specs, c.Args().Slice()); err != nil {
			return err
		}
	}
	var b strings.Builder
	switch format {
	case "text":
		for _, s := range specs {
			checkText(&b, s)
		}
	case "markdown":
		checksMarkdown(&b, specs)
	case "json":
		out, err := json.Marshal(specs, json.Deterministic(true), jsontext.WithIndent("  "))
		if err != nil {
			return err
		}
		b.Write(append(out, '\n'))
	}
	return p.writeOutput("-", []byte(b.String()))
}

// selectChecks returns the checks whose id is one of those given or begins with
// one and a dot.
func selectChecks(specs []verify.Spec, ids []string) ([]verify.Spec, error) {
	var list []verify.Spec
	for _, id := range ids {
		found := false
		for _, s := range specs {
			if s.ID == id || strings.HasPrefix(s.ID, strings.TrimSuffix(id, ".")+".") || isPCR(s.ID, id) {
				list, found = append(list, s), true
			}
		}
		if !found {
			return nil, usagef("no check %q: `deepattest checks` lists them all", id)
		}
	}
	return list, nil
}

// isPCR reports whether an id is one of those that the catalogue's "pcr.N" stands
// for.
func isPCR(spec, id string) bool {
	prefix, ok := strings.CutSuffix(spec, ".N")
	n, number := strings.CutPrefix(id, prefix+".")
	return ok && number && n != "" && strings.Trim(n, "0123456789") == ""
}

func checkText(b *strings.Builder, s verify.Spec) {
	fmt.Fprintf(b, "%s\n  %s\n  stops      %s\n", s.ID, s.Title, s.Stops)
	if len(s.CVEs) > 0 {
		fmt.Fprintf(b, "  cases      %s\n", strings.Join(s.CVEs, ", "))
	}
	fmt.Fprintf(b, "  specified  %s\n  remedy     %s: %s\n", s.Citation, s.Actor, s.Remedy)
	if len(s.Needs) > 0 {
		fmt.Fprintf(b, "  needs      %s\n", strings.Join(s.Needs, ", "))
	}
	b.WriteByte('\n')
}

// checksMarkdown writes CHECKS.md.
func checksMarkdown(b *strings.Builder, specs []verify.Spec) {
	b.WriteString("# Checks\n\nMade by `make docs` out of the catalogue; `deepattest checks` prints the same. IDs are stable.\n\n" +
		"Every check is made for every bundle and listed in every result, in this order. A failed check of format, host, link or guest gives `rejected`; a\n" +
		"failed policy check `untrusted`; context checks only warn.\n")
	layer := verify.Layer("")
	for _, s := range specs {
		if s.Layer != layer {
			layer = s.Layer
			fmt.Fprintf(b, "\n## Layer %s\n", layer)
		}
		fmt.Fprintf(b, "\n### `%s`\n\n%s.\n\n- Stops: %s\n", s.ID, s.Title, s.Stops)
		if len(s.CVEs) > 0 {
			fmt.Fprintf(b, "- Known cases: %s\n", strings.Join(s.CVEs, ", "))
		}
		fmt.Fprintf(b, "- Specified: %s\n- Remedy (%s): %s\n", s.Citation, s.Actor, s.Remedy)
		if len(s.Needs) > 0 {
			fmt.Fprintf(b, "- Needs: `%s`\n", strings.Join(s.Needs, "`, `"))
		}
	}
}
