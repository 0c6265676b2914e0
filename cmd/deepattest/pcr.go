package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/deepattest/deepattest/quote"
)

func (p *program) pcrCommand() *cli.Command {
	return &cli.Command{
		Name:  "pcr",
		Usage: "read PCRs: of this machine's TPM, or with --host those that the host exposes",
		Description: "Values that are read are not signed. Those of a host are advisory: only a quote that `deepattest attest` checked\n" +
			"decides.",
		Flags: concat(hostFlags(), []cli.Flag{
			trustFlag(), tpmFlag(),
			&cli.StringFlag{Name: "pcrs", Usage: "PCRs to read, as `BANK:N,N,...[+BANK:...]`; default: all of every bank"},
			&cli.StringFlag{Name: "format", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT`: text or json"},
			timeoutFlag(),
		}),
		Action: p.pcr,
	}
}

func (p *program) pcr(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	format, err := p.oneFormat(c, "text", "json")
	if err != nil {
		return err
	}
	selection, err := parseSelection("pcrs", c.String("pcrs"))
	if err != nil {
		return err
	}
	ctx, cancel, err := deadline(c)
	if err != nil {
		return err
	}
	defer cancel()
	trust, err := loadTrust(c)
	if err != nil {
		return err
	}
	client, err := hostClient(c, trust, nil)
	if err != nil {
		return err
	}
	var values quote.PCRs
	source := "this machine's TPM, read and not quoted"
	if c.String("host") == xenHost {
		source = "the host under this Xen vTPM, ADVISORY: live and unsigned"
		values, err = xenHostPCRs(ctx, c, selection)
	} else if client != nil {
		defer client.Close()
		source = "host " + client.Address() + ", ADVISORY: live and unsigned"
		if values, err = client.PCRs(ctx); err == nil && selection != nil {
			values, err = selected(values, selection)
		}
	} else {
		values, err = p.localPCRs(ctx, c.String("tpm"), selection)
	}
	if err != nil {
		return cannot(unpinned(ended(ctx, err)))
	}
	if format == "text" {
		var b strings.Builder
		fmt.Fprintf(&b, "PCRs of %s\n", source)
		pcrTable(&b, "", values)
		return p.writeOutput("-", []byte(b.String()))
	}
	return p.writeJSON(map[string]any{"source": source, "signed": false, "pcrs": values})
}

// localPCRs reads this machine's TPM; without a selection all PCRs of all banks.
func (p *program) localPCRs(ctx context.Context, address string, sel quote.Selection) (values quote.PCRs, err error) {
	t, err := openTPM(ctx, address)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if sel == nil {
		banks, err := t.Banks(ctx)
		if err != nil {
			return nil, err
		}
		for _, alg := range banks {
			if alg.Size() == 0 {
				continue // a bank that this program cannot name
			}
			all := quote.BankSelection{Alg: alg}
			for n := range quote.NumPCRs {
				all.PCRs = append(all.PCRs, n)
			}
			sel = append(sel, all)
		}
	}
	return t.ReadPCRs(ctx, sel)
}

// selected returns the PCRs of a selection.
func selected(all quote.PCRs, sel quote.Selection) (quote.PCRs, error) {
	values := make(quote.PCRs)
	for _, bank := range sel {
		values[bank.Alg] = make(map[int]quote.Hex)
		for _, n := range bank.PCRs {
			v, ok := all[bank.Alg][n]
			if !ok {
				return nil, fmt.Errorf("the host does not expose %s PCR %d", bank.Alg, n)
			}
			values[bank.Alg][n] = v
		}
	}
	return values, nil
}
