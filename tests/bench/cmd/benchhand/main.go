// Command benchhand does the benchmark's part inside the lab's machines.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
)

func main() {
	if err := hand.Main(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "benchhand:", err)
		os.Exit(1)
	}
}
