package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/openstack"
	"github.com/deepattest/deepattest/internal/report"
	"github.com/deepattest/deepattest/quote"
)

func (p *program) openstackCommand() *cli.Command {
	return &cli.Command{
		Name:        "openstack",
		Usage:       "what an OpenStack cloud says of a VM: asserted by its operator, proof of nothing",
		Subcommands: []*cli.Command{p.openstackListCommand(), p.openstackShowCommand(), p.openstackGuestCommand()},
	}
}

func (p *program) openstackListCommand() *cli.Command {
	return &cli.Command{
		Name:   "list",
		Usage:  "list the project's servers, and whether they have a vTPM",
		Flags:  []cli.Flag{cloudFlag("default: OS_CLOUD or the OS_ variables"), timeoutFlag()},
		Action: p.openstackList,
	}
}

func (p *program) openstackList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	return p.withCloud(c, func(ctx context.Context, cloud *openstack.Cloud) error {
		servers, err := cloud.Servers(ctx)
		if err != nil {
			return err
		}
		var b strings.Builder
		for _, s := range servers {
			fmt.Fprintf(&b, "%s  %-8s vTPM %-8s %s\n", s.ID, report.Clean(s.Status), report.Clean(told(s.VTPM())), report.Clean(s.Name))
		}
		return p.writeOutput("-", []byte(b.String()))
	})
}

// withCloud logs in and calls f; what the cloud refuses keeps from assessing.
func (p *program) withCloud(c *cli.Context, f func(context.Context, *openstack.Cloud) error) error {
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	cloud, err := openCloud(ctx, c)
	if err != nil {
		return err
	}
	defer cloud.Close()
	return cannot(ended(ctx, f(ctx, cloud)))
}

func told(text string) string {
	if text == "" {
		return "not told"
	}
	return text
}

func (p *program) openstackShowCommand() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "show what the cloud's APIs say of a server that matters for attestation",
		ArgsUsage: "[UUID]",
		Description: "Flavor, image with its hash, host id, actions that may have moved the server, and whether the vTPM's secret is in\n" +
			"the key manager. Without UUID it is about this machine. With --host-name it checks that host id against a name.",
		Flags: []cli.Flag{
			cloudFlag("default: OS_CLOUD or the OS_ variables"),
			vmFlag("`UUID` of this VM, where SMBIOS does not tell it"),
			&cli.StringFlag{Name: "host-name", Usage: "`NAME` of a host, as Nova has it: is the server there?"},
			timeoutFlag(),
		},
		Action: p.openstackShow,
	}
}

func (p *program) openstackShow(c *cli.Context) error {
	vm, err := thisVM(c)
	if c.NArg() > 0 {
		var text string
		if text, err = oneArg(c, "the uuid of a server"); err == nil {
			vm, err = quote.ParseUUID(text)
		}
	}
	if err != nil {
		return usage(err)
	}
	return p.withCloud(c, func(ctx context.Context, cloud *openstack.Cloud) error {
		s, err := cloud.Server(ctx, vm)
		if err != nil {
			return err
		}
		var b strings.Builder
		line := func(label, format string, args ...any) {
			fmt.Fprintf(&b, "%-12s %s\n", label, report.Clean(fmt.Sprintf(format, args...)))
		}
		line("server", "%s %s, %s since %s", s.ID, s.Name, s.Status, s.Created)
		line("flavor", "%s, vTPM: %s", s.Flavor, told(s.VTPM()))
		line("host id", "%s in project %s", s.HostID, s.Project)
		if name := c.String("host-name"); name != "" {
			word := "no: the server is on another host"
			if openstack.HostID(s.Project, name) == s.HostID {
				word = "yes"
			}
			line("on host", "%s: %s", name, word)
		}
		p.showImage(ctx, cloud, s, line)
		showActions(ctx, cloud, vm, line)
		status, err := cloud.VTPMSecret(ctx, vm)
		switch {
		case err != nil:
			line("vTPM secret", "not known: %v", err)
		case status == "":
			line("vTPM secret", "none that these credentials can see")
		default:
			line("vTPM secret", "in the key manager, %s: the vTPM's state is encrypted when it is stored", status)
		}
		b.WriteString("All of this is what the cloud's operator asserts.\n")
		return p.writeOutput("-", []byte(b.String()))
	})
}

func (p *program) showImage(ctx context.Context, cloud *openstack.Cloud, s *openstack.Server, line func(string, string, ...any)) {
	if s.Image == "" {
		line("image", "none: the server boots from a volume")
		return
	}
	image, err := cloud.Image(ctx, s.Image)
	if err != nil {
		line("image", "%s: %v", s.Image, err)
		return
	}
	line("image", "%s %s, firmware %s, vTPM: %s", s.Image, image.Name, told(image.Firmware), told(image.VTPM))
	line("image hash", "%s:%s", told(image.Algorithm), image.Hash)
}

func showActions(ctx context.Context, cloud *openstack.Cloud, vm quote.UUID, line func(string, string, ...any)) {
	actions, err := cloud.Actions(ctx, vm)
	if err != nil {
		line("actions", "not known: %v", err)
		return
	}
	for _, a := range actions {
		note := ""
		if a.Moves() {
			note = "   may have moved it to another host"
		}
		line("action", "%s %s%s", a.Start.UTC().Format(time.RFC3339), a.Name, note)
	}
}

func (p *program) openstackGuestCommand() *cli.Command {
	return &cli.Command{
		Name:  "guest",
		Usage: "show what this machine is told without credentials: uuid, project, its host's quote service",
		Flags: concat([]cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT`: text, or json"},
		}, metadataFlags()),
		Action: p.openstackGuest,
	}
}

func (p *program) openstackGuest(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	format := c.String("format")
	if format != "text" && format != "json" {
		return usagef("-o %q: want text or json", format)
	}
	p.json = format == "json"
	i, err := cloudGuest(c).Read(c.Context)
	if err != nil {
		return cannot(err)
	}
	if format == "json" {
		out, err := json.Marshal(map[string]any{"cloud": i.Facts, "host": i.Hint}, json.Deterministic(true), jsontext.WithIndent("  "))
		if err != nil {
			return err
		}
		return p.writeOutput("-", append(out, '\n'))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "instance     %s\nproject      %s\nasked        %s\n", i.Facts.VM, report.Clean(told(i.Facts.Project)), i.Facts.Source)
	if h := i.Hint; h == nil {
		b.WriteString("host         the operator's vendordata names no quote service\n")
	} else {
		fmt.Fprintf(&b, "host         %s at %s\n             EK %s\n             AK %s\n", report.Clean(told(h.Name)), report.Clean(told(h.Service)), h.EK, h.AK)
		b.WriteString("             (hints: compare the keys with your trust file, or enroll the host over a connection that you trust)\n")
	}
	if i.Note != "" {
		fmt.Fprintf(&b, "note         %s\n", report.Clean(i.Note))
	}
	return p.writeOutput("-", []byte(b.String()))
}
