package custody_test

import (
	"fmt"
	"time"

	"github.com/warmreboot/warmreboot/internal/custody"
	"github.com/warmreboot/warmreboot/internal/disk"
)

// The disk counts the sectors that all have written, the backend those of the guest.
// Where both agree until the next guest has the disk, nobody else has written.
func ExampleAccount() {
	vdb := disk.Identity{Name: "/dev/vdb", Size: 1 << 30, Block: "254:16"}
	start := time.Unix(1e9, 0)
	reading := func(after time.Duration, all uint64, guest uint64) disk.Reading {
		return disk.Reading{At: start.Add(after), Written: all, Guest: &disk.GuestIO{Written: guest}}
	}
	for _, others := range []uint64{0, 8} {
		a := custody.Open(vdb, reading(0, 100, 0)) // before the guest's first write
		a.Drain(reading(time.Second, 140, 40))     // the guest is dead, its 40 sectors are written
		now := disk.Reading{At: start.Add(time.Minute), Written: 140 + others}
		judgement, reason := a.Judge(vdb, now, false)
		fmt.Printf("%s: %q\n", judgement, reason)
	}
	// Output:
	// certain: ""
	// broken: "8 sectors of /dev/vdb were written while the guest was down"
}
