package main

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/keylime"
)

func (p *program) keylimeCommand() *cli.Command {
	return &cli.Command{
		Name:  "keylime",
		Usage: "for administrators of a Keylime installation, never inside a guest",
		Description: "What a guest itself does is `deepattest push keylime`, which needs no credentials of an administrator.\n" +
			"See docs/keylime.md.",
		Subcommands: []*cli.Command{p.keylimeEnrolCommand(), p.keylimeRecordCommand(), p.keylimeEKCheckCommand()},
	}
}

func registrarFlag(usage string) cli.Flag {
	return &cli.StringFlag{Name: "registrar", EnvVars: env("registrar"), Usage: usage}
}

func verifierFlag() cli.Flag {
	return &cli.StringFlag{Name: "verifier", EnvVars: env("verifier"), Usage: "`ADDRESS` of the Keylime verifier: https://HOST:8881"}
}

func keylimeCAFlag() cli.Flag {
	return &cli.StringFlag{Name: "ca", EnvVars: env("ca"), Usage: "PEM `FILE` of the CA that certifies the Keylime servers (cv_ca/cacert.crt); default: the system's roots"}
}

// adminFlags are those of commands that use an administrator's certificate. None can
// stand in the environment: it is for one call, by a person.
func adminFlags() []cli.Flag {
	return []cli.Flag{
		keylimeCAFlag(),
		&cli.StringFlag{Name: "cert", Usage: "PEM `FILE` of the administrator's certificate (client-cert.crt)"},
		&cli.StringFlag{Name: "key", Usage: "PEM `FILE` of its key (client-private.pem)"},
		&cli.BoolFlag{Name: "i-am-the-administrator", Usage: "this is the administrator's machine and no attested guest; without it the certificate and key are not read"},
		timeoutFlag(),
	}
}

// adminOptions reads what adminFlags name. A program cannot know for certain that it
// runs in a guest, so it is asked in every case, and before the key is touched.
func (p *program) adminOptions(c *cli.Context) (o keylime.Options, err error) {
	if !c.Bool("i-am-the-administrator") {
		return o, usagef("%s reads an administrator's key, which must never be in a guest: run it on your own machine, and say --i-am-the-administrator", c.Command.FullName())
	}
	if o, err = p.keylimeOptions(c); err != nil {
		return o, err
	}
	o.Certificate, err = clientCertificate(c, "cert", "key")
	return o, err
}

// keylimeOptions are those of a client without a certificate of its own.
func (p *program) keylimeOptions(c *cli.Context) (o keylime.Options, err error) {
	o.Now = p.now
	o.RootCAs, err = keylimePool(c, "ca")
	return o, err
}

// keylimePool reads the CA that a flag names, nil without one.
func keylimePool(c *cli.Context, flag string) (*x509.CertPool, error) {
	path := c.String(flag)
	if path == "" {
		return nil, nil
	}
	data, err := readFile(path, maxPEM)
	if err != nil {
		return nil, usagef("--%s: %w", flag, err)
	}
	pool, err := keylime.ReadPool(data, path)
	if err != nil {
		return nil, usagef("--%s: %w", flag, err)
	}
	return pool, nil
}

// clientCertificate reads a certificate and its key, which belong together.
func clientCertificate(c *cli.Context, certFlag, keyFlag string) (*tls.Certificate, error) {
	if c.String(certFlag) == "" || c.String(keyFlag) == "" {
		return nil, usagef("--%s and --%s are needed: the server wants a client certificate", certFlag, keyFlag)
	}
	cert, err := readFile(c.String(certFlag), maxPEM)
	if err != nil {
		return nil, usagef("--%s: %w", certFlag, err)
	}
	key, err := readFile(c.String(keyFlag), maxKey)
	if err != nil {
		return nil, usagef("--%s: %w", keyFlag, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, usagef("--%s %s, --%s %s: %w", certFlag, c.String(certFlag), keyFlag, c.String(keyFlag), err)
	}
	return &pair, nil
}

// needed refuses a command line without one of some flags.
func needed(c *cli.Context, flags ...string) error {
	for _, name := range flags {
		if c.String(name) == "" {
			return usagef("%s needs --%s: see `deepattest %s --help`", c.Command.FullName(), name, c.Command.HelpName)
		}
	}
	return nil
}

// records opens the registrar of --registrar with an administrator's certificate.
func records(c *cli.Context, o keylime.Options) (*keylime.Registrar, error) {
	r, err := keylime.NewRegistrar(c.String("registrar"), o)
	return r, usage(err)
}
