package openstack

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type env map[string]string

// Logins as tenants have them; the request that Keystone sees is compared.
func TestOpenFromEnvironment(t *testing.T) {
	password := func(user, project string) string {
		if project != "" {
			project = `, "scope": ` + project
		}
		return `{"auth": {"identity": {"methods": ["password"], "password": {"user": ` + user + `}}` + project + `}}`
	}
	const alice = `{"name": "alice", "password": "pw", "domain": {"name": "Users"}}`
	for name, test := range map[string]struct {
		env   env
		login string // what Keystone gets
		err   string
	}{
		"openrc with both domains": {
			env{"OS_USERNAME": "alice", "OS_PASSWORD": "pw", "OS_PROJECT_NAME": "tenant", "OS_USER_DOMAIN_NAME": "Users", "OS_PROJECT_DOMAIN_ID": "projects"},
			password(alice, `{"project": {"name": "tenant", "domain": {"id": "projects"}}}`), "",
		},
		"the user's domain for the project": {
			env{"OS_USERNAME": "alice", "OS_PASSWORD": "pw", "OS_PROJECT_NAME": "tenant", "OS_USER_DOMAIN_NAME": "Users"},
			password(alice, `{"project": {"name": "tenant", "domain": {"name": "Users"}}}`), "",
		},
		"project by id": {
			env{"OS_USERNAME": "alice", "OS_PASSWORD": "pw", "OS_PROJECT_ID": "p1", "OS_PROJECT_NAME": "tenant", "OS_USER_DOMAIN_NAME": "Users"},
			password(alice, `{"project": {"id": "p1"}}`), "",
		},
		"user by id": {
			env{"OS_USER_ID": "u1", "OS_USERNAME": "alice", "OS_PASSWORD": "pw", "OS_TENANT_ID": "p1"},
			password(`{"id": "u1", "password": "pw"}`, `{"project": {"id": "p1"}}`), "",
		},
		"application credential": {
			env{"OS_APPLICATION_CREDENTIAL_ID": "app", "OS_APPLICATION_CREDENTIAL_SECRET": "s", "OS_USERNAME": "alice", "OS_PROJECT_NAME": "tenant"},
			`{"auth": {"identity": {"methods": ["application_credential"], "application_credential": {"id": "app", "secret": "s"}}}}`, "",
		},
		"application credential by name": {
			env{"OS_APPLICATION_CREDENTIAL_NAME": "attest", "OS_APPLICATION_CREDENTIAL_SECRET": "s", "OS_USERNAME": "alice", "OS_USER_DOMAIN_NAME": "Users"},
			`{"auth": {"identity": {"methods": ["application_credential"], "application_credential": {"name": "attest", "secret": "s", "user": {"name": "alice", "domain": {"name": "Users"}}}}}}`, "",
		},
		"token": {
			env{"OS_TOKEN": "t0", "OS_PROJECT_ID": "p1"},
			`{"auth": {"identity": {"methods": ["token"], "token": {"id": "t0"}}, "scope": {"project": {"id": "p1"}}}}`, "",
		},
		"no secret":         {env{"OS_APPLICATION_CREDENTIAL_ID": "app"}, "", "OS_APPLICATION_CREDENTIAL_SECRET is not set"},
		"no password":       {env{"OS_USERNAME": "alice"}, "", "neither an application credential"},
		"no domain":         {env{"OS_USERNAME": "alice", "OS_PASSWORD": "pw"}, "", "OS_USER_DOMAIN_NAME"},
		"no project domain": {env{"OS_USER_ID": "u1", "OS_PASSWORD": "pw", "OS_PROJECT_NAME": "tenant"}, "", "OS_PROJECT_DOMAIN_NAME"},
		"no CA":             {env{"OS_USER_ID": "u1", "OS_PASSWORD": "pw", "OS_CACERT": "/nowhere"}, "", "OS_CACERT"},
		"half a client certificate": {
			env{"OS_USER_ID": "u1", "OS_PASSWORD": "pw", "OS_CERT": "c.pem"}, "", "OS_CERT and OS_KEY belong together"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStack(t)
			clearEnv(t)
			t.Setenv("OS_AUTH_URL", s.URL+"/v3")
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			c, err := Open(t.Context(), "")
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if diff := cmp.Diff(decoded(t, test.login), decoded(t, s.login)); diff != "" {
				t.Errorf("login (-want +got):\n%s", diff)
			}
			if n := len(s.seen()); n != 1 {
				t.Errorf("%d requests to log in: %v", n, s.seen())
			}
		})
	}
}

func decoded(t *testing.T, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

func TestOpenFromFile(t *testing.T) {
	s := newStack(t)
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "URL", s.URL+"/v3")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	clearEnv(t)
	t.Setenv("OS_CLIENT_CONFIG_FILE", filepath.Join(dir, "clouds.yaml"))
	fails := func(name, want string) {
		t.Helper()
		if _, err := Open(t.Context(), name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
	if _, err := Open(t.Context(), "work"); !errors.Is(err, ErrCredentials) || !strings.Contains(err.Error(), "clouds.yaml") {
		t.Errorf("no file: %v", err)
	}
	write("clouds.yaml", `
clouds:
  work:
    auth_type: v3applicationcredential
    auth: {auth_url: URL, application_credential_id: app}
    region_name: RegionOne
  home:
    auth: {auth_url: URL, username: alice, password: pw, project_name: tenant, user_domain_name: Users, project_domain_name: Projects}
  bare: {region_name: RegionOne}
  lost:
    auth: {username: alice}
`)
	write("secure.yaml", `
clouds:
  work: {auth: {application_credential_secret: s}}
`)
	for name, login := range map[string]string{
		"work": `{"auth": {"identity": {"methods": ["application_credential"], "application_credential": {"id": "app", "secret": "s"}}}}`,
		"home": `{"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "alice", "password": "pw", "domain": {"name": "Users"}}}},
			"scope": {"project": {"name": "tenant", "domain": {"name": "Projects"}}}}}`,
	} {
		c, err := Open(t.Context(), name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.Close()
		if diff := cmp.Diff(decoded(t, login), decoded(t, s.login)); diff != "" {
			t.Errorf("%s: login (-want +got):\n%s", name, diff)
		}
	}
	fails("wrok", `no cloud "wrok" in `+filepath.Join(dir, "clouds.yaml")+"; it has bare, home, lost, work")
	fails("bare", "no auth section")
	fails("lost", "no auth_url")
	t.Setenv("OS_CLOUD", "wrok")
	fails("", "it has bare, home, lost, work")
	write("clouds.yaml", "clouds: [")
	fails("work", "clouds.yaml")
	write("clouds.yaml", "")
	fails("work", "it has none")
	write("clouds.yaml", strings.Repeat("#", maxSettings+1))
	fails("work", "over 1048576 bytes")
}

func TestNoCredentials(t *testing.T) {
	clearEnv(t)
	if _, err := Open(t.Context(), ""); !errors.Is(err, ErrCredentials) || !strings.Contains(err.Error(), "openrc") {
		t.Errorf("error %v", err)
	}
}

// A login that fails says why, and nothing of the secret.
func TestLoginFails(t *testing.T) {
	for _, test := range []struct {
		status int
		body   string
		want   string
	}{
		{http.StatusUnauthorized, `{"error": {"code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}}`, "requires authentication.): it does not accept these credentials"},
		{http.StatusServiceUnavailable, "<html>", "cloud operator"},
		{http.StatusFound, "", "redirect"},
		{http.StatusNotFound, strings.Repeat("x", maxAnswer+10), "it is not there"},
	} {
		s := newStack(t)
		s.answers["POST /v3/auth/tokens"] = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(test.status)
			_, _ = w.Write([]byte(test.body))
		}
		clearEnv(t)
		t.Setenv("OS_AUTH_URL", s.URL+"/v3")
		t.Setenv("OS_APPLICATION_CREDENTIAL_ID", "app")
		t.Setenv("OS_APPLICATION_CREDENTIAL_SECRET", "very-secret")
		_, err := Open(t.Context(), "")
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "very-secret") || len(err.Error()) > 700 {
			t.Errorf("status %d: %.700v, want %q", test.status, err, test.want)
		}
	}
}
