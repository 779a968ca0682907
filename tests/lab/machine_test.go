package lab

import (
	"slices"
	"strings"
	"testing"
)

// TestProcessors: a clock that counts instructions is for one processor only, and
// more than one are to run at the same time.
func TestProcessors(t *testing.T) {
	for processors, want := range map[int]string{
		0: "-accel tcg,thread=single -smp 1 -icount shift=1,sleep=on ",
		1: "-accel tcg,thread=single -smp 1 -icount shift=1,sleep=on ",
		2: "-accel tcg,thread=multi -smp 2 ",
		4: "-accel tcg,thread=multi -smp 4 ",
	} {
		got := Config{Dir: "/lab", Processors: processors}.arguments(&Machine{Dir: "/lab"})
		if line := strings.Join(got, " ") + " "; !strings.Contains(line, want) || slices.Contains(got, "-icount") != (processors < 2) {
			t.Errorf("with %d processors: %s", processors, line)
		}
	}
	if _, err := Boot(t.Context(), Config{Dir: t.TempDir(), Processors: 2, Saveable: true}); err == nil || !strings.Contains(err.Error(), "saved") {
		t.Errorf("a state that is to be saved, with two processors: %v", err)
	}
}
