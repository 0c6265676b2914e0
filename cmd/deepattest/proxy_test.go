package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
)

// proxy stands between the program and a TPM and counts commands.
type proxy struct {
	listener      net.Listener
	network, addr string // of the TPM
	commands      atomic.Int64
	running       sync.WaitGroup
}

// count NAME ADDRESS puts a proxy in front of a TPM; $NAME is its address.
// "count NAME" prints how many commands went through it since the last time.
func count(ts *testscript.TestScript, neg bool, args []string) {
	b := benchOf(ts)
	switch {
	case neg || len(args) < 1 || len(args) > 2:
		ts.Fatalf("usage: count NAME [ADDRESS]")
	case len(args) == 1:
		fmt.Fprintln(ts.Stdout(), b.proxies[args[0]].commands.Swap(0))
		return
	}
	dir, err := os.MkdirTemp("", "proxy") // a script's folder is too long for a socket
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	p := &proxy{}
	p.network, p.addr, _ = strings.Cut(args[1], ":")
	p.listener, err = net.Listen("unix", filepath.Join(dir, "tpm"))
	ts.Check(err)
	p.running.Go(p.accept)
	ts.Defer(func() {
		p.listener.Close()
		p.running.Wait()
	})
	b.proxies[args[0]] = p
	ts.Setenv(args[0], "unix:"+p.listener.Addr().String())
}

// accept serves one connection after the other, as swtpm does.
func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.relay(client)
	}
}

// relay passes on commands and responses, both of which have their size in bytes 2
// to 5 (TPM 2.0 Part 1, section 16.2), until one side hangs up. swtpm wants a
// command in one piece.
func (p *proxy) relay(client net.Conn) {
	defer client.Close()
	tpm, err := net.Dial(p.network, p.addr)
	if err != nil {
		return
	}
	defer tpm.Close()
	for {
		for _, way := range []struct{ from, to net.Conn }{{client, tpm}, {tpm, client}} {
			message := make([]byte, 4096) // the most that PC Client TPMs take and give
			if _, err := io.ReadFull(way.from, message[:10]); err != nil {
				return
			}
			size := min(max(binary.BigEndian.Uint32(message[2:]), 10), uint32(len(message)))
			if _, err := io.ReadFull(way.from, message[10:size]); err != nil {
				return
			}
			if way.from == client {
				p.commands.Add(1)
			}
			if _, err := way.to.Write(message[:size]); err != nil {
				return
			}
		}
	}
}
