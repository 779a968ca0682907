package faults_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/warmreboot/warmreboot/tests/faults/campaign"
	"github.com/warmreboot/warmreboot/tests/lab/build"
)

var onLab = flag.Bool("lab", false, "run the tests that boot the lab")

func TestMain(m *testing.M) {
	flag.Parse()
	if !*onLab {
		fmt.Println("the lab is off: no test of this package was run; `make test-faults` runs them")
		return
	}
	os.Exit(m.Run())
}

// sample is what continuous integration injects: the faults that go straight
// for the pages, as few as show that they are kept out.
var sample = campaign.Settings{Faults: 10, Seconds: 6}

func run(t *testing.T, mode campaign.Mode, types ...string) []campaign.Result {
	t.Helper()
	cache, checkout, err := build.Open()
	if err != nil {
		t.Fatal(err)
	}
	bench, err := campaign.Open(t.Context(), cache, checkout, mode, "faults", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var results []campaign.Result
	for _, name := range types {
		result, err := bench.Run(t.Context(), campaign.Key{Type: name, Seed: 1, Mode: mode}, sample)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v: %s after %d faults; %d pages restored, %d differ; %.0f s", result.Key, result.Class, result.Injected,
			result.Pages.Restored, len(result.Pages.Mismatches), result.Took)
		results = append(results, result)
	}
	return results
}

// TestProtected: whatever the faults do to the page cache, nothing wrong comes
// back, and most of the rest does.
func TestProtected(t *testing.T) {
	for _, r := range run(t, campaign.Protected, "page-cache-write", "wild-write") {
		if r.Class.Wrong() {
			t.Errorf("%v: %s: %+v, the guest sees %+v", r.Key, r.Class, r.Pages.Mismatches, r.Seen)
		}
		if r.Injected == 0 {
			t.Errorf("%v: nothing was injected", r.Key)
		}
		if r.Pages.Restored == 0 {
			t.Errorf("%v: nothing came back, so that nothing was tested: %s %s", r.Key, r.Reboot.Reason, r.Note)
		}
	}
}

// TestTrusting: the same faults are seen when the guest is trusted, else the
// test above is blind; and what is seen comes from the faults.
func TestTrusting(t *testing.T) {
	results := run(t, campaign.Trusting, campaign.None, "page-cache-write")
	if r := results[0]; r.Class == campaign.Inconsistent || r.Pages.Restored == 0 {
		t.Errorf("without a fault: %s, %d pages restored: %+v", r.Class, r.Pages.Restored, r.Pages.Mismatches)
	}
	if r := results[1]; r.Class != campaign.Inconsistent {
		t.Errorf("%v: %s after %d faults, though nothing protects the pages", r.Key, r.Class, r.Injected)
	}
}
