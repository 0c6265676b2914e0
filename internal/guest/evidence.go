package guest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/deepattest/deepattest/internal/tpm"
	"github.com/deepattest/deepattest/quote"
)

// cleanupLimit bounds unloading keys, also when the context has ended.
const cleanupLimit = 5 * time.Second

// Collect returns the guest's layer alone.
func Collect(ctx context.Context, cfg Config) (*quote.Layer, error) {
	b, err := Evidence(ctx, cfg, nil)
	if err != nil {
		return nil, err
	}
	return b.Guest, nil
}

// Evidence collects the guest's layer, and through source the host's and the
// link. Without a source the bundle holds a guest and no link.
//
// An error means that there is no bundle, with one exception: when only the host
// failed, the bundle holds the guest, says so in its Missing, and the error is a
// *HostError.
//
// It takes 11 TPM commands or fewer after opening the TPM: EK (1), AK (1),
// activation (3), quote (1), 24 PCRs of one bank (3), unloading AK and EK (2). A
// host that wants to see the EK's certificate costs two or three more.
func Evidence(ctx context.Context, cfg Config, source HostSource) (*quote.Bundle, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	b := &quote.Bundle{
		MediaType: quote.MediaType,
		Challenge: cfg.Challenge,
		Link:      quote.Link{Method: quote.LinkNone},
		Context:   cfg.Context,
	}
	k, err := loadKeys(ctx, &cfg)
	if err == nil {
		b.Guest, err = k.layer(ctx, &cfg)
	}
	if err != nil {
		return nil, errors.Join(err, k.unload(ctx))
	}
	b.Context.VM = cfg.VM
	if cfg.VM.IsZero() && cfg.Paths.ProductUUID != "" {
		if b.Context.VM, err = cfg.Paths.VM(); err != nil {
			b.Guest.Missing = append(b.Guest.Missing, absence(quote.MissingVMUUID, err,
				"this machine has no SMBIOS; give its uuid with --vm"))
		}
	}
	hostErr := k.vouch(ctx, &cfg, source, b)
	if err := k.unload(ctx); err != nil {
		return nil, errors.Join(hostErr, err)
	}
	return b, hostErr
}

// keys are the guest's keys while they are loaded.
type keys struct {
	tpm TPM
	ek  *tpm.EK
	ak  *tpm.AK
}

func loadKeys(ctx context.Context, cfg *Config) (*keys, error) {
	k := &keys{tpm: cfg.TPM}
	var err error
	if k.ek, err = cfg.TPM.EK(ctx, cfg.EK); err != nil {
		return k, err
	}
	k.ak, err = cfg.TPM.CreateAK(ctx, cfg.AK)
	return k, err
}

// unload flushes what loadKeys loaded.
func (k *keys) unload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
	defer cancel()
	var errs []error
	if k.ak != nil {
		errs = append(errs, k.tpm.Flush(ctx, k.ak))
	}
	if k.ek != nil {
		errs = append(errs, k.tpm.Flush(ctx, k.ek))
	}
	return errors.Join(errs...)
}

// layer quotes, and reads the logs after that.
func (k *keys) layer(ctx context.Context, cfg *Config) (*quote.Layer, error) {
	l := &quote.Layer{
		EK: quote.EK{Public: k.ek.Public},
		AK: quote.AK{Public: k.ak.Public},
	}
	var err error
	if l.TPM, err = cfg.TPM.Info(ctx); err != nil {
		return nil, err
	}
	if cfg.EKCertificate {
		_, err := k.certificate(ctx, l)
		switch {
		case errors.Is(err, tpm.ErrNoCertificate):
			l.Missing = append(l.Missing, Missing(quote.MissingEKCertificate, err.Error()))
		case err != nil:
			return nil, err
		}
	}
	l.Quote, l.PCRs, err = QuotePCRs(ctx, cfg.TPM, k.ak, quote.GuestQualifier(cfg.Challenge), cfg.Selection)
	if err != nil {
		return nil, err
	}
	logs, absent := cfg.Paths.logs()
	l.Logs, l.Missing = logs, append(l.Missing, absent...)
	return l, nil
}

// certificate reads the EK's certificate into a layer, once.
func (k *keys) certificate(ctx context.Context, l *quote.Layer) ([]byte, error) {
	if len(l.EK.Certificates) > 0 {
		return l.EK.Certificates[0], nil
	}
	cert, err := k.tpm.EKCertificate(ctx, k.ek)
	if err != nil {
		return nil, err
	}
	l.EK.Certificates = [][]byte{cert.DER}
	return cert.DER, nil
}

// vouch fills in the host's part of a bundle.
func (k *keys) vouch(ctx context.Context, cfg *Config, source HostSource, b *quote.Bundle) error {
	if source == nil {
		b.Guest.Missing = append(b.Guest.Missing, Missing(quote.MissingHost, "no host was asked; name its service to link this guest to it"))
		return nil
	}
	v, err := source.Vouch(ctx, Request{
		VM:         b.Context.VM,
		EK:         k.ek.Public,
		AK:         k.ak.Public,
		Challenge:  cfg.Challenge,
		GuestQuote: b.Guest.Quote,
		Selection:  cfg.HostSelection,
		Activate: func(ctx context.Context, idObject, encryptedSecret []byte) ([]byte, error) {
			return k.tpm.ActivateCredential(ctx, k.ak, k.ek, idObject, encryptedSecret)
		},
		Certificate: func(ctx context.Context) ([]byte, error) { return k.certificate(ctx, b.Guest) },
	})
	if err == nil && (v == nil || v.Host == nil) {
		err = fmt.Errorf("the source gave no host evidence")
	}
	if err != nil {
		b.Guest.Missing = append(b.Guest.Missing, Missing(quote.MissingHost, err.Error()))
		return &HostError{err}
	}
	b.Host, b.Link, b.Context.HostName = v.Host, v.Link, v.HostName
	return nil
}
