package openstack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/instanceactions"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/keymanager/v1/secrets"

	"github.com/deepattest/deepattest/quote"
)

// Server is a VM as its owner sees it in the compute API (Compute API, Show Server
// Details). The operator asserts all of it.
type Server struct {
	ID         quote.UUID
	Name       string
	Status     string // ACTIVE, ...
	Project    string
	HostID     string            // SHA-224 of project and host name
	Image      string            // uuid; empty for a VM that boots from a volume
	ImageSpecs map[string]string // properties of the image at creation; nil before microversion 2.98
	Flavor     string
	ExtraSpecs map[string]string // of the flavor; nil before microversion 2.47
	Metadata   map[string]string
	Created    string
}

// latest has the service answer with the newest microversion it has, so that one
// request negotiates and asks (API guideline on microversions).
const latest = "latest"

// computeClient finds the compute service in the catalog that the login brought.
// gophercloud's own constructor asks the service for its versions first: a request
// more, for an endpoint that has had one version since 2015.
func (c *Cloud) computeClient() (*gophercloud.ServiceClient, error) {
	if c.compute != nil {
		return c.compute, nil
	}
	eo := c.endpoint
	eo.ApplyDefaults("compute")
	url, err := c.provider.EndpointLocator(eo)
	if err != nil {
		return nil, explain(err, "compute", "find the compute service")
	}
	c.compute = &gophercloud.ServiceClient{ProviderClient: c.provider, Endpoint: url, Type: "compute", Microversion: latest}
	return c.compute, nil
}

// serverBody is a server in an answer. Members have had several forms over the
// microversions.
type serverBody struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Status   string            `json:"status"`
	Project  string            `json:"tenant_id"`
	HostID   string            `json:"hostId"`
	Image    jsontext.Value    `json:"image"` // "" for a volume
	Created  string            `json:"created"`
	Metadata map[string]string `json:"metadata"`
	Flavor   struct {
		ID         string            `json:"id"`
		Name       string            `json:"original_name"`
		ExtraSpecs map[string]string `json:"extra_specs"`
	} `json:"flavor"`
}

func (b *serverBody) server() (*Server, error) {
	id, err := quote.ParseUUID(b.ID)
	if err != nil {
		return nil, err
	}
	s := &Server{
		ID: id, Name: b.Name, Status: b.Status, Project: b.Project, HostID: b.HostID, Created: b.Created,
		Flavor: first(b.Flavor.Name, b.Flavor.ID), ExtraSpecs: b.Flavor.ExtraSpecs, Metadata: b.Metadata,
	}
	if b.Image.Kind() == '{' {
		var image struct {
			ID         string                    `json:"id"`
			Properties map[string]jsontext.Value `json:"properties"`
		}
		if err := json.Unmarshal(b.Image, &image); err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
		s.Image = image.ID
		if image.Properties != nil {
			s.ImageSpecs = make(map[string]string)
			for name, value := range image.Properties {
				var text string
				if json.Unmarshal(value, &text) == nil { // properties of other kinds do not matter here
					s.ImageSpecs[name] = text
				}
			}
		}
	}
	return s, nil
}

// Server shows one server: one request.
func (c *Cloud) Server(ctx context.Context, id quote.UUID) (*Server, error) {
	client, err := c.computeClient()
	if err != nil {
		return nil, err
	}
	doing := "show server " + id.String()
	result := servers.Get(ctx, client, id.String())
	if result.Err != nil {
		return nil, explain(result.Err, "compute", doing)
	}
	var answer struct {
		Server serverBody `json:"server"`
	}
	if err := recode(result.Body, &answer); err != nil {
		return nil, fmt.Errorf("cannot %s: the answer is not one of the compute API: %w", doing, err)
	}
	return answer.Server.server()
}

// Servers lists the project's servers.
func (c *Cloud) Servers(ctx context.Context) ([]*Server, error) {
	client, err := c.computeClient()
	if err != nil {
		return nil, err
	}
	const doing = "list servers"
	pages, err := servers.List(client, servers.ListOpts{}).AllPages(ctx)
	if err != nil {
		return nil, explain(err, "compute", doing)
	}
	var answer struct {
		Servers []serverBody `json:"servers"`
	}
	if err := recode(pages.GetBody(), &answer); err != nil {
		return nil, fmt.Errorf("cannot %s: the answer is not one of the compute API: %w", doing, err)
	}
	var list []*Server
	for i := range answer.Servers {
		s, err := answer.Servers[i].server()
		if err != nil {
			return nil, fmt.Errorf("cannot %s: %w", doing, err)
		}
		list = append(list, s)
	}
	return list, nil
}

// recode turns what gophercloud decoded into v.
func recode(body, v any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// VTPM is the version of vTPM that the flavor or the image asks for, "none" when
// both are known to ask for none, and "" when that is not known (Nova, admin guide,
// Emulated Trusted Platform Module).
func (s *Server) VTPM() string {
	if v := first(s.ExtraSpecs["hw:tpm_version"], s.ImageSpecs["hw_tpm_version"]); v != "" {
		return v
	}
	if s.ExtraSpecs == nil || s.ImageSpecs == nil {
		return ""
	}
	return "none"
}

// Facts is the server as evidence carries it.
func (s *Server) Facts() *quote.Cloud {
	c := &quote.Cloud{Source: quote.CloudAPI, VM: s.ID, Project: s.Project, HostID: s.HostID, Image: s.Image, VTPM: s.VTPM()}
	if s.ExtraSpecs == nil {
		c.Missing = "what the flavor asks for: the cloud's compute API is older than microversion 2.47"
	}
	return c
}

// Image is what Glance tells of an image.
type Image struct {
	Name      string
	Algorithm string // of Hash
	Hash      string // of the image's bytes, hexadecimal
	VTPM      string // hw_tpm_version, empty without
	Firmware  string // hw_firmware_type, empty without
	Signed    bool   // carries a signature (img_signature); it is not checked
}

// Image shows an image.
func (c *Cloud) Image(ctx context.Context, id string) (*Image, error) {
	doing := "show image " + printable(id)
	client, err := openstack.NewImageV2(c.provider, c.endpoint)
	if err != nil {
		return nil, explain(err, "image", doing)
	}
	i, err := images.Get(ctx, client, id).Extract()
	if err != nil {
		return nil, explain(err, "image", doing)
	}
	text := func(name string) string { s, _ := i.Properties[name].(string); return s }
	return &Image{
		Name: i.Name, Algorithm: text("os_hash_algo"), Hash: text("os_hash_value"),
		VTPM: text("hw_tpm_version"), Firmware: text("hw_firmware_type"), Signed: text("img_signature") != "",
	}, nil
}

// Action is something that was done to a server.
type Action struct {
	Name  string // of the API: create, migrate, ...
	Start time.Time
}

// Moves reports whether the action can take a VM to another host.
func (a Action) Moves() bool {
	return slices.Contains([]string{"migrate", "live-migration", "resize", "evacuate", "rebuild", "unshelve"}, a.Name)
}

// Actions lists what was done to a server, newest first as the API gives it.
func (c *Cloud) Actions(ctx context.Context, id quote.UUID) ([]Action, error) {
	client, err := c.computeClient()
	if err != nil {
		return nil, err
	}
	doing := "list the actions on server " + id.String()
	pages, err := instanceactions.List(client, id.String(), instanceactions.ListOpts{}).AllPages(ctx)
	if err != nil {
		return nil, explain(err, "compute", doing)
	}
	found, err := instanceactions.ExtractInstanceActions(pages)
	if err != nil {
		return nil, explain(err, "compute", doing)
	}
	var list []Action
	for _, a := range found {
		list = append(list, Action{a.Action, a.StartTime})
	}
	return list, nil
}

// VTPMSecret looks for the passphrase that Nova encrypts the vTPM's state with
// (nova, virt/libvirt and crypto.py: "vTPM secret for instance UUID"). It reads its
// status, never the secret itself. An empty status means that there is none to see.
func (c *Cloud) VTPMSecret(ctx context.Context, id quote.UUID) (status string, err error) {
	const doing = "look for the vTPM's secret"
	client, err := openstack.NewKeyManagerV1(c.provider, c.endpoint)
	if err != nil {
		return "", explain(err, "key-manager", doing)
	}
	name := "vTPM secret for instance " + id.String()
	pages, err := secrets.List(client, secrets.ListOpts{Name: name, Limit: 10}).AllPages(ctx)
	if err != nil {
		return "", explain(err, "key-manager", doing)
	}
	found, err := secrets.ExtractSecrets(pages)
	if err != nil {
		return "", explain(err, "key-manager", doing)
	}
	for _, s := range found {
		if s.Name == name {
			return s.Status, nil
		}
	}
	return "", nil
}

// SetMetadata writes items into a server's metadata and leaves others alone: one
// request. Keys and values have at most 255 bytes (Compute API, server metadata).
func (c *Cloud) SetMetadata(ctx context.Context, id quote.UUID, items map[string]string) error {
	client, err := c.computeClient()
	if err != nil {
		return err
	}
	for key, value := range items {
		if len(key) > 255 || len(value) > 255 || strings.ContainsAny(key, "/?#") {
			return fmt.Errorf("metadata item %.40q of %d bytes: want at most 255", key, len(value))
		}
	}
	_, err = servers.UpdateMetadata(ctx, client, id.String(), servers.MetadataOpts(items)).Extract()
	return explain(err, "compute", "write metadata of server "+id.String())
}

// HostID is Nova's name of a host to a project: SHA-224 of both names, one after the
// other (nova, utils.generate_hostid).
func HostID(project, host string) string {
	return fmt.Sprintf("%x", sha256.Sum224([]byte(project+host)))
}

// NoService reports whether an error says that the cloud does not have the service.
func NoService(err error) bool { return errors.Is(err, errNoService) }
