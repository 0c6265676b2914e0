package cloud

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"unicode/utf8"
)

// GoogleInstance is what Google says about an instance.
type GoogleInstance struct {
	Zone          string
	ProjectNumber uint64
	ProjectID     string
	ID            uint64
	Name          string
	// Security is nil in certificates that leave it out.
	Security *GoogleSecurity
}

// GoogleSecurity holds the security properties of the host that runs the instance.
type GoogleSecurity struct {
	Version    int64
	Production bool // false on hosts that Google debugs
}

// instanceInfo is the extension's value; all texts are UTF8String.
type instanceInfo struct {
	Zone          asn1.RawValue
	ProjectNumber *big.Int
	ProjectID     asn1.RawValue
	ID            *big.Int
	Name          asn1.RawValue
	Security      asn1.RawValue `asn1:"explicit,optional,tag:0"`
}

// security is the start of the security properties. Certificates have further members
// behind, whose meaning Google has not published; encoding/asn1 passes over them.
type security struct {
	Version    int64 `asn1:"explicit,optional,tag:0"`
	Production bool  `asn1:"explicit,optional,tag:1"`
}

// instanceExtension is Google's CloudComputeInstanceIdentifier.
func instanceExtension() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 1, 21}
}

func (v *certificateCheck) google() Step {
	for _, e := range v.leaf.Extensions {
		if !e.Id.Equal(instanceExtension()) { // crypto/x509 refuses a second one
			continue
		}
		g, err := parseInstance(e.Value)
		switch {
		case err != nil:
			return failed("the certificate's instance cannot be read", err.Error(), "zone, project and instance")
		case g.Security != nil && !g.Security.Production:
			return failed("the instance is not on a production host", "isProduction FALSE", "isProduction TRUE, or nothing")
		}
		v.r.Google = g
		return held("instance %d (%q) of project %q in %s", g.ID, g.Name, g.ProjectID, g.Zone)
	}
	return failed("the certificate does not name an instance", "no extension "+instanceExtension().String(), "zone, project and instance")
}

func parseInstance(der []byte) (*GoogleInstance, error) {
	var info instanceInfo
	if rest, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, err
	} else if len(rest) > 0 {
		return nil, fmt.Errorf("%d trailing bytes", len(rest))
	}
	g := &GoogleInstance{}
	for _, f := range []struct {
		name string
		from asn1.RawValue
		to   *string
	}{{"zone", info.Zone, &g.Zone}, {"project ID", info.ProjectID, &g.ProjectID}, {"instance name", info.Name, &g.Name}} {
		if f.from.Class != asn1.ClassUniversal || f.from.Tag != asn1.TagUTF8String || len(f.from.Bytes) == 0 || !utf8.Valid(f.from.Bytes) {
			return nil, fmt.Errorf("%s: not a UTF8String with a text", f.name)
		}
		*f.to = string(f.from.Bytes)
	}
	if !info.ProjectNumber.IsUint64() || !info.ID.IsUint64() {
		return nil, errors.New("project number and instance ID: want 64 bits, not negative")
	}
	g.ProjectNumber, g.ID = info.ProjectNumber.Uint64(), info.ID.Uint64()
	if len(info.Security.FullBytes) == 0 {
		return g, nil
	}
	var s security
	if _, err := asn1.Unmarshal(info.Security.Bytes, &s); err != nil {
		return nil, fmt.Errorf("security properties: %w", err)
	}
	g.Security = &GoogleSecurity{Version: s.Version, Production: s.Production}
	return g, nil
}
