package report

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/deepattest/deepattest/policy"
)

// browser is a headless Chromium whose only way out is a proxy that lets nothing
// through and counts what is asked for.
type browser struct {
	program  string
	proxy    string
	requests atomic.Int64
}

// count reads the request line of a connection. What the browser asks of its own
// maker, at start and for no page, is not counted.
func (b *browser) count(c net.Conn) {
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	line, _ := bufio.NewReader(io.LimitReader(c, 4096)).ReadString('\n')
	for _, maker := range []string{".google.com:", ".google.com/", ".googleapis.com:", ".googleapis.com/", ".gvt1.com", ".gstatic.com:"} {
		if line == "" || strings.Contains(line, maker) {
			return
		}
	}
	b.requests.Add(1)
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	b := &browser{}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			b.program = path
			break
		}
	}
	if b.program == "" {
		t.Skip("no Chromium: install Debian's chromium to see the pages in a browser")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var open sync.WaitGroup
		defer open.Wait()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { b.count(c) })
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	b.proxy = l.Addr().String()
	return b
}

// open shows a file and returns what the browser's console said.
func (b *browser) open(t *testing.T, file string, flags ...string) (console string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	args := append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions", "--hide-scrollbars",
		"--user-data-dir=" + t.TempDir(), "--proxy-server=http://" + b.proxy, "--enable-logging=stderr",
	}, flags...)
	cmd := exec.CommandContext(ctx, b.program, append(args, "file://"+file)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", b.program, err, out.Bytes())
	}
	var said []string
	for line := range strings.SplitSeq(out.String(), "\n") {
		if strings.Contains(line, ":CONSOLE") {
			said = append(said, line)
		}
	}
	return strings.Join(said, "\n")
}

func writePage(t *testing.T, r *policy.Result) string {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(&b, r, Options{Build: "test"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The page opens without a word on the console and without asking for anything,
// and prints. DEEPATTEST_PICTURES=FOLDER keeps what was seen, and writes the
// picture of the documentation, docs/report.png.
func TestHTMLInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	b := newBrowser(t)
	keep := os.Getenv("DEEPATTEST_PICTURES")
	bad := filepath.Join(t.TempDir(), "bad.html")
	if err := os.WriteFile(bad, []byte(`<script>console.error("seen")</script><img src="http://192.0.2.1/x.png">`), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := b.open(t, bad, "--screenshot="+filepath.Join(t.TempDir(), "x.png")); !strings.Contains(said, "seen") {
		t.Errorf("the browser's console is not heard: %q", said)
	}
	if b.requests.Load() == 0 {
		t.Error("the browser's requests are not seen")
	}
	light, dark := "--blink-settings=preferredColorScheme=1", "--blink-settings=preferredColorScheme=0"
	pages := map[string]*policy.Result{
		"untrusted": exampleResult(t, "tampered-guest.json", policy.Untrusted),
		"hostile":   infest(`<script>console.error("hit")</script><img src=http://192.0.2.1/x onerror=console.error(1)>"'`),
	}
	dir := keep
	if keep == "" {
		dir = t.TempDir()
	} else {
		pages["trusted"], pages["rejected"] = exampleResult(t, "good.json", policy.Trusted), exampleResult(t, "relayed.json", policy.Rejected)
		documentationPicture(t, b, writePage(t, pages["untrusted"]))
	}
	for name, r := range pages {
		t.Run(name, func(t *testing.T) {
			path := writePage(t, r)
			before := b.requests.Load()
			for scheme, flag := range map[string]string{"light": light, "dark": dark} {
				if keep == "" && name == "hostile" && scheme == "dark" {
					continue
				}
				shot := filepath.Join(dir, name+"-"+scheme+".png")
				if said := b.open(t, path, "--window-size=1040,2400", flag, "--screenshot="+shot); said != "" {
					t.Errorf("%s: console: %s", scheme, said)
				}
				checkPicture(t, shot)
			}
			pdf := filepath.Join(dir, name+".pdf")
			if said := b.open(t, path, "--no-pdf-header-footer", "--print-to-pdf="+pdf); said != "" {
				t.Errorf("print: console: %s", said)
			}
			if data, err := os.ReadFile(pdf); err != nil || !bytes.HasPrefix(data, []byte("%PDF-")) || len(data) < 20_000 {
				t.Errorf("print: %d bytes: %v", len(data), err)
			}
			if n := b.requests.Load() - before; n != 0 {
				t.Errorf("the page made %d requests", n)
			}
		})
	}
}

// checkPicture looks for a picture with something on it.
func checkPicture(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for y := 0; y < img.Bounds().Dy(); y += 7 {
		for x := 0; x < img.Bounds().Dx(); x += 7 {
			red, green, blue, _ := img.At(x, y).RGBA()
			seen[fmt.Sprint(red>>12, green>>12, blue>>12)] = true
		}
	}
	if len(seen) < 8 {
		t.Errorf("%s: %d colours: the page is empty", path, len(seen))
	}
}

// documentationPicture writes docs/report.png: the head of the page and the
// picture of the layers, in 256 colours.
func documentationPicture(t *testing.T, b *browser, page string) {
	t.Helper()
	const most = 200 << 10
	shot := filepath.Join(t.TempDir(), "shot.png")
	b.open(t, page, "--window-size=900,1190", "--blink-settings=preferredColorScheme=1", "--screenshot="+shot)
	f, err := os.Open(shot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, fewColours(img)); err != nil {
		t.Fatal(err)
	}
	if out.Len() > most {
		t.Errorf("docs/report.png: %d bytes, at most %d", out.Len(), most)
	}
	if err := os.WriteFile("../../docs/report.png", out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fewColours keeps the 256 most frequent colours of a picture.
func fewColours(img image.Image) image.Image {
	count := make(map[color.Color]int)
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			count[img.At(x, y)]++
		}
	}
	palette := slices.SortedFunc(maps.Keys(count), func(a, b color.Color) int {
		return cmp.Or(count[b]-count[a], strings.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	few := image.NewPaletted(img.Bounds(), palette[:min(len(palette), 256)])
	draw.Draw(few, few.Bounds(), img, image.Point{}, draw.Src)
	return few
}
