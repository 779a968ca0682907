package schedule

import "time"

// Clock watches the host's clock beside its uptime, which does not jump, and says
// whether it can be trusted. The zero value has seen nothing.
type Clock struct {
	seen bool
	wall time.Time
	up   time.Duration
	set  time.Duration // uptime at which it was last seen to have been set
}

// Steady is for how long a clock has to go as the uptime does before it is trusted:
// one that is wrong for a minute has nothing done.
const Steady = 2 * time.Minute

// before this program was made no clock is right.
var before = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Shown is a time as the clock shows it, and nothing else: those of time.Now carry a
// monotonic reading, too, by which Go compares two of them, as if no clock were ever set.
func Shown(t time.Time) time.Time { return t.Round(0) }

// See enters what the clock shows at an uptime, and returns for how much longer it
// is not to be trusted; 0: it is. Just after the host's boot it is not.
func (c *Clock) See(wall time.Time, up time.Duration) (unsteady time.Duration) {
	wall = Shown(wall)
	passed := up - c.up
	by := (wall.Sub(c.wall) - passed).Abs()
	switch {
	case !c.seen, up < c.up: // the latter is another boot
		c.set = 0
	case by > time.Second+passed/500: // more than a clock is slewed by
		c.set = up
	}
	if wall.Before(before) {
		c.set = up
	}
	c.seen, c.wall, c.up = true, wall, up
	return max(0, c.set+Steady-up)
}
