package openstack

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/objectstorage/v1/containers"
	"github.com/gophercloud/gophercloud/v2/openstack/objectstorage/v1/objects"

	"github.com/deepattest/deepattest/policy"
	"github.com/deepattest/deepattest/quote"
)

// Summary is a result in server metadata: what dashboards and scripts look at. It
// is text that anyone with the tenant's credentials can write, so whoever relies on
// a verdict reads the result itself.
//
// The value has the form "v1 VERDICT TIME EVIDENCE POLICY": RFC 3339 time, the first
// 32 hexadecimal digits of the evidence's SHA-256, and the policy's name cut to what
// is left of 255 bytes.
func Summary(r *policy.Result) (key, value string) {
	evidence := r.Evidence.String()
	value = fmt.Sprintf("v1 %s %s %s %s", r.Verdict, r.Now.UTC().Format(time.RFC3339), evidence[:min(32, len(evidence))], printable(r.Policy.Name))
	return SummaryKey, strings.ToValidUTF8(value[:min(len(value), 255)], "")
}

// SummaryKey is the name of the metadata item.
const SummaryKey = "deepattest.result"

// Container is the object storage container for results.
const Container = "deepattest"

// Store puts a result into object storage as CONTAINER/VM/TIME.json, and returns
// that name. NoService tells when the cloud has no object storage.
func (c *Cloud) Store(ctx context.Context, vm quote.UUID, at time.Time, data []byte) (string, error) {
	name := fmt.Sprintf("%s/%s.json", vm, at.UTC().Format("20060102T150405Z"))
	doing := "store the result as " + Container + "/" + name
	client, err := openstack.NewObjectStorageV1(c.provider, c.endpoint)
	if err != nil {
		return "", explain(err, "object-store", doing)
	}
	if err := containers.Create(ctx, client, Container, nil).Err; err != nil { // also when it is there
		return "", explain(err, "object-store", doing)
	}
	result := objects.Create(ctx, client, Container, name, objects.CreateOpts{
		Content: bytes.NewReader(data), ContentType: policy.ResultMediaType, ContentLength: int64(len(data)),
	})
	if result.Err != nil {
		return "", explain(result.Err, "object-store", doing)
	}
	return Container + "/" + name, nil
}
