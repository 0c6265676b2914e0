package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/policy/lifecycle"
	"github.com/deepattest/deepattest/verify"
)

func (p *program) policyUpdateCommand() *cli.Command {
	return &cli.Command{
		Name:      "update",
		Usage:     "accept what an update will change, before it is rolled out; drop what no machine uses any more",
		ArgsUsage: "POLICY [BUNDLE...]",
		Description: "--stage computes the PCR values after a change from the files of the change and from the components that the\n" +
			"policy keeps of its values, and adds them beside the old ones. All changes of one call come together. ROLE is\n" +
			"uki (or uki@N, profile N of it), shim, grub, kernel, initrd, PK, KEK, db or dbx; cmdline (then TEXT, the whole new kernel command line);\n" +
			"text (then OLD=NEW in what GRUB runs, such as the version in file names); the name of a component as the policy\n" +
			"has it, such as \"file /boot/grub/grub.cfg\"; or bundle, the evidence of a machine that runs the change already.\n" +
			"What cannot be predicted is said on the standard error, with the PCRs of the policy that are left stale by it. When\n" +
			"nothing is staged, that is an error: nothing is written, and the exit code is 3.\n\n" +
			"--prune drops the values and profiles that none of the BUNDLEs shows.\n\n" +
			"   deepattest policy update policy.yaml --stage uki=/boot/efi/EFI/Linux/new.efi --output policy.yaml\n" +
			"   deepattest policy update policy.yaml --stage kernel=vmlinuz-6.12 --stage initrd=initrd.img-6.12 --stage text=6.1=6.12\n" +
			"   deepattest policy update policy.yaml --prune --trust trust.yaml --unsafe-any-challenge today/*.json",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "stage", Usage: "accept what `ROLE=FILE` will give, too; may be repeated"},
			&cli.BoolFlag{Name: "prune", Usage: "drop what none of the BUNDLEs shows"},
			&cli.StringFlag{Name: "layer", Value: string(verify.Guest), Usage: "`LAYER` that changes: guest or host"},
			&cli.StringFlag{Name: "output", Value: "-", Usage: "`FILE` for the policy, which may be the old one; - is the standard output"},
			challengeFlag("the challenge of the bundles, as `HEX`"),
			trustFlag(),
			&cli.StringFlag{Name: "now", Usage: "`TIME` (RFC 3339) of the verification; default: now"},
			&cli.BoolFlag{Name: "unsafe-any-challenge", Usage: "take the challenge from each bundle: a replay looks the same"},
			jobsFlag(),
		},
		Action: p.policyUpdate,
	}
}

// roleBundle is the role of a canary's evidence.
const roleBundle = "bundle"

func (p *program) policyUpdate(c *cli.Context) error {
	if c.NArg() == 0 {
		return usagef("policy update needs a policy file")
	}
	path, bundles := c.Args().First(), c.Args().Slice()[1:]
	layer, err := parseLayer(c.String("layer"))
	if err != nil {
		return err
	}
	stages := c.StringSlice("stage")
	switch {
	case len(stages) == 0 && !c.Bool("prune"):
		return usagef("policy update changes nothing: give --stage ROLE=FILE, or --prune and bundles")
	case c.Bool("prune") != (len(bundles) > 0):
		return usagef("--prune goes with bundles, and bundles go with --prune; a machine that runs the change is --stage bundle=FILE")
	}
	data, err := readFile(path, policy.MaxPolicy)
	if err != nil {
		return usagef("policy: %w", err)
	}
	editor, err := lifecycle.Edit(data, besideFiles(path))
	if err != nil {
		return usage(inFile(path, err))
	}
	opts, err := p.updateOptions(c, editor.Policy(), len(bundles) > 0 || slices.ContainsFunc(stages, isCanary))
	if err != nil {
		return err
	}
	if c.Bool("prune") { // first, because nothing shows what is staged
		if err := p.prune(c, editor, layer, bundles, opts); err != nil {
			return err
		}
	}
	if err := p.stage(c, editor, layer, stages, opts); err != nil {
		return err
	}
	text, err := editor.Encode()
	if err != nil {
		return cannot(err)
	}
	if _, err := os.Stat(signatureFile(path)); err == nil {
		p.remark("%s is of the old policy: sign the new one", signatureFile(path))
	}
	return p.writeOutput(c.String("output"), text)
}

// remark tells a person what goes with a policy on the standard output.
func (p *program) remark(format string, args ...any) {
	fmt.Fprintf(p.err, "deepattest: %s\n", report.Clean(fmt.Sprintf(format, args...)))
}

func isCanary(stage string) bool { return strings.HasPrefix(stage, roleBundle+"=") }

// updateOptions are those of verifying bundles, if there are any.
func (p *program) updateOptions(c *cli.Context, rules *policy.Policy, bundles bool) (verify.Options, error) {
	var opts verify.Options
	if !bundles {
		return opts, nil
	}
	trust, err := loadTrust(c)
	if err != nil {
		return opts, err
	}
	opts = verify.Options{Now: p.now(), Anchors: trust.anchors, UnsafeAnyChallenge: c.Bool("unsafe-any-challenge")}
	if _, err := p.appraisal(c, &opts); err != nil {
		return opts, err
	}
	return rules.Options(opts)
}

func (p *program) stage(c *cli.Context, editor *lifecycle.Editor, layer verify.Layer, stages []string, opts verify.Options) error {
	var replacements []lifecycle.Replacement
	var canaries []string
	for _, text := range stages {
		// Names of components may have an equals sign in them, paths seldom do.
		role, value, ok := strings.Cut(text, "=")
		if role != lifecycle.RoleText && role != lifecycle.RoleCommandLine {
			if i := strings.LastIndexByte(text, '='); i >= 0 {
				role, value = text[:i], text[i+1:]
			}
		}
		if !ok || role == "" || value == "" {
			return usagef("--stage %q: want ROLE=FILE, such as uki=new.efi", text)
		}
		switch role {
		case roleBundle:
			canaries = append(canaries, value)
		case lifecycle.RoleText, lifecycle.RoleCommandLine:
			replacements = append(replacements, lifecycle.Replacement{Role: role, Text: value})
		default:
			f, size, err := openRegular(value)
			if err != nil {
				return usagef("--stage %s: %w", role, err)
			}
			defer f.Close()
			replacements = append(replacements, lifecycle.Replacement{Role: role, Name: filepath.Base(value), Data: f, Size: size})
		}
	}
	if len(replacements) > 0 {
		prediction, err := lifecycle.Predict(editor.Policy(), layer, replacements)
		if err != nil {
			return usagef("--stage %w", err)
		}
		for _, note := range prediction.Notes {
			p.remark("%s", note)
		}
		for _, n := range prediction.Stale {
			p.remark("PCR %d of the policy goes stale: it has no value for machines that run the change, which will be untrusted; stage it from the evidence of one, with bundle=FILE", n)
		}
		added := editor.Add(layer, prediction.Values)
		if added == 0 && len(canaries) == 0 {
			return cannot(fmt.Errorf("nothing is staged: %s", whyNothing(prediction)))
		}
		p.remark("%s staged", plural(added, "value"))
	}
	if len(canaries) == 0 {
		return nil
	}
	learner := lifecycle.NewLearner(lifecycle.LearnOptions{})
	if err := p.eachReport(c, canaries, opts, func(i int, r *verify.Report) error { return cannot(learner.Add(i, r)) }); err != nil {
		return err
	}
	rules := editor.Policy().Guest
	if layer == verify.Host {
		rules = editor.Policy().Host
	}
	if rules == nil {
		return usagef("the policy has no %s section", layer)
	}
	values := make(map[int][]policy.Value)
	for n := range rules.PCRs {
		values[n] = learner.Values(layer, n)
		for i := range values[n] {
			if values[n][i].Note == "" {
				values[n][i].Note = "staged: evidence " + strings.Join(canaries, ", ")
			}
		}
	}
	added := editor.Add(layer, values)
	if added == 0 && len(replacements) == 0 {
		return cannot(errors.New("nothing is staged: the policy accepts all that the evidence shows of its PCRs already"))
	}
	p.remark("%s staged", plural(added, "value"))
	if len(rules.Profiles) > 0 {
		p.remark("profiles are left as they are: add one for the new state by hand")
	}
	return nil
}

// whyNothing says why a prediction gives a policy nothing.
func whyNothing(p *lifecycle.Prediction) string {
	if len(p.Stale) == 0 {
		return "the policy accepts the values after the change already"
	}
	var list []string
	for _, n := range p.Stale {
		list = append(list, strconv.Itoa(n))
	}
	return "no value could be predicted that the policy does not accept already, and PCR " + strings.Join(list, ", ") +
		" is left stale: stage the evidence of a machine that runs the change, with bundle=FILE"
}

// openRegular opens a file for reading.
func openRegular(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

func (p *program) prune(c *cli.Context, editor *lifecycle.Editor, layer verify.Layer, bundles []string, opts verify.Options) error {
	if err := p.eachReport(c, bundles, opts, func(i int, r *verify.Report) error {
		if err := editor.Saw(layer, i, r); err != nil {
			return cannot(fmt.Errorf("prune: %w", err))
		}
		return nil
	}); err != nil {
		return err
	}
	dropped, err := editor.Prune(layer)
	if err != nil {
		return cannot(fmt.Errorf("prune: %w", err))
	}
	for _, d := range dropped {
		p.remark("dropped %s", d)
	}
	p.remark("%s dropped", plural(len(dropped), "value"))
	return nil
}
