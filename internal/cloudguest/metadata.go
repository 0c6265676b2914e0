// Package cloudguest fetches, inside a cloud's guest, what does not come from the TPM:
// certificates and quotes from Azure's metadata service, and reports from the kernel's
// configfs-tsm. Whatever it returns is evidence: nothing here trusts or checks it.
package cloudguest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// AzureMetadata is where Azure's metadata service listens, inside of every machine.
const AzureMetadata = "http://169.254.169.254"

const (
	// metadataLimit is all that a metadata service gets: it is one hop away, or the
	// machine is on another cloud and nobody answers.
	metadataLimit = 2 * time.Second
	maxAnswer     = 64 << 10 // a VCEK with its chain has 6 KB, a TDX quote 5 KB
	tdReportSize  = 1024     // TDREPORT_STRUCT (Intel TDX Module ABI, section "TDREPORT_STRUCT")
)

// Metadata is a client of a metadata service.
type Metadata struct {
	base  string
	limit time.Duration
	http  *http.Client
}

// NewMetadata makes a client of the service at a base address. It uses no proxy, which
// would answer for somebody else's machine, and follows no redirect.
func NewMetadata(base string) *Metadata {
	return &Metadata{base: strings.TrimSuffix(base, "/"), limit: metadataLimit, http: &http.Client{
		Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// SNPCertificates fetches the certificate of the processor's VCEK and those of its
// issuers, as DER in the order of the service: VCEK, then ASK and ARK (Azure, "Trusted
// Hardware Identity Management", section "AMD collateral").
func (m *Metadata) SNPCertificates(ctx context.Context) (vcek []byte, chain [][]byte, err error) {
	var answer struct {
		VCEK  string `json:"vcekCert"`
		Chain string `json:"certificateChain"`
	}
	if err := m.call(ctx, http.MethodGet, "/metadata/THIM/amd/certification", nil, &answer); err != nil {
		return nil, nil, err
	}
	leaf, err := certificates(answer.VCEK)
	if err != nil || len(leaf) != 1 {
		return nil, nil, fmt.Errorf("metadata service at %s: vcekCert is not one certificate in PEM", m.base)
	}
	if chain, err = certificates(answer.Chain); err != nil || len(chain) == 0 {
		return nil, nil, fmt.Errorf("metadata service at %s: certificateChain is not certificates in PEM", m.base)
	}
	return leaf[0], chain, nil
}

// certificates reads PEM blocks and nothing else but space.
func certificates(text string) (list [][]byte, err error) {
	rest := []byte(text)
	for len(bytes.TrimSpace(rest)) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("not a certificate in PEM")
		}
		list = append(list, block.Bytes)
	}
	return list, nil
}

// TDXQuote has the host's quoting enclave turn a TDREPORT, which means something on that
// host only, into a quote that anyone can verify.
func (m *Metadata) TDXQuote(ctx context.Context, report []byte) ([]byte, error) {
	if len(report) != tdReportSize {
		return nil, fmt.Errorf("TDREPORT of %d bytes, want %d", len(report), tdReportSize)
	}
	ask := struct {
		Report string `json:"report"`
	}{base64.RawURLEncoding.EncodeToString(report)}
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Quote string `json:"quote"`
	}
	if err := m.call(ctx, http.MethodPost, "/acc/tdquote", body, &answer); err != nil {
		return nil, err
	}
	quote, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(answer.Quote, "="))
	if err != nil || len(quote) == 0 {
		return nil, fmt.Errorf("metadata service at %s: quote of %d characters is not one in base64url", m.base, len(answer.Quote))
	}
	return quote, nil
}

// call sends a request and reads a JSON object, whose members but those asked for are
// of no interest.
func (m *Metadata) call(ctx context.Context, method, path string, body []byte, to any) error {
	ctx, cancel := context.WithTimeout(ctx, m.limit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, m.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Metadata", "true") // keeps requests that a program was tricked into from being answered
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := m.http.Do(r)
	if err != nil {
		return fmt.Errorf("metadata service: %w: this machine is on another cloud, or a firewall in it blocks %s", err, m.base)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("metadata service at %s%s: %w", m.base, path, err)
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("metadata service at %s%s: %s: %.200q", m.base, path, response.Status, text)
	case len(text) > maxAnswer:
		return fmt.Errorf("metadata service at %s%s: an answer over %d bytes", m.base, path, maxAnswer)
	}
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("metadata service at %s%s: %w", m.base, path, err)
	}
	return nil
}
