package testlab

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"

	"github.com/deepattest/deepattest/quote"
)

// Captured is a layer with the log and the PCRs 0 to 15 of a captured boot: a folder
// like those of quote/testdata/logs.
func Captured(dir string) (*quote.Layer, error) {
	l := &quote.Layer{}
	data, err := os.ReadFile(filepath.Join(dir, "pcrs.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &l.PCRs); err != nil {
		return nil, err
	}
	for n := 16; n < quote.NumPCRs; n++ { // as a quote covers them
		delete(l.PCRs[quote.SHA256], n)
	}
	l.Logs.UEFI, err = os.ReadFile(filepath.Join(dir, "eventlog.bin"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(l.Logs.UEFI) == 0 {
		l.Missing = []quote.Missing{{What: quote.MissingUEFI, Reason: "the kernel has no log"}}
		return l, nil
	}
	return l, err
}
