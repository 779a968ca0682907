// Warmrebootd is the dom0 agent of warmreboot.
package main

import (
	"os"

	"github.com/warmreboot/warmreboot/internal/daemon"
)

func main() {
	os.Exit(daemon.Main(os.Args[1:], os.Stderr))
}
