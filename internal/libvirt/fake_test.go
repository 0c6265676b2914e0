package libvirt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/deepattest/deepattest/quote"
)

// Procedures and the program of libvirt's remote protocol (remote_protocol.x).
const (
	program        = 0x20008086
	procOpen       = 1
	procClose      = 2
	procXML        = 14
	procAuthList   = 66
	procList       = 273
	procRegister   = 316
	procDeregister = 317
	procLifecycle  = 318

	typeReply, typeMessage = 1, 2
)

// daemon plays libvirtd on a socket of its own.
type daemon struct {
	path     string
	listener net.Listener
	mu       sync.Mutex
	vms      map[quote.UUID]fakeVM
	conns    []net.Conn
	lists    int    // requests for a list
	xmls     int    // requests for XML
	mute     bool   // takes requests and does not answer
	broken   string // instead of XML
	wait     sync.WaitGroup
}

type fakeVM struct {
	name string
	id   int32
	tpm  string // XML of the device
}

const emulated = `<tpm model='tpm-crb'><backend type='emulator' version='2.0'><encryption secret='x'/></backend></tpm>`

func newDaemon(t testing.TB) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "virt") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{path: filepath.Join(dir, "sock"), vms: map[quote.UUID]fakeVM{}}
	t.Cleanup(func() { d.stop(); os.RemoveAll(dir) })
	return d
}

// start listens; stop ends it as a daemon that dies.
func (d *daemon) start(t testing.TB) {
	t.Helper()
	l, err := net.Listen("unix", d.path)
	if err != nil {
		t.Fatal(err)
	}
	d.listener = l
	d.wait.Add(1)
	go func() {
		defer d.wait.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			d.conns = append(d.conns, c)
			d.mu.Unlock()
			d.wait.Add(1)
			go func() { defer d.wait.Done(); defer c.Close(); d.serve(c) }()
		}
	}()
}

func (d *daemon) stop() {
	if d.listener == nil {
		return
	}
	d.listener.Close()
	d.mu.Lock()
	for _, c := range d.conns {
		c.Close()
	}
	d.conns = nil
	d.mu.Unlock()
	d.wait.Wait()
	d.listener = nil
}

func (d *daemon) serve(c net.Conn) {
	for {
		var head [7]uint32 // length, program, version, procedure, type, serial, status
		if binary.Read(c, binary.BigEndian, &head) != nil {
			return
		}
		body := make([]byte, head[0]-28)
		if _, err := io.ReadFull(c, body); err != nil {
			return
		}
		d.mu.Lock()
		answer := d.answer(head[3], body)
		if !d.mute {
			send(c, head[3], typeReply, head[5], answer)
		}
		d.mu.Unlock()
	}
}

func send(c net.Conn, procedure, kind, serial uint32, body []byte) {
	var b bytes.Buffer
	_ = binary.Write(&b, binary.BigEndian, []uint32{uint32(28 + len(body)), program, 1, procedure, kind, serial, 0})
	b.Write(body)
	_, _ = c.Write(b.Bytes())
}

// answer is a reply's body in XDR.
func (d *daemon) answer(procedure uint32, body []byte) []byte {
	var b bytes.Buffer
	put := func(n int) { _ = binary.Write(&b, binary.BigEndian, uint32(n)) }
	switch procedure {
	case procAuthList:
		put(1)
		put(0)
	case procRegister:
		put(1)
	case procList:
		d.lists++
		put(len(d.vms))
		for vm, v := range d.vms {
			b.Write(xdrDomain(vm, v))
		}
		put(len(d.vms))
	case procXML:
		d.xmls++
		at := len(xdrString(string(body[4 : 4+binary.BigEndian.Uint32(body)])))
		v := d.vms[quote.UUID(body[at:at+16])]
		text := fmt.Sprintf("<domain type='qemu'><name>%s</name><devices>%s</devices></domain>", v.name, v.tpm)
		if d.broken != "" {
			text = d.broken
		}
		b.Write(xdrString(text))
	}
	return b.Bytes()
}

func xdrString(s string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(s)))
	return append(append(b, s...), make([]byte, (4-len(s)%4)%4)...)
}

func xdrDomain(vm quote.UUID, v fakeVM) []byte {
	return binary.BigEndian.AppendUint32(append(xdrString(v.name), vm[:]...), uint32(v.id))
}

// set changes a VM and tells who listens; v.id 0 takes it away.
func (d *daemon) set(vm quote.UUID, v fakeVM, event, detail uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v.id == 0 {
		v.name = d.vms[vm].name
		delete(d.vms, vm)
	} else {
		d.vms[vm] = v
	}
	body := binary.BigEndian.AppendUint32(nil, 1) // callback
	body = append(body, xdrDomain(vm, v)...)
	body = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(body, event), detail)
	for _, c := range d.conns {
		send(c, procLifecycle, typeMessage, 0, body)
	}
}
