// Command gen writes the vectors of package vectors.
//
//	go run ./internal/testlab/gen [-dir verify/testdata/vectors]
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/deepattest/deepattest/internal/testlab/vectors"
)

func main() {
	dir := flag.String("dir", filepath.Join("verify", "testdata", "vectors"), "folder to write; its other .json files are removed")
	flag.Parse()
	if err := write(*dir); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	files, err := vectors.Files()
	if err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if _, keep := files[filepath.Base(path)]; !keep {
			err = errors.Join(err, os.Remove(path))
		}
	}
	err = errors.Join(err, os.MkdirAll(dir, 0o755))
	for name, data := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	return err
}
