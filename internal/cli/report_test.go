package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/web/webtest"
)

// exampleService answers with the example of the pages' own tests.
func exampleService() *fakeService {
	x := webtest.New()
	return &fakeService{status: x.Domain, list: []api.DomainStatus{x.Domain}, entries: x.Entries, samples: x.Seen}
}

func TestReportCommand(t *testing.T) {
	t.Chdir(t.TempDir())
	r := runCLI(exampleService(), nil, "report", "web")
	if r.code != 0 || !strings.Contains(r.out, "report written to warmreboot-web<script>alert(\"x\")<_script>.html") {
		t.Fatalf("%+v", r)
	}
	files, err := os.ReadDir(".")
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	if i, err := files[0].Info(); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", i, err)
	}
	raw, err := os.ReadFile(files[0].Name())
	if err != nil || !strings.Contains(string(raw), "preserved by Xen") {
		t.Errorf("%s, %v", raw, err)
	}
	if r := runCLI(exampleService(), nil, "report", "web", "-f", "-", "--id", "9"); r.code != 0 || !strings.HasPrefix(r.out, "<!doctype html>") ||
		!strings.Contains(r.out, `class="cold">cold`) {
		t.Errorf("%+v", r)
	}
	var d map[string]any
	runCLI(exampleService(), nil, "report", "web", "-o", "json").json(t, &d)
	if d["Samples"] == nil || d["Reboot"] == nil {
		t.Errorf("%v", d)
	}
	if r := runCLI(exampleService(), nil, "report", "web", "--id", "77"); r.code != ExitNotFound || !strings.Contains(r.stderr, "history") {
		t.Errorf("%+v", r)
	}
	if r := runCLI(exampleService(), nil, "report", "web", "-f", "/no/such/place"); r.code != ExitFailure || !strings.Contains(r.stderr, "--file") {
		t.Errorf("%+v", r)
	}
	if r := runCLI(&fakeService{err: api.Errorf(api.AgentDown, "down")}, nil, "report", "web"); r.code != ExitAgentDown {
		t.Errorf("%+v", r)
	}
}
