package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/internal/schedule"
)

// duration is the value of an option that is a time: as in schedules, so with days
// and weeks, 90m or 2d.
type duration time.Duration

// Set implements cli.Generic.
func (d *duration) Set(s string) error {
	v, err := schedule.ParseDuration(s)
	if err != nil {
		return err
	}
	*d = duration(v)
	return nil
}

// String implements cli.Generic.
func (d *duration) String() string {
	s := time.Duration(*d).String()
	for _, zero := range []string{"m0s", "h0m"} { // 5m0s is 5m, for reading
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

func durationFlag(name string, value time.Duration, usage string) cli.Flag {
	d := duration(value)
	return &cli.GenericFlag{Name: name, Value: &d, Usage: usage}
}

// durationOf returns the value of a durationFlag.
func durationOf(c *cli.Context, name string) time.Duration {
	d, ok := c.Generic(name).(*duration)
	if !ok {
		panic(fmt.Sprintf("option --%s is no duration", name))
	}
	return time.Duration(*d)
}
