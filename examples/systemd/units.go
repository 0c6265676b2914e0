// Package systemd holds the units of attestation at boot, for `deepattest boot
// install`, which places them as README.md says.
package systemd

import "embed"

// Files are this folder's units and drop-ins: those of mode gate, and under monitor
// and strict what these modes add to them.
//
//go:embed *.service *.target *.timer boot.env workload.conf deep-attestation-.service.d monitor strict
var Files embed.FS
