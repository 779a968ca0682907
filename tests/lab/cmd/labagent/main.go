// Command labagent is the lab's agent inside dom0 and the domU.
package main

import (
	"fmt"
	"os"

	"github.com/warmreboot/warmreboot/tests/lab/agent"
)

func main() {
	if err := agent.Main(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "labagent:", err)
		os.Exit(1)
	}
}
