package openstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/deepattest/deepattest/internal/host"
	"github.com/deepattest/deepattest/quote"
)

// DefaultMetadata is where a guest finds the metadata service (Nova, user guide,
// Metadata).
const DefaultMetadata = "http://169.254.169.254"

// metadataLimit bounds all questions to the metadata service together: a guest
// without one has to get on.
const metadataLimit = 2 * time.Second

// Limits of what the operator may send.
const (
	maxMetaData   = 256 << 10 // user data is elsewhere; 128 items of metadata are 64 KiB
	maxVendorData = 2 << 20   // a host's event log may be in it
	maxProject    = 64
)

// Guest reads what the cloud tells a guest without credentials.
type Guest struct {
	Metadata string // base URL of the metadata service, DefaultMetadata when empty
	Drive    string // config drive: device, image or mounted folder; empty: looked for
	DMI      string // folder of the kernel's SMBIOS fields, the kernel's own when empty
}

// Instance is what the cloud tells a guest about itself. Nobody signed it.
type Instance struct {
	Facts *quote.Cloud
	// Hint is what the operator says of the host's quote service; nil when nothing.
	Hint *host.Vendordata
	// Note says what could not be read, for people; empty when all could.
	Note string
}

// OnOpenStack reports whether SMBIOS says that the machine is an OpenStack server,
// as Nova and cloud-init have it.
func (g Guest) OnOpenStack() bool {
	for _, name := range []string{"product_name", "chassis_asset_tag", "sys_vendor"} {
		text, err := os.ReadFile(filepath.Join(first(g.DMI, "/sys/class/dmi/id"), name))
		if err == nil && strings.HasPrefix(string(text), "OpenStack") {
			return true
		}
	}
	return false
}

// Read asks the metadata service, two requests within two seconds, and reads the
// config drive when it does not answer. The drive is as old as the last boot.
func (g Guest) Read(ctx context.Context) (*Instance, error) {
	i, err := g.fromService(ctx)
	if err == nil {
		// Nova's first dynamic vendordata after a start may take longer than that.
		if i.Note == "" {
			return i, nil
		}
		if old, driveErr := g.fromDrive(); driveErr == nil && old.Hint != nil {
			i.Hint = old.Hint
			i.Note += "; the host's quote service is as the config drive had it at boot"
		}
		return i, nil
	}
	if ctx.Err() != nil {
		return nil, err
	}
	i, driveErr := g.fromDrive()
	if driveErr != nil {
		return nil, fmt.Errorf("%w; %w", err, driveErr)
	}
	i.Note = fmt.Sprintf("read from the config drive, as it was at boot, because %v", err)
	return i, nil
}

// fromService asks the metadata service.
func (g Guest) fromService(ctx context.Context) (*Instance, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, metadataLimit, fmt.Errorf("no answer within %s", metadataLimit))
	defer cancel()
	client := newMetadataClient(g.Metadata)
	defer client.close()
	data, err := client.get(ctx, "meta_data.json", maxMetaData)
	if err != nil {
		return nil, err
	}
	i := &Instance{}
	if i.Facts, err = parseMetaData(data, quote.CloudMetadata); err != nil {
		return nil, err
	}
	if i.Hint, err = client.vendordata(ctx); err != nil {
		i.Note = err.Error()
	}
	return i, nil
}

// metadataClient talks to the metadata service.
type metadataClient struct {
	base string
	http *http.Client
}

func newMetadataClient(base string) *metadataClient {
	transport := &http.Transport{
		// Never through a proxy: the service is on the link.
		DialContext:            (&net.Dialer{Timeout: metadataLimit}).DialContext,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 16 << 10,
	}
	return &metadataClient{
		base: strings.TrimRight(first(base, DefaultMetadata), "/"),
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (c *metadataClient) close() { c.http.CloseIdleConnections() }

// get reads one file of the newest version.
func (c *metadataClient) get(ctx context.Context, name string, limit int64) ([]byte, error) {
	url := c.base + "/openstack/latest/" + name
	fault := func(err error) error {
		if ctx.Err() != nil && context.Cause(ctx) != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("metadata service %s: %w", url, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("metadata service: %w", err)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, fault(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fault(fmt.Errorf("status %d", answer.StatusCode))
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err != nil {
		return nil, fault(err)
	}
	if int64(len(data)) > limit {
		return nil, fault(fmt.Errorf("over %d bytes", limit))
	}
	return data, nil
}

// vendordata reads what the operator says under the name deepattest; nil when it
// says nothing.
func (c *metadataClient) vendordata(ctx context.Context) (*host.Vendordata, error) {
	data, err := c.get(ctx, "vendor_data2.json", maxVendorData)
	if err != nil {
		return nil, err
	}
	return parseVendorData(data)
}

// Hint reads only what the operator says of the host's quote service, in one
// request; nil when nothing.
func (g Guest) Hint(ctx context.Context) (*host.Vendordata, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, metadataLimit, fmt.Errorf("no answer within %s", metadataLimit))
	defer cancel()
	client := newMetadataClient(g.Metadata)
	defer client.close()
	return client.vendordata(ctx)
}

// parseMetaData takes the uuid and the project out of meta_data.json, and clears
// data. The file also holds admin_pass and random_seed, which leave this function in
// no way: not in errors either, so those name members and no values.
func parseMetaData(data []byte, source string) (*quote.Cloud, error) {
	defer clear(data)
	var m struct {
		UUID    jsontext.Value `json:"uuid"`
		Project jsontext.Value `json:"project_id"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, errors.New("meta_data.json is not a JSON object with each member once")
	}
	var id, project string
	c := &quote.Cloud{Source: source}
	if json.Unmarshal(m.UUID, &id) != nil {
		return nil, errors.New("meta_data.json: uuid is missing or no text")
	}
	vm, err := quote.ParseUUID(id)
	if err != nil {
		return nil, errors.New("meta_data.json: uuid is not a uuid")
	}
	c.VM = vm
	if len(m.Project) > 0 { // since version 2015-10-15
		if json.Unmarshal(m.Project, &project) != nil || len(project) > maxProject {
			return nil, fmt.Errorf("meta_data.json: project_id is no text of at most %d bytes", maxProject)
		}
		c.Project = printable(project)
	}
	return c, nil
}

// parseVendorData takes the operator's word on the host's service out of
// vendor_data2.json: the answer of a dynamic target of the name deepattest, else the
// member of that name in the static file.
func parseVendorData(data []byte) (*host.Vendordata, error) {
	var all struct {
		Dynamic jsontext.Value `json:"deepattest"`
		Static  jsontext.Value `json:"static"`
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, errors.New("vendor_data2.json is not a JSON object with each member once")
	}
	value := all.Dynamic
	if len(value) == 0 && all.Static.Kind() == '{' {
		var static struct {
			Hint jsontext.Value `json:"deepattest"`
		}
		if err := json.Unmarshal(all.Static, &static); err != nil {
			return nil, errors.New("vendor_data2.json: static is not a JSON object with each member once")
		}
		value = static.Hint
	}
	if len(value) == 0 || value.Kind() == 'n' {
		return nil, nil
	}
	v := &host.Vendordata{}
	if err := json.Unmarshal(value, v); err != nil {
		return nil, fmt.Errorf("vendor_data2.json: deepattest: %s", printable(err.Error()))
	}
	const longest = 1024
	if max(len(v.Service), len(v.Name), len(v.Fingerprint), len(v.EK), len(v.AK)) > longest || len(v.CA) > maxSettings {
		return nil, fmt.Errorf("vendor_data2.json: deepattest: a member of more than %d bytes", longest)
	}
	return v, nil
}

// fromDrive reads the config drive.
func (g Guest) fromDrive() (*Instance, error) {
	drive := g.Drive
	if drive == "" {
		if drive = findDrive("/dev"); drive == "" {
			return nil, errors.New("config drive: there is none")
		}
	}
	read := func(name string, limit int) ([]byte, error) {
		data, err := readDrive(drive, "openstack/latest/"+name, limit)
		if err != nil {
			return nil, fmt.Errorf("config drive %s: %s: %w", drive, name, err)
		}
		return data, nil
	}
	data, err := read("meta_data.json", maxMetaData)
	if err != nil {
		return nil, err
	}
	i := &Instance{}
	if i.Facts, err = parseMetaData(data, quote.CloudConfigDrive); err != nil {
		return nil, fmt.Errorf("config drive %s: %w", drive, err)
	}
	if data, err = read("vendor_data2.json", maxVendorData); errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	if err == nil {
		i.Hint, err = parseVendorData(data)
	}
	if err != nil {
		return nil, fmt.Errorf("config drive %s: %w", drive, err)
	}
	return i, nil
}
