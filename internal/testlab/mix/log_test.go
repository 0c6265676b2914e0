package mix

import (
	"testing"
	"time"
)

// TestLogEdits: whatever is written into a log, and whatever is measured after the
// boot, no verdict gets better.
func TestLogEdits(t *testing.T) {
	const captures = "../../../quote/testdata/logs/"
	paths := []string{captures + "direct/eventlog.bin", captures + "grub-sb/eventlog.bin", captures + "uki-sb/eventlog.bin", captures + "seabios-tpm2/eventlog.bin"}
	if all() {
		// The other captures differ from these in digests only.
		paths = append(paths, captures+"uki-sb.tamper-sboff/eventlog.bin", captures+"direct-ima-tcb/eventlog.bin")
	}
	s, err := NewLogSearch(paths...)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	run := func() (LogOutcome, error) { return s.Sample(12, 400, 2) }
	if all() {
		s.Progress = func(what string, o LogOutcome) {
			t.Logf("%s: %d edits, %d verdicts so far, %s", what, o.Edits, o.Verdicts, time.Since(began).Round(time.Second))
		}
		run = func() (LogOutcome, error) { return s.All(20_000) }
	}
	o, err := run()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range o.Better {
		t.Error(b)
	}
	t.Logf("%d edits of %d logs tried in %s, %d verdicts", o.Edits, len(s.scenes), time.Since(began).Round(time.Millisecond), o.Verdicts)
}
