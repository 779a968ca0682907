// Warmcheckpoint keeps checkpoints of domains' memory.
package main

import (
	"os"

	"github.com/warmreboot/warmreboot/internal/checkpoint/command"
)

func main() {
	os.Exit(command.Main(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
