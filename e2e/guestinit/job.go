//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/e2e/job"
)

func unmarshal(data []byte, into any) error { return json.Unmarshal(data, into) }

// readJob unpacks the input disk and returns the job of the first root, or else
// the input disk's: what the first root holds is measured, a disk is not.
func readJob() (*job.Job, error) {
	if err := os.MkdirAll(job.Folder, 0o755); err != nil {
		return nil, err
	}
	if err := os.Chdir(job.Folder); err != nil {
		return nil, err
	}
	path, err := disk("in")
	if err != nil {
		return nil, err
	}
	if path != "" {
		if err := unpack(path, job.Folder); err != nil {
			return nil, fmt.Errorf("input disk: %w", err)
		}
	}
	j, err := parseJob("/" + job.File)
	if errors.Is(err, fs.ErrNotExist) {
		j, err = parseJob(job.File)
	}
	return j, err
}

// unpack writes the files of a tar archive below a folder.
func unpack(path, dir string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(h.Name) {
			return fmt.Errorf("file name %q leads elsewhere", h.Name)
		}
		to := filepath.Join(dir, h.Name)
		data, err := io.ReadAll(r)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, data, fs.FileMode(h.Mode).Perm())
		}
		if err != nil {
			return err
		}
	}
}

// steps runs the steps in turn, also after one that fails.
func (g *guest) steps(j *job.Job) error {
	var outcomes []job.Outcome
	for _, s := range j.Steps {
		outcomes = append(outcomes, g.step(s))
	}
	data, err := json.Marshal(outcomes)
	g.files[job.Outcomes] = data
	return err
}

func (g *guest) step(s job.Step) job.Outcome {
	o := job.Outcome{Name: s.Name, Exit: -1}
	ctx := context.Background()
	if s.Seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(s.Seconds)*time.Second)
		defer cancel()
	}
	if s.Install != "" {
		// One byte more makes another program of it.
		data, err := os.ReadFile(job.Binary)
		if err == nil {
			err = os.WriteFile(s.Install, append(data, '\n'), 0o755)
		}
		if err != nil {
			o.Error = err.Error()
			return o
		}
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, s.Args[0], s.Args[1:]...)
	cmd.Env = append(os.Environ(), "HOME=/", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.WaitDelay = 5 * time.Second
	cmd.Stdout, cmd.Stderr = io.MultiWriter(os.Stdout, &stdout), io.MultiWriter(os.Stderr, &stderr)
	start := time.Now()
	if err := cmd.Run(); err != nil {
		o.Error = err.Error()
	}
	o.Wall = time.Since(start).Microseconds()
	if state := cmd.ProcessState; state != nil {
		o.Exit = state.ExitCode()
		o.User, o.System = state.UserTime().Microseconds(), state.SystemTime().Microseconds()
		if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
			o.RSS = usage.Maxrss << 10 // the kernel gives KiB
		}
	}
	g.files[s.Name+".out"], g.files[s.Name+".err"] = stdout.Bytes(), stderr.Bytes()
	for _, path := range s.Keep {
		data, err := os.ReadFile(path)
		if err != nil {
			g.complain(err)
			continue
		}
		g.files[filepath.Base(path)] = data
	}
	fmt.Printf("guestinit: %s: exit %d, %d ms, cpu %d+%d ms, rss %d KiB %s\n", s.Name, o.Exit, o.Wall/1000, o.User/1000, o.System/1000, o.RSS>>10, o.Error)
	return o
}

// copyFile copies a program.
func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// writeOutput writes a tar archive to the disk with serial "out".
func writeOutput(files map[string][]byte) error {
	path, err := waitForDisk("out")
	if err != nil {
		return err
	}
	data, err := job.Pack(files)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
