package testlab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// listenControl opens the socket of swtpm's control channel, beside that of its
// data channel.
func (s *SWTPM) listenControl(ctx context.Context) (*os.File, error) {
	dir := s.socket
	if dir == "" {
		return nil, fmt.Errorf("swtpm in %s: a TPM 1.2 listens on unix sockets only", s.Dir)
	}
	s.control = filepath.Join(dir, "ctrl")
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unix", s.control)
	if err != nil {
		return nil, err
	}
	unix := l.(*net.UnixListener)
	unix.SetUnlinkOnClose(false)
	defer unix.Close()
	return unix.File()
}

// SetLocality sets the locality of commands to come: CMD_SET_LOCALITY of swtpm's
// control channel (swtpm_ioctls.h).
func (s *SWTPM) SetLocality(ctx context.Context, locality byte) error {
	const cmdSetLocality = 5
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", s.control)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, cmdSetLocality), locality)); err != nil {
		return err
	}
	var answer [4]byte
	if _, err := conn.Read(answer[:]); err != nil {
		return fmt.Errorf("swtpm in %s: set locality: %w", s.Dir, err)
	}
	if code := binary.BigEndian.Uint32(answer[:]); code != 0 {
		return fmt.Errorf("swtpm in %s: set locality %d: result 0x%x", s.Dir, locality, code)
	}
	return nil
}
