package vm

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/go-json-experiment/json"
)

// qmp is a connection to QEMU's monitor (QEMU Machine Protocol).
type qmp struct {
	conn net.Conn
	in   *bufio.Reader
}

// qmpLimit bounds one answer.
const qmpLimit = 30 * time.Second

// listen makes a unix socket that a child takes over as descriptor 3, so that it
// is there before the child is and nobody has to wait for it.
func listen(path string) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	return l.File()
}

// dialQMP connects and ends the negotiation. It gives up when exited is closed.
func dialQMP(ctx context.Context, path string, exited <-chan struct{}) (*qmp, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("QEMU's monitor: %w", err)
	}
	ready := make(chan struct{})
	defer close(ready)
	go func() {
		select {
		case <-exited:
			conn.Close()
		case <-ctx.Done():
			conn.Close()
		case <-ready:
		}
	}()
	q := &qmp{conn: conn, in: bufio.NewReader(conn)}
	if err = q.deadline(); err == nil {
		_, err = q.in.ReadBytes('\n') // the greeting
	}
	if err == nil {
		_, err = q.execute(`{"execute":"qmp_capabilities"}`)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("QEMU's monitor: %w", err)
	}
	return q, nil
}

func (q *qmp) deadline() error { return q.conn.SetDeadline(time.Now().Add(qmpLimit)) }

// execute sends a command and returns its answer, past events.
func (q *qmp) execute(command string) ([]byte, error) {
	if err := q.deadline(); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintln(q.conn, command); err != nil {
		return nil, err
	}
	for {
		line, err := q.in.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		var answer map[string]any
		if err := json.Unmarshal(line, &answer); err != nil {
			return nil, fmt.Errorf("%w: %s", err, line)
		}
		if answer["error"] != nil {
			return nil, fmt.Errorf("%s: %v", command, answer["error"])
		}
		if _, ok := answer["return"]; ok {
			return line, nil
		}
	}
}

// human runs a command of the monitor for people.
func (q *qmp) human(command string) (string, error) {
	line, err := q.execute(`{"execute":"human-monitor-command","arguments":{"command-line":"` + command + `"}}`)
	if err != nil {
		return "", err
	}
	var answer struct {
		Return string `json:"return"`
	}
	err = json.Unmarshal(line, &answer)
	return answer.Return, err
}

func (q *qmp) close() { q.conn.Close() }
