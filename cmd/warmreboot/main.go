// Warmreboot reboots a domU and gives it its page cache back.
package main

import (
	"os"

	"github.com/warmreboot/warmreboot/internal/cli"
)

func main() {
	os.Exit(cli.Main(os.Args, os.Stdout, os.Stderr))
}
