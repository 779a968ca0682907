// Command faultguest is the domU's init in the fault injection.
package main

import (
	"fmt"
	"os"

	"github.com/warmreboot/warmreboot/tests/faults/guest"
)

func main() {
	if err := guest.Main(); err != nil {
		fmt.Fprintln(os.Stderr, "faultguest:", err)
		os.Exit(1)
	}
}
