package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// What `make build` makes goes into initial file systems, which boot loaders read
// from small partitions and slow disks: it has a limit on the disk, and one for
// what it adds to an image compressed with zstd.
func TestSize(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	const onDisk, inImage = 20 << 20, 7 << 20
	path := filepath.Join(t.TempDir(), "deepattest")
	cmd := exec.CommandContext(t.Context(), "make", "-C", "../..", "build", "BIN="+path)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, text)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// dracut compresses with zstd -15 (dracut.sh). This encoder's best gives about what
	// zstd -9 does, a little more than that, so the limit holds there as well.
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(15)))
	if err != nil {
		t.Fatal(err)
	}
	defer encoder.Close()
	compressed := len(encoder.EncodeAll(program, nil))
	t.Logf("%d bytes, %d compressed", len(program), compressed)
	if len(program) > onDisk {
		t.Errorf("the program has %d bytes, want at most %d", len(program), onDisk)
	}
	if compressed > inImage {
		t.Errorf("compressed with zstd the program has %d bytes, want at most %d", compressed, inImage)
	}
}
