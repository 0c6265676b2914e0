package openstack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
	"gopkg.in/yaml.v3"
)

// Cloud is a cloud that the tenant has logged in to. It is for one goroutine.
type Cloud struct {
	provider *gophercloud.ProviderClient
	endpoint gophercloud.EndpointOpts
	compute  *gophercloud.ServiceClient
	close    func()
}

// ErrCredentials reports that clouds.yaml or the OS_ variables cannot be used; the
// cloud was not asked.
var ErrCredentials = errors.New("OpenStack credentials")

const (
	maxAnswer   = 4 << 20 // bytes of one answer of the cloud
	maxSettings = 1 << 20 // bytes of a clouds.yaml
	callLimit   = 30 * time.Second
)

// Open logs in as tenants' other tools do: with an entry of clouds.yaml when name
// or OS_CLOUD is set, else with OS_ variables, application credentials included.
// It makes one request when the identity endpoint ends in /v3, else two.
func Open(ctx context.Context, name string) (*Cloud, error) {
	var auth gophercloud.AuthOptions
	var endpoint gophercloud.EndpointOpts
	var config *tls.Config
	var err error
	if name = first(name, os.Getenv("OS_CLOUD")); name != "" {
		auth, endpoint, config, err = fromFile(name)
	} else {
		auth, endpoint, config, err = fromEnv()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	provider, err := openstack.NewClient(auth.IdentityEndpoint)
	if err != nil {
		return nil, fmt.Errorf("identity endpoint %q: %w", auth.IdentityEndpoint, err)
	}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        config,
		MaxResponseHeaderBytes: 64 << 10,
		IdleConnTimeout:        30 * time.Second,
	}
	provider.HTTPClient = http.Client{
		Transport:     bounded{transport},
		Timeout:       callLimit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if err := openstack.Authenticate(ctx, provider, auth); err != nil {
		transport.CloseIdleConnections()
		return nil, explain(err, "identity", "log in at "+auth.IdentityEndpoint)
	}
	return &Cloud{provider: provider, endpoint: endpoint, close: transport.CloseIdleConnections}, nil
}

// Close closes idle connections.
func (c *Cloud) Close() { c.close() }

// bounded cuts answers that are too long, which then cannot be parsed.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(answer.Body, maxAnswer), answer.Body}
	return answer, nil
}

// fromFile reads an entry of clouds.yaml and the secure.yaml beside it.
func fromFile(name string) (gophercloud.AuthOptions, gophercloud.EndpointOpts, *tls.Config, error) {
	fault := func(err error) (gophercloud.AuthOptions, gophercloud.EndpointOpts, *tls.Config, error) {
		return gophercloud.AuthOptions{}, gophercloud.EndpointOpts{}, nil, err
	}
	path, entries, err := findClouds()
	if err != nil {
		return fault(err)
	}
	if hasAuth, ok := entries[name]; !ok {
		return fault(fmt.Errorf("no cloud %q in %s; it has %s", name, path, list(slices.Sorted(maps.Keys(entries)))))
	} else if !hasAuth {
		return fault(fmt.Errorf("cloud %q in %s has no auth section: add auth_url with an application credential, or user, password and project", name, path))
	}
	auth, endpoint, config, err := clouds.Parse(clouds.WithCloudName(name), clouds.WithLocations(path))
	if err != nil {
		return fault(fmt.Errorf("cloud %q in %s: %w", name, path, err))
	}
	if auth.IdentityEndpoint == "" {
		return fault(fmt.Errorf("cloud %q in %s has no auth_url", name, path))
	}
	return auth, endpoint, config, nil
}

// findClouds returns the clouds.yaml that OpenStack's own client would read
// (openstacksdk, configuration), and its entries with whether they have auth.
func findClouds() (path string, entries map[string]bool, err error) {
	places := []string{os.Getenv("OS_CLIENT_CONFIG_FILE")}
	if places[0] == "" {
		home, _ := os.UserHomeDir() // without one that place is not looked at
		places = []string{
			"clouds.yaml",
			filepath.Join(first(os.Getenv("XDG_CONFIG_HOME"), filepath.Join(home, ".config")), "openstack", "clouds.yaml"),
			"/etc/openstack/clouds.yaml",
		}
	}
	for _, path := range places {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		entries, err := readClouds(path)
		if err != nil {
			return "", nil, err
		}
		secure := filepath.Join(filepath.Dir(path), "secure.yaml")
		more, err := readClouds(secure)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", nil, err
		}
		for name := range entries {
			entries[name] = entries[name] || more[name]
		}
		return path, entries, nil
	}
	return "", nil, fmt.Errorf("there is no %s", strings.Join(places, ", no "))
}

func readClouds(path string) (map[string]bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSettings+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxSettings {
		return nil, fmt.Errorf("read %s: over %d bytes", path, maxSettings)
	}
	var doc struct {
		Clouds map[string]struct {
			Auth map[string]any `yaml:"auth"`
		} `yaml:"clouds"`
	}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	entries := make(map[string]bool)
	for name, c := range doc.Clouds {
		entries[name] = len(c.Auth) > 0
	}
	return entries, nil
}

// fromEnv reads the variables that an openrc file sets. gophercloud's own
// AuthOptionsFromEnv does not know the domain variables, OS_TOKEN and OS_CACERT.
func fromEnv() (gophercloud.AuthOptions, gophercloud.EndpointOpts, *tls.Config, error) {
	get := func(names ...string) string {
		for _, n := range names {
			if v := os.Getenv(n); v != "" {
				return v
			}
		}
		return ""
	}
	fault := func(format string, args ...any) (gophercloud.AuthOptions, gophercloud.EndpointOpts, *tls.Config, error) {
		return gophercloud.AuthOptions{}, gophercloud.EndpointOpts{}, nil, fmt.Errorf(format, args...)
	}
	auth := gophercloud.AuthOptions{
		IdentityEndpoint:            get("OS_AUTH_URL"),
		ApplicationCredentialID:     get("OS_APPLICATION_CREDENTIAL_ID"),
		ApplicationCredentialName:   get("OS_APPLICATION_CREDENTIAL_NAME"),
		ApplicationCredentialSecret: get("OS_APPLICATION_CREDENTIAL_SECRET"),
		TokenID:                     get("OS_TOKEN", "OS_AUTH_TOKEN"),
	}
	if auth.IdentityEndpoint == "" {
		return fault("there are none: name a cloud of clouds.yaml (--cloud or OS_CLOUD), or source an openrc file, which sets OS_AUTH_URL")
	}
	user := func() {
		auth.UserID, auth.Username = get("OS_USER_ID", "OS_USERID"), get("OS_USERNAME")
		if auth.UserID != "" {
			auth.Username = ""
			return
		}
		auth.DomainID = get("OS_USER_DOMAIN_ID", "OS_DOMAIN_ID")
		if auth.DomainID == "" {
			auth.DomainName = get("OS_USER_DOMAIN_NAME", "OS_DOMAIN_NAME")
		}
		if auth.DomainID == "" && auth.DomainName == "" {
			auth.DomainID = get("OS_DEFAULT_DOMAIN")
		}
	}
	switch {
	case auth.ApplicationCredentialID != "" || auth.ApplicationCredentialName != "":
		if auth.ApplicationCredentialSecret == "" {
			return fault("OS_APPLICATION_CREDENTIAL_SECRET is not set, and the application credential needs it")
		}
		if auth.ApplicationCredentialID == "" {
			user()
		}
		auth.TokenID = ""
	case auth.TokenID != "":
		auth.Scope = scope(get)
	default:
		user()
		auth.Password = get("OS_PASSWORD")
		if auth.Username == "" && auth.UserID == "" || auth.Password == "" {
			return fault("OS_AUTH_URL is set, but neither an application credential (OS_APPLICATION_CREDENTIAL_ID and _SECRET) nor OS_USERNAME with OS_PASSWORD")
		}
		if auth.UserID == "" && auth.DomainID == "" && auth.DomainName == "" {
			return fault("OS_USERNAME needs its domain: set OS_USER_DOMAIN_NAME or OS_USER_DOMAIN_ID, which is often Default")
		}
		auth.Scope = scope(get)
	}
	if s := auth.Scope; s != nil && s.ProjectName != "" && s.DomainID == "" && s.DomainName == "" {
		return fault("OS_PROJECT_NAME needs its domain: set OS_PROJECT_DOMAIN_NAME or OS_PROJECT_DOMAIN_ID, which is often Default")
	}
	config, err := tlsFromEnv()
	if err != nil {
		return fault("%w", err)
	}
	endpoint := gophercloud.EndpointOpts{Region: get("OS_REGION_NAME")}
	switch get("OS_INTERFACE", "OS_ENDPOINT_TYPE") {
	case "internal", "internalURL":
		endpoint.Availability = gophercloud.AvailabilityInternal
	case "admin", "adminURL":
		endpoint.Availability = gophercloud.AvailabilityAdmin
	}
	return auth, endpoint, config, nil
}

// scope is the project that a token is asked for.
func scope(get func(...string) string) *gophercloud.AuthScope {
	if id := get("OS_PROJECT_ID", "OS_TENANT_ID"); id != "" {
		return &gophercloud.AuthScope{ProjectID: id}
	}
	s := &gophercloud.AuthScope{ProjectName: get("OS_PROJECT_NAME", "OS_TENANT_NAME")}
	if s.ProjectName == "" {
		return nil
	}
	if s.DomainID = get("OS_PROJECT_DOMAIN_ID"); s.DomainID != "" {
		return s
	}
	if s.DomainName = get("OS_PROJECT_DOMAIN_NAME"); s.DomainName == "" {
		if s.DomainID = get("OS_DOMAIN_ID", "OS_USER_DOMAIN_ID", "OS_DEFAULT_DOMAIN"); s.DomainID == "" {
			s.DomainName = get("OS_DOMAIN_NAME", "OS_USER_DOMAIN_NAME")
		}
	}
	return s
}

func tlsFromEnv() (*tls.Config, error) {
	config := &tls.Config{}
	if path := os.Getenv("OS_CACERT"); path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("OS_CACERT: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("OS_CACERT %s: no PEM certificate in it", path)
		}
	}
	cert, key := os.Getenv("OS_CERT"), os.Getenv("OS_KEY")
	if (cert == "") != (key == "") {
		return nil, errors.New("OS_CERT and OS_KEY belong together: set both or none")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("OS_CERT: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
