package e2e

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab"
)

// get is a small program for dom0, which has no curl: it prints what a URL gives,
// after the status. $2 is the Host header.
const get = `python3 -c '
import http.client, sys
c = http.client.HTTPConnection("127.0.0.1", 9816, timeout=60)
c.request("GET", sys.argv[1], headers={"Host": sys.argv[2]})
r = c.getresponse()
sys.stdout.buffer.write(b"%d\n" % r.status + r.read())' `

// seen is a lab whose agent shows what it knows.
type seen struct{ *bed }

func (s seen) get(t *testing.T, path, host string) (status int, body string) {
	t.Helper()
	text := s.dom0(t, get+path+" "+host)
	head, body, _ := strings.Cut(text, "\n")
	status, err := strconv.Atoi(head)
	if err != nil {
		t.Fatalf("%s: %q", path, text)
	}
	return status, body
}

// metric returns the value of a series of domU-web whose labels contain all of
// the given ones.
func (s seen) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	status, body := s.get(t, "/metrics", "localhost")
	if status != 200 {
		t.Fatalf("metrics: %d %s", status, body)
	}
next:
	for _, line := range strings.Split(body, "\n") {
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(line, l) {
				continue next
			}
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	t.Errorf("no %s with %v in\n%s", name, labels, body)
	return -1
}

// ends asserts the exit code of a line, and that it says so much.
func (s seen) ends(t *testing.T, line string, want int, says string) string {
	t.Helper()
	code, output := s.exitCode(t, line)
	t.Logf("%s: %s", line, output)
	if code != want || !strings.Contains(output, says) {
		t.Errorf("%s: exit code %d, want %d and %q:\n%s", line, code, want, says, output)
	}
	return output
}

// TestSeeing: doctor, exit codes, metrics, pages, report and top, as an operator
// in dom0 sees them.
func TestSeeing(t *testing.T) {
	t.Parallel()
	s := seen{boot(t, lab.Variant{Unthrottled: true})}
	if err := s.StopAgent(t.Context(), "TERM"); err != nil {
		t.Fatal(err)
	}
	s.ends(t, "warmreboot doctor", 2, "CRITICAL agent: ")
	s.ends(t, "warmreboot domU-web", 6, "is warmrebootd running?")
	s.ends(t, "warmrebootd --listen 0.0.0.0:9816", 2, "only loopback")
	if err := s.StartAgent(t.Context(), "--listen 127.0.0.1:9816"); err != nil {
		t.Fatal(err)
	}
	s.create(t, true)
	s.verify(t) // reads all files
	s.read(t)

	s.doctor(t)
	s.exitCodes(t)
	s.figures(t)
	s.pages(t)
	s.top(t)
	s.check(t)
}

// doctor finds nothing wrong but what is: nothing keeps the lab's clock right.
func (s seen) doctor(t *testing.T) {
	t.Helper()
	code, output := s.exitCode(t, "warmreboot doctor")
	t.Log(output)
	for _, want := range []string{"OK       xen: this Xen has the warm cache", "OK       agent: warmrebootd ", "domain domU-web: tracked, reusable now", " memory: "} {
		if !strings.Contains(output, want) {
			t.Errorf("no %q", want)
		}
	}
	if bad := regexp.MustCompile(`(?m)^(CRITICAL|UNKNOWN) .*|^WARNING +[^cm ].*`).FindString(output); bad != "" || code > 1 {
		t.Errorf("code %d: %q", code, bad)
	}
	s.ends(t, "warmreboot doctor nobody", 3, "there is no such domain")
	var d struct {
		Findings []struct{ Check, Severity, Next string }
	}
	if err := json.Unmarshal([]byte(s.dom0(t, "warmreboot doctor -o json; [ $? -le 1 ]")), &d); err != nil || len(d.Findings) < 5 {
		t.Errorf("%+v, %v", d, err)
	}
}

// exitCodes are those that other tests do not end with.
func (s seen) exitCodes(t *testing.T) {
	t.Helper()
	s.ends(t, "warmreboot domU-web --bogus", 2, "--help")
	s.ends(t, "warmreboot nobody", 10, "xl list")
	// What a daemon of another version says to a request that it does not know.
	s.dom0(t, `cat >/tmp/old.py <<'EOF'
import http.server, socketserver
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_error(404)
    def address_string(self): return "x"
socketserver.UnixStreamServer("/tmp/old.sock", H).serve_forever()
EOF
rm -f /tmp/old.sock; setsid python3 /tmp/old.py >/dev/null 2>&1 </dev/null & echo $! >/tmp/old.pid; until [ -S /tmp/old.sock ]; do sleep 0.1; done`)
	s.ends(t, "warmreboot history --socket /tmp/old.sock", 12, "another version")
	s.dom0(t, "kill $(cat /tmp/old.pid)")

	// A guest that takes no note of what it is asked is no longer asked, and goes on as it
	// was.
	out := s.ends(t, `xl pause domU-web; warmreboot domU-web --timeout 10m >/tmp/first 2>&1 & first=$!
		node=/local/domain/$(xl domid domU-web)/control/shutdown
		until [ "$(xenstore-read $node 2>/dev/null)" = reboot ]; do sleep 0.2; done
		warmreboot cancel domU-web; code=$?
		wait $first; echo "the first: $?"; cat /tmp/first; echo "asked: $(xenstore-read $node)."; xl unpause domU-web; (exit $code)`, 0, "the first: 1")
	if !strings.Contains(out, "was cancelled by root") || !strings.Contains(out, "asked: .") {
		t.Error("it is not said, or the guest is still asked")
	}
	s.ends(t, "warmreboot history domU-web --limit 1", 0, "cancelled")
	s.ends(t, "warmreboot cancel domU-web", 2, "in no operation")

	s.ends(t, "warmreboot domU-web --force --timeout 10m", 0, "came back warm")
	s.awaitDomU(t)

	// One that is under way cannot be begun again; and its waiting can be broken off.
	s.ends(t, `was=$(xl domid domU-web); warmreboot domU-web --force --timeout 10m >/tmp/first 2>&1 & first=$!
		while now=$(xl domid domU-web 2>/dev/null); [ -z "$now" ] || [ "$now" = "$was" ]; do sleep 0.2; done
		warmreboot domU-web; code=$?; warmreboot domU-web --dry-run; dry=$?
		kill -TERM $first; wait $first; echo "the first: $?"; cat /tmp/first; [ $code = $dry ] && (exit $code)`, 11, "the first: 130")
	s.ends(t, "warmreboot status domU-web --wait --timeout 10m", 0, "last reboot")
	s.awaitDomU(t)

	// A guest that is crashing when it is to be rebooted by force: the reboot that
	// is under way is waited for.
	if _, err := s.DomU().Shell(t.Context(), "(sleep 2; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 </dev/null &"); err != nil {
		t.Fatal(err)
	}
	s.ends(t, "while xl list domU-web 2>/dev/null | awk 'NR == 2 { print $5 }' | grep -q '^[rb-][rb-][p-]---$'; do sleep 0.1; done; "+
		"warmreboot domU-web --force --timeout 10m", 0, "(crash)")
	s.awaitDomU(t)

	// Somebody in dom0 has the disk open for writing: the domain comes back cold,
	// and each page that it held is counted.
	s.dom0(t, "setsid sleep 3600 >/dev/null 2>&1 </dev/null 9<>/dev/vdb & echo $! >/tmp/holder")
	s.ends(t, "warmreboot domU-web --force --timeout 10m", 3, "in use in dom0")
	s.dom0(t, "kill $(cat /tmp/holder)")
	s.awaitDomU(t)
	v := s.status(t).Last.vbd(t, "xvda")
	if len(v.Refusals) != 1 || v.Refusals[0].Reason != "in_use" || v.Refusals[0].Pages != v.Held || v.Held < 10000 {
		t.Errorf("refused: %+v", v)
	}
	s.read(t)
	s.ends(t, "warmreboot domU-web --force --timeout 10m", 0, "came back warm")
	s.awaitDomU(t)
	s.verify(t) // after all of these, and one boot without the page cache
}

// figures are what Prometheus gets.
func (s seen) figures(t *testing.T) {
	t.Helper()
	web := `name="domU-web"`
	if v := s.metric(t, "warmreboot_pages_reusable", web, `uuid="`); v < 10000 {
		t.Errorf("%v pages are reusable", v)
	}
	if v := s.metric(t, "warmreboot_coverage_ratio", web); v <= 0 || v > 1 {
		t.Errorf("coverage %v", v)
	}
	low, high := s.metric(t, "warmreboot_table_memory_bytes", web), s.metric(t, "warmreboot_table_memory_limit_bytes", web)
	if memory := 4096 * s.metric(t, "warmreboot_memory_pages", web); low <= 0 || low > high || high > 0.02*memory {
		t.Errorf("tables: %v to %v, of %v", low, high, memory)
	}
	for name, least := range map[string]float64{"warmreboot_hypercalls_total": 10, "warmreboot_xen_warmcache": 1,
		"warmreboot_domain_tracked": 1, "warmreboot_reboot_down_seconds_count": 4, "warmreboot_reboot_restore_seconds_count": 3} {
		labels := []string{web}
		if name == "warmreboot_xen_warmcache" {
			labels = nil
		}
		if v := s.metric(t, name, labels...); v < least {
			t.Errorf("%s is %v", name, v)
		}
	}
	if v := s.metric(t, "warmreboot_reboots_total", web, `kind="force"`, `result="warm"`); v < 2 {
		t.Errorf("%v warm reboots by force", v)
	}
	if v := s.metric(t, "warmreboot_reboots_total", web, `kind="force"`, `result="cold"`); v != 1 {
		t.Errorf("%v cold ones", v)
	}
	if v := s.metric(t, "warmreboot_refused_pages_total", web, `reason="in_use"`, `vbd="xvda"`); v < 10000 {
		t.Errorf("%v pages were refused", v)
	}
	if v := s.metric(t, "warmreboot_config_success"); v != 1 {
		t.Errorf("no configuration is a wrong one: %v", v)
	}
	if _, body := s.get(t, "/metrics", "localhost"); strings.Contains(body, "domid") {
		t.Error("a metric is by domid")
	}
}

// pages are the report and what the daemon serves.
func (s seen) pages(t *testing.T) {
	t.Helper()
	uuid := strings.TrimSpace(s.dom0(t, "xl list -v domU-web | awk 'NR == 2 { print $7 }'"))
	for path, want := range map[string]string{"/": `<a href="/domains/`, "/domains/domU-web": "preserved by Xen", "/domains/" + uuid: "preserved by Xen"} {
		if status, body := s.get(t, path, "127.0.0.1:9816"); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _ := s.get(t, "/", "evil.example"); status != 421 {
		t.Errorf("asked by another name: %d", status)
	}
	if status, _ := s.get(t, "/domains/nobody", "localhost"); status != 404 {
		t.Errorf("of nobody: %d", status)
	}
	s.ends(t, "warmreboot report domU-web -f /tmp/report.html", 0, "report written to /tmp/report.html")
	report := s.dom0(t, "cat /tmp/report.html; stat -c '%a' /tmp/report.html")
	if !strings.HasSuffix(report, "600") || strings.Count(report, "<svg") != 3 || !strings.Contains(report, `class="warm">warm`) {
		t.Errorf("%s", report)
	}
	if found := regexp.MustCompile(`(?i)<script|<link|\bsrc=|https?:|url\(`).FindString(report); found != "" {
		t.Errorf("not self-contained: %q", found)
	}
	// The disk was read before the reboots, and dom0 has seen that.
	read := 0.0
	var d struct {
		Samples []struct {
			DiskRead float64 `json:"disk_read"`
			Domid    int     `json:"domid"`
		}
	}
	if err := json.Unmarshal([]byte(s.dom0(t, "warmreboot report domU-web -o json")), &d); err != nil || len(d.Samples) < 20 {
		t.Fatalf("%d samples, %v", len(d.Samples), err)
	}
	domids := map[int]bool{}
	for _, v := range d.Samples {
		read += v.DiskRead
		domids[v.Domid] = true
	}
	if len(domids) < 2 || read <= 0 {
		t.Errorf("%v bytes read by %v", read, domids)
	}
}

// top is looked at on a pseudo-terminal and in a pipe.
func (s seen) top(t *testing.T) {
	t.Helper()
	start := time.Now()
	lines := s.dom0(t, "warmreboot top --count 2 --interval 1s | cat")
	if strings.Count(lines, `domain="domU-web"`) != 2 || strings.Contains(lines, "\033") {
		t.Errorf("in a pipe: %q", lines)
	}
	screen := s.dom0(t, `python3 -c 'import pty; pty.spawn(["warmreboot", "top", "--count", "2", "--interval", "1s"])' </dev/null`)
	if !strings.Contains(screen, "\033[?1049h") || !strings.Contains(screen, "domU-web") || !strings.Contains(screen, "\033[?1049l") {
		t.Errorf("on a terminal: %q", screen)
	}
	t.Logf("%s\nin %v", lines, time.Since(start))
}
