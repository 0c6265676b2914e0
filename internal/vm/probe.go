package vm

import (
	"context"
	"os"
	"time"
)

// probeLimit is far more than a machine takes to boot with a processor that helps.
const probeLimit = 10 * time.Second

// Probe reports whether a machine boots under KVM here: it boots the one given, and
// that one has to write some output. A device that can be opened proves nothing, as
// KVM nested in another machine may run no firmware at all.
func Probe(ctx context.Context, cfg Config) bool {
	device, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	if device.Close() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	cfg.KVM = true
	m, err := Start(ctx, cfg)
	if err != nil {
		return false
	}
	if _, err := m.Wait(ctx); err != nil {
		return false
	}
	_, err = m.Output()
	return err == nil
}
