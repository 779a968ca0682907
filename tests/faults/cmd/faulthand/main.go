// Command faulthand does the fault injection's part inside the lab's machines.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/warmreboot/warmreboot/tests/faults/hand"
)

func main() {
	if err := hand.Main(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "faulthand:", err)
		os.Exit(1)
	}
}
