package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/internal/openstack"
	"github.com/deepattest/deepattest/quote"
)

// throughCloud is the address of a host that is reached through the cloud's
// vendordata.
const throughCloud = "vendordata"

// cloudLimit bounds asking a cloud's API while evidence is collected.
const cloudLimit = 2 * time.Second

func cloudFlag(usage string) cli.Flag {
	return &cli.StringFlag{Name: "cloud", EnvVars: env("cloud"), Usage: "entry of clouds.yaml, as `NAME`, or env for the OS_ variables; " + usage}
}

func metadataFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "metadata", Value: openstack.DefaultMetadata, EnvVars: env("metadata"), Usage: "base `URL` of OpenStack's metadata service"},
		&cli.StringFlag{Name: "config-drive", EnvVars: env("config-drive"), Usage: "OpenStack's config drive, as `PATH` of a device, image or mounted folder; default: looked for"},
	}
}

// cloudFlags say how a guest learns about itself and its host from a cloud.
func cloudFlags() []cli.Flag {
	return concat([]cli.Flag{
		cloudFlag("adds what its API says of this VM to the evidence, if it answers within 2 s, and is needed for --host vendordata"),
		&cli.StringFlag{Name: "openstack", Value: "auto", EnvVars: env("openstack"), Usage: "`WHEN` to ask OpenStack's metadata service: auto (SMBIOS says that this is an OpenStack server), yes or no"},
	}, metadataFlags())
}

// cloudGuest reads what OpenStack tells a guest.
func cloudGuest(c *cli.Context) openstack.Guest {
	return openstack.Guest{Metadata: c.String("metadata"), Drive: c.String("config-drive")}
}

// openCloud logs in to the cloud of --cloud.
func openCloud(ctx context.Context, c *cli.Context) (*openstack.Cloud, error) {
	name := c.String("cloud")
	if name == "env" {
		name = ""
	}
	cloud, err := openstack.Open(ctx, name)
	if errors.Is(err, openstack.ErrCredentials) {
		return nil, usage(err)
	}
	return cloud, cannot(ended(ctx, err))
}

// surroundings is what a cloud says of this VM and its host: hints.
type surroundings struct {
	hint  *host.Vendordata
	facts *quote.Cloud
	asked chan *quote.Cloud // from the API; nil when it is not asked
	until time.Time
	stop  context.CancelFunc
}

// around asks the metadata service, within two seconds and with two requests, and
// starts to ask the cloud's API when --cloud names one; then the metadata service
// has to tell the host's address only. In all that is three requests.
func (p *program) around(ctx context.Context, c *cli.Context) (*surroundings, error) {
	s := &surroundings{stop: func() {}}
	g := cloudGuest(c)
	switch when := c.String("openstack"); {
	case when != "auto" && when != "yes" && when != "no":
		return nil, usagef("--openstack %q: want auto, yes or no", when)
	case when == "no" || when == "auto" && !g.OnOpenStack() && c.String("cloud") == "":
		return s, nil
	}
	if c.String("cloud") != "" {
		p.askCloud(ctx, c, s)
		if c.String("host") == "" {
			hint, err := g.Hint(ctx)
			s.hint = hint
			p.note(err)
		}
		return s, nil
	}
	i, err := p.readWaiting(ctx, c, g)
	if err != nil {
		p.note(err)
		s.facts = &quote.Cloud{Source: quote.CloudMetadata, Missing: guest.Missing("", err.Error()).Reason}
		return s, nil
	}
	if i.Note != "" {
		p.note(errors.New(i.Note))
	}
	s.facts, s.hint = i.Facts, i.Hint
	return s, nil
}

// readWaiting reads what the cloud tells this guest, again for --wait while nothing
// answers and the host's address has to come from there.
func (p *program) readWaiting(ctx context.Context, c *cli.Context, g openstack.Guest) (*openstack.Instance, error) {
	until := p.now().Add(c.Duration("wait"))
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		i, err := g.Read(ctx)
		if err == nil || c.String("host") != "" || !p.now().Add(pause).Before(until) {
			return i, err
		}
		p.note(fmt.Errorf("%w; again in %s", err, pause))
		if !sleep(ctx, pause) {
			return nil, err
		}
	}
}

// note tells people about something that no verdict rests on.
func (p *program) note(err error) {
	if err != nil {
		fmt.Fprintf(p.err, "deepattest: %v\n", err)
	}
}

// askCloud starts to ask the API about this VM, beside the collection of evidence.
func (p *program) askCloud(ctx context.Context, c *cli.Context, s *surroundings) {
	ctx, s.stop = context.WithTimeoutCause(ctx, cloudLimit, fmt.Errorf("no answer within %s", cloudLimit))
	s.asked, s.until = make(chan *quote.Cloud, 1), p.now().Add(cloudLimit)
	go func() {
		facts, err := askedFacts(ctx, c)
		if err != nil {
			facts = &quote.Cloud{Source: quote.CloudAPI, Missing: guest.Missing("", ended(ctx, err).Error()).Reason}
		}
		s.asked <- facts
	}()
}

func askedFacts(ctx context.Context, c *cli.Context) (*quote.Cloud, error) {
	vm, err := thisVM(c)
	if err != nil {
		return nil, err
	}
	cloud, err := openCloud(ctx, c)
	if err != nil {
		return nil, err
	}
	defer cloud.Close()
	server, err := cloud.Server(ctx, vm)
	if err != nil {
		return nil, err
	}
	return server.Facts(), nil
}

// thisVM is the uuid of --vm, or SMBIOS's.
func thisVM(c *cli.Context) (quote.UUID, error) {
	vm, err := parseVM(c.String("vm"))
	if err != nil || !vm.IsZero() {
		return vm, err
	}
	if vm, err = guest.DefaultPaths().VM(); err != nil {
		return vm, fmt.Errorf("%w: run as root, or give --vm UUID", err)
	}
	return vm, nil
}

// cloud returns what is known when the evidence is complete.
func (s *surroundings) cloud(p *program) *quote.Cloud {
	if s.asked == nil {
		return s.facts
	}
	late := time.NewTimer(max(0, s.until.Sub(p.now())))
	defer late.Stop()
	select {
	case s.facts = <-s.asked:
	case <-late.C:
		s.facts = &quote.Cloud{Source: quote.CloudAPI, Missing: fmt.Sprintf("the cloud's API did not answer within %s", cloudLimit)}
	}
	s.asked = nil
	if s.facts.Missing != "" {
		p.note(errors.New("the cloud: " + s.facts.Missing))
	}
	return s.facts
}

// hostSource is who is asked for the host's evidence: client, when that is a quote
// service with an address, agent, when it is a Keylime agent, or nobody.
type hostSource struct {
	guest.HostSource
	client *host.Client
	agent  *keylime.AgentSource // nil unless it is the host's Keylime agent
	close  func()
}

// findHost makes the source of --host, or of the address that the cloud's
// vendordata hints at. What the source says is evidence whoever it is: the trust
// file decides which host is the tenant's.
func (p *program) findHost(ctx context.Context, c *cli.Context, t *trustFile, s *surroundings) (*hostSource, error) {
	if c.String("host") == throughCloud {
		cloud, err := openCloud(ctx, c)
		if err != nil {
			return nil, err
		}
		return &hostSource{
			HostSource: &openstack.Source{Cloud: cloud, Metadata: c.String("metadata"), Note: func(text string) { p.note(errors.New(text)) }},
			close:      cloud.Close,
		}, nil
	}
	if onKeylime(c) {
		return p.agentSource(c)
	}
	client, err := hostClient(c, t, s.hint)
	if err != nil || client == nil {
		return &hostSource{close: func() {}}, err
	}
	if c.String("host") == "" {
		p.note(fmt.Errorf("asking %s, as the cloud's vendordata says: a hint, your trust file decides whether that is your host", client.Address()))
	}
	return &hostSource{HostSource: client, client: client, close: client.Close}, nil
}

// hinted completes the options of a client with what vendordata says, where the
// tenant says nothing. It returns the address, empty when there is none to use.
func hinted(hint *host.Vendordata, t *trustFile, o *host.Options) (string, error) {
	if hint == nil || hint.Service == "" {
		return "", nil
	}
	if !strings.HasPrefix(hint.Service, "https://") {
		return "", fmt.Errorf("the cloud's vendordata names the host service %.80q: want https://HOST:PORT; cloud operator: mend it", hint.Service)
	}
	if o.Fingerprint != "" || o.RootCAs != nil || t != nil && t.fingerprint(hint.Service) != "" {
		return hint.Service, nil
	}
	o.Fingerprint = hint.Fingerprint
	if hint.Fingerprint == "" && hint.CA != "" {
		pool, err := poolOf([]byte(hint.CA))
		if err != nil {
			return "", fmt.Errorf("the cloud's vendordata: ca: %w", err)
		}
		o.RootCAs = pool
	}
	return hint.Service, nil
}
