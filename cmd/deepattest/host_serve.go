package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/internal/guest"
	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

func (p *program) hostServeCommand() *cli.Command {
	paths := guest.DefaultPaths()
	return &cli.Command{
		Name:  "serve",
		Usage: "quote the host's TPM for its guests, and vouch for their vTPMs",
		Description: "Runs on the hypervisor until it is told to stop. Vouches for those VMs only whose vTPM's endorsement key is in the\n" +
			"registry, a folder with files named by VM uuid: UUID.pem, UUID.crt, UUID.der (certificates), UUID.pub (TPMT_PUBLIC).\n" +
			"With --libvirt it vouches for the running VMs whose vTPM has a certificate of this host's CA for that VM.\n" +
			"For OpenStack's dynamic vendordata it answers on POST /v1/vendordata: see docs/openstack.md.\n" +
			"The service and its configuration belong into what the host measures: see docs/trust.md.",
		Flags: concat(registryFlags(), []cli.Flag{
			&cli.StringSliceFlag{Name: "listen", Value: cli.NewStringSlice(":8443"), EnvVars: env("listen"), Usage: "`ADDRESS` to listen on, [HOST]:PORT with TLS or unix:PATH; may be repeated"},
			&cli.StringFlag{Name: "public", EnvVars: env("public"), Usage: "`ADDRESS` of this service as guests reach it, https://HOST:PORT: what the cloud's vendordata tells them"},
			&cli.StringFlag{Name: "name", EnvVars: env("name"), Usage: "`NAME` of this host, for people; default: the system's"},
			&cli.StringFlag{Name: "cert", EnvVars: env("cert"), Usage: "PEM `FILE` of the service's certificate; made with the key if neither is there. Without it, one that lives as long as the service"},
			&cli.StringFlag{Name: "key", EnvVars: env("key"), Usage: "PEM `FILE` of the certificate's key"},
			tpmFlag(),
			&cli.StringFlag{Name: "pcrs", Value: defaultPCRs, EnvVars: env("pcrs"), Usage: "PCRs in every quote, as `BANK:N,N,...[+BANK:...]`"},
			&cli.StringFlag{Name: "event-log", Value: paths.EventLog, EnvVars: env("event-log"), Usage: "`FILE` with the firmware's event log"},
			&cli.StringFlag{Name: "ima-log", Value: paths.IMA, EnvVars: env("ima-log"), Usage: "`FILE` with the binary IMA list"},
			&cli.StringSliceFlag{Name: "crl", EnvVars: env("crl"), Usage: "`FILE` with a revocation list of an issuer of the TPM's EK certificate, for the evidence; may be repeated, and renewed while the service runs"},
			&cli.BoolFlag{Name: "xen-vtpmmgr", Usage: "in the control domain of a Xen host, instead: make vTPMs for whoever starts guests and has the token (GET / gives {\"uuid\"})"},
			&cli.UintFlag{Name: "xen-group", EnvVars: env("xen-group"), Usage: "with --xen-vtpmmgr: `NUMBER` of the group of vTPMs"},
			&cli.StringFlag{Name: "xen-identity", EnvVars: env("xen-identity"), Usage: "with --xen-vtpmmgr: `FILE` with the host's keys, to show to its guests"},
			&cli.StringFlag{Name: "token", EnvVars: env("token"), Usage: "with --xen-vtpmmgr: `FILE` with the token that callers send"},
		}),
		Action: p.hostServe,
	}
}

func (p *program) hostServe(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	if c.Bool("xen-vtpmmgr") {
		return p.serveXen(c)
	}
	log := p.logger()
	vms, err := p.openRegistry(c, log)
	if err != nil {
		return err
	}
	selection, err := parseSelection("pcrs", c.String("pcrs"))
	if err != nil {
		return err
	}
	if n := len(c.StringSlice("crl")); n > quote.MaxCRLs {
		return usagef("--crl %d times: evidence holds %d revocation lists at most", n, quote.MaxCRLs)
	}
	name := c.String("name")
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return usagef("--name is missing and the system has no name: %w", err)
		}
	}
	cert, err := p.serviceCertificate(c.String("cert"), c.String("key"))
	if err != nil {
		return usage(err)
	}
	// Before the TPM, which another program may hold for a while.
	listeners, err := listen(c.Context, c.StringSlice("listen"))
	if err != nil {
		return usage(err)
	}
	defer func() { _ = closeAll(listeners) }() // Serve has closed them
	t, err := openTPM(c.Context, c.String("tpm"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	keys, err := host.LoadKeys(c.Context, t, tpm.AnyKey, tpm.AnyKey)
	if err != nil {
		return cannot(err)
	}
	server, err := host.NewServer(host.Config{
		TPM: t, Keys: keys, Registry: vms.Registry, Selection: selection, Name: name,
		Public: c.String("public"), Fingerprint: host.Fingerprint(cert.Certificate[0]),
		EventLog: c.String("event-log"), IMA: c.String("ima-log"), CRLs: c.StringSlice("crl"),
		TLS: host.ServerTLS(cert), Limits: host.DefaultLimits(), Now: p.now, Rand: rand.Reader, Log: log,
	})
	if err != nil {
		return usage(err)
	}
	defer vms.start(c.Context)()
	p.announce(listeners, cert)
	return server.Serve(c.Context, listeners...)
}

// announce says where a service listens and which certificate it shows.
func (p *program) announce(listeners []net.Listener, cert tls.Certificate) {
	log := p.logger()
	for _, l := range listeners {
		log(fmt.Sprintf("listening on %s %s", l.Addr().Network(), l.Addr()))
	}
	log("certificate fingerprint " + host.Fingerprint(cert.Certificate[0]))
}

// logger writes lines of a service to the error output, one at a time.
func (p *program) logger() func(string) {
	var mu sync.Mutex
	return func(line string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(p.err, "deepattest: %s\n", line)
	}
}

// listen opens every address, or none.
func listen(ctx context.Context, addresses []string) ([]net.Listener, error) {
	var list []net.Listener
	var config net.ListenConfig
	for _, a := range addresses {
		network, where := "tcp", a
		if path, ok := strings.CutPrefix(a, "unix:"); ok {
			network, where = "unix", path
			if err := removeSocket(path); err != nil {
				return nil, errors.Join(err, closeAll(list))
			}
		}
		l, err := config.Listen(ctx, network, where)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--listen %s: %w", a, err), closeAll(list))
		}
		list = append(list, l)
	}
	return list, nil
}

func closeAll(list []net.Listener) error {
	var errs []error
	for _, l := range list {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// removeSocket removes a socket that an earlier service left and nobody serves.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("--listen unix:%s: something that is no socket is there", path)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		return errors.Join(fmt.Errorf("--listen unix:%s: another service answers there", path), conn.Close())
	}
	return os.Remove(path)
}

// serviceCertificate loads the service's certificate, or makes one where none is.
func (p *program) serviceCertificate(certFile, keyFile string) (tls.Certificate, error) {
	if (certFile == "") != (keyFile == "") {
		return tls.Certificate{}, errors.New("--cert and --key belong together: give both or none")
	}
	names := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	if certFile == "" {
		p.logger()("the service's certificate lives as long as this process: clients that pin it must learn a new one after each start; --cert and --key keep it")
		return host.SelfSigned(p.now(), names...)
	}
	_, certErr := os.Stat(certFile)
	_, keyErr := os.Stat(keyFile)
	if !errors.Is(certErr, fs.ErrNotExist) || !errors.Is(keyErr, fs.ErrNotExist) {
		return host.LoadCertificate(certFile, keyFile)
	}
	cert, err := host.SelfSigned(p.now(), names...)
	if err != nil {
		return cert, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return cert, err
	}
	if err := writeFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600); err != nil {
		return cert, err
	}
	return cert, writeFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o644)
}
