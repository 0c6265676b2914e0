package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/keylime"
	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
	"github.com/deepattest/deepattest/verify"
)

// throughKeylime begins the address of a host that is asked through its Keylime agent.
const throughKeylime = "keylime:"

// agentFlags say what asking a host's Keylime agent needs.
func agentFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "registrar-record", EnvVars: env("registrar-record"), Usage: "with --host keylime: registrar's record of the host's agent, as a `FILE` of `deepattest keylime record`. Your word that you trust that registrar about the host's keys"},
		&cli.StringFlag{Name: "agent-cert", EnvVars: env("agent-cert"), Usage: "with --host keylime: PEM `FILE` of a client certificate that the agent, or the proxy in front of it, accepts"},
		&cli.StringFlag{Name: "agent-key", EnvVars: env("agent-key"), Usage: "with --host keylime: PEM `FILE` of its key"},
		&cli.StringFlag{Name: "host-ca-statement", EnvVars: env("host-ca-statement"), Usage: "with --host keylime: `FILE` of `deepattest host certify-ca`, where the host's TPM certified this vTPM"},
	}
}

// onKeylime reports whether --host names a Keylime agent.
func onKeylime(c *cli.Context) bool { return strings.HasPrefix(c.String("host"), throughKeylime) }

// agentSource makes the source of --host keylime:ADDRESS.
func (p *program) agentSource(c *cli.Context) (*hostSource, error) {
	if err := needed(c, "registrar-record"); err != nil {
		return nil, err
	}
	record, from, err := readRecord(c.String("registrar-record"))
	if err != nil {
		return nil, err
	}
	source := &keylime.AgentSource{Record: record, From: from}
	if path := c.String("host-ca-statement"); path != "" {
		if source.CA, err = readStatement(path); err != nil {
			return nil, usagef("--host-ca-statement: %w", err)
		}
	}
	o := keylime.Options{Now: p.now}
	if o.RootCAs, err = keylimePool(c, "host-ca"); err != nil {
		return nil, err
	}
	if o.Certificate, err = clientCertificate(c, "agent-cert", "agent-key"); err != nil {
		return nil, err
	}
	address := strings.TrimPrefix(c.String("host"), throughKeylime)
	if source.Agent, err = keylime.NewHostAgent(address, record, o); err != nil {
		return nil, usagef("--host: %w", err)
	}
	return &hostSource{HostSource: source, agent: source, close: source.Agent.Close}, nil
}

// readRecord reads a registrar's record, and says where it is from.
func readRecord(path string) (*keylime.Record, string, error) {
	data, err := readFile(path, maxPEM)
	if err != nil {
		return nil, "", usagef("--registrar-record: %w", err)
	}
	record, err := keylime.ReadRecord(data)
	if err != nil {
		return nil, "", usagef("--registrar-record %s: %w", path, err)
	}
	return record, fmt.Sprintf("registrar's record %s, agent %s", path, record.AgentID), nil
}

// addRecords makes registrar's records trust anchors: the tenant named them.
func addRecords(anchors *verify.Anchors, paths []string) error {
	for _, path := range paths {
		record, from, err := readRecord(path)
		if err != nil {
			return err
		}
		r, err := (&keylime.AgentSource{Record: record, From: from}).Registration()
		if err != nil {
			return usagef("--registrar-record %s: %w", path, err)
		}
		anchors.Registered = append(anchors.Registered, r)
	}
	return nil
}

// readStatement reads what `deepattest host certify-ca` wrote.
func readStatement(path string) (*quote.CAStatement, error) {
	data, err := readFile(path, policy.MaxPolicy)
	if err != nil {
		return nil, err
	}
	s, err := host.ReadStatement(data)
	return s, inFile(path, err)
}
