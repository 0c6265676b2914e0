package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// cloud VM HOST [SERVICE PIN] plays an OpenStack cloud in which VM runs on HOST, for
// OS_ variables that it sets and for --metadata $CLOUD. Its vendordata names SERVICE.
// What is written into the server's metadata or stored goes into the file cloud.log.
func cloud(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 && len(args) != 4 {
		ts.Fatalf("usage: cloud VM HOST [SERVICE PIN]")
	}
	const project = "5667c1e2210c4d1e8a6c3c546f35769d"
	vm := args[0]
	hostID := fmt.Sprintf("%x", sha256.Sum224([]byte(project+args[1])))
	hint := "{}"
	if len(args) == 4 {
		hint = fmt.Sprintf(`{"deepattest": {"service": %q, "fingerprint": %q, "name": %q}}`, args[2], args[3], args[1])
	}
	var mu sync.Mutex
	log := ts.MkAbs("cloud.log")
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	ts.Defer(server.Close)
	answer := func(pattern string, status int, text string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if r.Method != http.MethodGet && !strings.HasSuffix(r.URL.Path, "/tokens") {
				mu.Lock()
				defer mu.Unlock()
				f, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
				if err == nil {
					fmt.Fprintf(f, "%s %s %s\n", r.Method, r.URL.Path, body)
					f.Close()
				}
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Subject-Token", "token")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		})
	}
	endpoint := func(kind, path string) string {
		return fmt.Sprintf(`{"type": %q, "endpoints": [{"interface": "public", "region": "one", "region_id": "one", "url": %q}]}`, kind, server.URL+path)
	}
	answer("POST /v3/auth/tokens", http.StatusCreated, `{"token": {"catalog": [`+endpoint("compute", "/v2.1")+`, `+endpoint("object-store", "/swift")+`]}}`)
	one := fmt.Sprintf(`{"id": %q, "name": "web", "status": "ACTIVE", "tenant_id": %q, "hostId": %q, "image": {"id": "i"}, "metadata": {},
		"flavor": {"original_name": "vtpm.small", "extra_specs": {"hw:tpm_version": "2.0"}}}`, vm, project, hostID)
	answer("GET /v2.1/servers/"+vm, http.StatusOK, `{"server": `+one+`}`)
	answer("GET /v2.1/servers/detail", http.StatusOK, `{"servers": [`+one+`]}`)
	answer("GET /v2.1/servers/", http.StatusNotFound, `{"itemNotFound": {"message": "Instance could not be found."}}`)
	answer("POST /v2.1/servers/"+vm+"/metadata", http.StatusOK, `{"metadata": {}}`)
	answer("PUT /swift/", http.StatusCreated, "")
	answer("GET /openstack/latest/meta_data.json", http.StatusOK, fmt.Sprintf(`{"uuid": %q, "project_id": %q, "admin_pass": "must-not-leave"}`, vm, project))
	answer("GET /openstack/latest/vendor_data2.json", http.StatusOK, hint)
	for name, value := range map[string]string{
		"CLOUD": server.URL, "OS_AUTH_URL": server.URL + "/v3", "OS_APPLICATION_CREDENTIAL_ID": "app", "OS_APPLICATION_CREDENTIAL_SECRET": "must-not-leave", "OS_REGION_NAME": "one",
	} {
		ts.Setenv(name, value)
	}
}
