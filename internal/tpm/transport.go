package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// DefaultAddress is the kernel's resource-managed TPM device.
const DefaultAddress = "device:/dev/tpmrm0"

// dial connects to the TPM that an address names.
func dial(ctx context.Context, address string) (io.ReadWriteCloser, error) {
	kind, where, ok := strings.Cut(address, ":")
	if !ok || strings.HasPrefix(address, "/") {
		kind, where = "", address
	}
	switch kind {
	case "":
		info, err := os.Stat(where)
		if err != nil {
			return nil, openError(address, err)
		}
		if info.Mode()&fs.ModeSocket != 0 {
			return dialSocket(ctx, "unix", where, address)
		}
		return openDevice(where, address)
	case "device":
		return openDevice(where, address)
	case "unix", "tcp":
		return dialSocket(ctx, kind, where, address)
	}
	return nil, fmt.Errorf("TPM address %q: want device:/dev/tpmrm0, unix:PATH, tcp:HOST:PORT or a path", address)
}

// dialSocket connects to a TPM that speaks plain commands and responses over a
// stream, as swtpm's data channel does.
func dialSocket(ctx context.Context, network, where, address string) (io.ReadWriteCloser, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, where)
	if err != nil {
		return nil, openError(address, err)
	}
	return conn, nil
}

// openDevice opens a TPM character device for blocking reads and writes. os.Open
// would hand it to the runtime poller and so make it non-blocking, and a
// non-blocking TPM device answers a read that comes too early with no bytes at
// all instead of waiting (Linux, drivers/char/tpm/tpm-dev-common.c).
func openDevice(path, address string) (io.ReadWriteCloser, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, openError(address, err)
	}
	if info.Mode()&fs.ModeCharDevice == 0 {
		return nil, fmt.Errorf("TPM at %s: not a device (%s)", address, info.Mode().Type())
	}
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, openError(address, &fs.PathError{Op: "open", Path: path, Err: err})
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openError says what to do about a TPM that cannot be opened. The cause stays
// visible to errors.Is: fs.ErrNotExist, fs.ErrPermission.
func openError(address string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = ": there is no TPM here; enable the TPM in firmware setup, or give the VM a vTPM, and load the kernel's tpm_tis or tpm_crb driver"
	case errors.Is(err, fs.ErrPermission):
		hint = ": run as root, or as a member of the group that owns the device (usually tss: usermod -aG tss USER)"
	case errors.Is(err, syscall.EBUSY):
		hint = ": another program holds the TPM; use /dev/tpmrm0, which several programs can share"
	case errors.Is(err, syscall.ECONNREFUSED):
		hint = ": nothing listens there; start the TPM emulator"
	}
	return fmt.Errorf("open TPM at %s: %w%s", address, err, hint)
}

// Sizes of the command and response header (Part 1, section 16.2) and of the
// largest response that is read: MAX_RESPONSE_SIZE of PC Client TPMs is 4096.
const (
	headerSize      = 10
	maxResponseSize = 4096
)

// exchange sends one command and reads its response. A device hands out a whole
// response in one read; a socket may hand it out in pieces.
func exchange(rw io.ReadWriter, command []byte) ([]byte, error) {
	if _, err := rw.Write(command); err != nil {
		return nil, fmt.Errorf("send command: %w", err)
	}
	buf := make([]byte, maxResponseSize)
	have, want := 0, headerSize
	for have < want {
		n, err := rw.Read(buf[have:])
		have += n
		if have >= headerSize {
			size := binary.BigEndian.Uint32(buf[2:])
			if size < headerSize || size > maxResponseSize {
				return nil, fmt.Errorf("response claims %d bytes, want %d to %d", size, headerSize, maxResponseSize)
			}
			want = int(size)
		}
		if have < want && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("response cut off after %d of at least %d bytes: %w", have, want, err)
		}
	}
	if have > want {
		return nil, fmt.Errorf("%d bytes after a response of %d bytes", have-want, want)
	}
	return buf[:want], nil
}
