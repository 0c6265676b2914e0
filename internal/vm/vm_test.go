package vm

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// entry is what a reader of the archive sees (cpio(5), "New ASCII Format").
type entry struct {
	name string
	mode uint64
	data string
}

func readArchive(t *testing.T, archive []byte) (list []entry) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; ; {
		head := string(data[at : at+110])
		field := func(n int) int {
			v, err := strconv.ParseUint(head[6+8*n:14+8*n], 16, 32)
			if err != nil {
				t.Fatalf("at %d: %v", at, err)
			}
			return int(v)
		}
		if head[:6] != "070701" {
			t.Fatalf("at %d: magic %q", at, head[:6])
		}
		align := func(n int) int { return (n + 3) &^ 3 }
		start := align(at + 110 + field(11))
		end := start + field(6)
		e := entry{string(data[at+110 : at+110+field(11)-1]), uint64(field(1)), string(data[start:end])}
		if e.name == "TRAILER!!!" {
			if rest := data[align(end):]; len(rest) > 0 {
				t.Errorf("%d bytes after the trailer", len(rest))
			}
			return list
		}
		list = append(list, e)
		at = align(end)
	}
}

func TestInitramfs(t *testing.T) {
	files := []File{{"etc/b", 0o644, []byte("bb\n")}, {"init", 0o755, []byte("#!")}, {"etc/a/x", 0o600, nil}}
	var once, again bytes.Buffer
	if err := WriteInitramfs(&once, files); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(files)
	if err := WriteInitramfs(&again, files); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(once.Bytes(), again.Bytes()) {
		t.Error("the order of the files changes the bytes, and so the measurement")
	}
	list := readArchive(t, once.Bytes())
	seen := make(map[string]entry)
	for _, e := range list {
		if dir := filepath.Dir(e.name); dir != "." && seen[dir].name == "" {
			t.Errorf("%s comes before its folder", e.name)
		}
		seen[e.name] = e
	}
	for name, want := range map[string]entry{
		"etc/b":       {"etc/b", 0o100644, "bb\n"},
		"init":        {"init", 0o100755, "#!"},
		"etc/a/x":     {"etc/a/x", 0o100600, ""},
		"etc/a":       {"etc/a", 0o040755, ""},
		"proc":        {"proc", 0o040755, ""},
		"dev/console": {"dev/console", 0o020600, ""},
	} {
		if seen[name] != want {
			t.Errorf("%s: %+v, want %+v", name, seen[name], want)
		}
	}
}

func TestModuleOrder(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep":     "kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\nkernel/other.ko:\n",
		"modules.builtin": "kernel/fs/ext4/ext4.ko\n",
		"kernel/a.ko":     "A", "kernel/b.ko": "B", "kernel/c.ko": "C",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := &Materials{KernelVersion: "test", Modules: dir}
	files, err := m.ModuleFiles("a", "b", "ext4")
	if err != nil {
		t.Fatal(err)
	}
	if order := files[len(files)-1]; order.Name != "modules/order" || string(order.Data) != "c.ko\nb.ko\na.ko\n" {
		t.Errorf("%s: %q", order.Name, order.Data)
	}
	if len(files) != 4 || string(files[0].Data) != "C" {
		t.Errorf("files: %+v", files)
	}
	if _, err := m.ModuleFiles("absent"); err == nil {
		t.Error("a module that is not there is no error")
	}
}

func TestForwardedPort(t *testing.T) {
	const said = "Hub -1 (n0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n" +
		"  TCP[HOST_FORWARD]  13       127.0.0.1 44569       10.0.2.15  8443     0     0\r\n"
	if m := usernet.FindStringSubmatch(said); m == nil || m[1] != "44569" {
		t.Errorf("found %q", m)
	}
}
