package guest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/deepattest/deepattest/quote"
)

// ReadLog reads a file of at most limit bytes. Files in /sys state no size, so it
// reads to the end. An empty file is an error: a log without entries explains
// nothing. fs.ErrNotExist and fs.ErrPermission can be told apart with errors.Is.
func ReadLog(path string, limit int) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	// Opening a pipe would wait for its other end.
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file (%s)", path, info.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > limit:
		return nil, fmt.Errorf("read %s: over %d bytes, the most that evidence may carry", path, limit)
	case len(data) == 0:
		return nil, fmt.Errorf("read %s: the file is empty", path)
	}
	return data, nil
}

// logs reads the three logs and says of each that is missing why.
func (p Paths) logs() (quote.Logs, []quote.Missing) {
	var l quote.Logs
	var missing []quote.Missing
	for _, log := range []struct {
		what, path string
		limit      int
		into       *[]byte
		absent     string // why the file is usually not there
	}{
		{quote.MissingUEFI, p.EventLog, quote.MaxUEFILog, &l.UEFI,
			"the firmware or boot loader handed the kernel no event log (GRUB without Secure Boot does so), or securityfs is not mounted: mount -t securityfs securityfs /sys/kernel/security"},
		{quote.MissingUserspace, p.UserspaceLog, quote.MaxUserspaceLog, &l.Userspace,
			"systemd measured nothing: it does so from version 252 on, when it was booted as a unified kernel image"},
		// The list only grows: read after the quote it holds everything quoted.
		{quote.MissingIMA, p.IMA, quote.MaxIMALog, &l.IMA,
			"the kernel has no IMA, or securityfs is not mounted: mount -t securityfs securityfs /sys/kernel/security"},
	} {
		if log.path == "" {
			continue
		}
		data, err := ReadLog(log.path, log.limit)
		if err != nil {
			missing = append(missing, absence(log.what, err, log.absent))
			continue
		}
		*log.into = data
	}
	return l, missing
}

// VM returns the uuid that the hypervisor gave this machine, as SMBIOS states it
// (DSP0134 3.6, section 7.2.1). The kernel prints it in RFC 9562 order whatever
// its order in the table is (Linux, drivers/firmware/dmi_scan.c).
func (p Paths) VM() (quote.UUID, error) {
	text, err := ReadLog(p.ProductUUID, 64)
	if err != nil {
		return quote.UUID{}, err
	}
	vm, err := quote.ParseUUID(strings.TrimSpace(string(text)))
	if err != nil {
		return quote.UUID{}, fmt.Errorf("read %s: %w", p.ProductUUID, err)
	}
	// DSP0134, section 7.2.1: all zeros and all ones say that none is set.
	if set := vm.String(); vm.IsZero() || strings.Trim(set, "f-") == "" {
		return quote.UUID{}, fmt.Errorf("read %s: %s stands for a machine without a uuid", p.ProductUUID, set)
	}
	return vm, nil
}

// absence words why something is missing and what to do.
func absence(what string, err error, absent string) quote.Missing {
	reason := err.Error()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		reason += ": " + absent
	case errors.Is(err, fs.ErrPermission):
		reason += fmt.Sprintf(": uid %d may not read it; run as root or with CAP_DAC_READ_SEARCH", os.Getuid())
	}
	return Missing(what, reason)
}

// Missing notes a missing piece, with its reason cut to what a bundle may carry.
func Missing(what, reason string) quote.Missing {
	const limit = 1000
	if len(reason) > limit {
		reason = reason[:limit] + "..."
	}
	// File names need not be UTF-8, and JSON must be. The mark is one byte, as each
	// byte it stands for.
	return quote.Missing{What: what, Reason: strings.ToValidUTF8(reason, "?")}
}
