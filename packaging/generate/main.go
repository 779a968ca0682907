// Command generate writes what a package has besides the programs and is made
// from their command lines: manual pages.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/warmreboot/warmreboot/internal/checkpoint/command"
	"github.com/warmreboot/warmreboot/internal/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate FOLDER")
		os.Exit(2)
	}
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(dir string) error {
	pages, err := cli.ManPages()
	if err != nil {
		return err
	}
	if pages["warmcheckpoint.8"], err = command.ManPage(); err != nil {
		return err
	}
	for name, page := range pages {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(page), 0o644); err != nil {
			return err
		}
	}
	return nil
}
