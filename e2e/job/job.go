// Package job is what the end-to-end tests and the program inside their guests
// tell each other: which programs to run, and how they ended.
package job

import (
	"archive/tar"
	"bytes"
	"maps"
	"slices"
)

// Names in the archives: a guest finds its job in a file of its first root, or
// on the disk with serial "in" among other files for the programs' working
// folder, and writes the outcomes to the disk with serial "out".
const (
	File     = "job.json"
	Outcomes = "outcomes.json"
	Folder   = "/run/job" // working folder of the programs
	Binary   = "/bin/deepattest"
)

// Job is what one guest does after it has set up devices and network. Then it
// writes its output and powers off.
type Job struct {
	SwitchRoot bool // instead, go on with /sbin/init on the disk with serial "root"; the input disk's files go there
	Steps      []Step
}

// Step runs a program. Its output goes to the console and to the files NAME.out
// and NAME.err of the results.
type Step struct {
	Name    string
	Args    []string
	Seconds int      // limit; 0: none
	Keep    []string // files to add to the results, by path
	Install string   // before, makes another program than Binary that does the same, at this path
}

// Outcome is how a step ended. Times are in microseconds, as getrusage(2) has them.
type Outcome struct {
	Name         string
	Exit         int // exit code; -1 when it was ended or could not be started
	Error        string
	Wall         int64
	User, System int64
	RSS          int64 // peak resident set, bytes
}

// Pack makes a tar archive of files by name; the same files give the same bytes.
func Pack(files map[string][]byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(files[name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
