package lab

import (
	"slices"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab/build"
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

// TestBochs: what Bochs cannot do is refused before it starts, and a second of its clock
// is as many instructions as on QEMU's.
func TestBochs(t *testing.T) {
	for name, c := range map[string]Config{
		"two processors": {Processors: 2},
		"a saved state":  {Saveable: true},
		"another state":  {Resume: "one"},
		"a spare disk":   {SpareMiB: 100},
		"much memory":    {MemoryMiB: 2049},
	} {
		c.Bochs = &build.Bochs{}
		if _, _, err := c.prepareBochs(t.Context(), &Machine{}); err == nil || !strings.Contains(err.Error(), "a lab on Bochs") {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := &Machine{Dir: "/lab"}
	for memory, want := range map[int]string{0: "memory: guest=2048, host=2048", 1500: "memory: guest=1500, host=1500"} {
		got := Config{Dir: "/lab", MemoryMiB: memory}.bochsSettings(m, "/lab/disc.iso", "/lab/network")
		for _, want := range []string{want, "ips=500000000", `dev="/lab/console.log"`} {
			if !strings.Contains(got, want) {
				t.Errorf("with %d MiB, no %q in:\n%s", memory, want, got)
			}
		}
	}
}
