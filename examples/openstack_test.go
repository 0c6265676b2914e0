package examples

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/deepattest/deepattest/policy"
)

// The policy beside the Heat template is one that the program takes.
func TestOpenStackPolicy(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("openstack", "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if p.Host == nil || p.Guest == nil {
		t.Error("it is silent about a layer")
	}
}
