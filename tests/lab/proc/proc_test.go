package proc

import (
	"os"
	"testing"
)

func TestTime(t *testing.T) {
	const stat = "812 (a) 1 2 (b) S 1 812 812 0 -1 4194560 2210 0 3 0 42 51 7 7 20 0 9 0 1500 1266884608"
	fields, err := split([]byte(stat))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := used(fields); got != 0.93 || err != nil {
		t.Errorf("%v s, %v", got, err)
	}
	if fields[19] != "1500" {
		t.Errorf("started at %s", fields[19])
	}
	for _, text := range []string{"", "812 (a) S 1 812"} {
		if _, err := split([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
	start, err := Start(os.Getpid())
	if err != nil || start == 0 {
		t.Errorf("%d, %v", start, err)
	}
	if _, err := Time(os.Getpid()); err != nil {
		t.Error(err)
	}
}
