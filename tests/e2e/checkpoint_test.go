package e2e

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab"
	"github.com/warmreboot/warmreboot/tests/lab/build"
)

var restores = flag.Int("restores", 3, "TestCheckpoint: how many checkpoints are made and restored")

const (
	// kept is where the guest keeps what has to be in its memory, and in no disk.
	kept = "/dev/shm"
	// echoPort is where the guest answers each line with the same.
	echoPort = 7777
	// checkpointConfig is the guest's, with so little memory that a checkpoint of it is
	// not mostly waiting: all of it goes through the emulated processor four times.
	checkpointConfig = "/etc/xen/checkpoint.cfg"
)

// guestsLoad is what the guest does all the time: a server that echoes lines, with
// which a client on the guest's own loopback counts, on one connection that is never
// made anew; direct reads of the disk, so that requests are under way when the guest
// is stopped; and reads of files.
const guestsLoad = `
perl -MIO::Socket::INET -e '$SIG{CHLD}="IGNORE"; $l=IO::Socket::INET->new(Listen=>9,LocalPort=>7777,ReuseAddr=>1) or die; while($c=$l->accept){ next if fork; while(<$c>){ print $c $_ } exit }' &
until perl -MIO::Socket::INET -e 'IO::Socket::INET->new("127.0.0.1:7777") or exit 1'; do sleep 0.1; done
perl -MIO::Socket::INET -e '$c=IO::Socket::INET->new("127.0.0.1:7777") or die; for($n=1;;$n++){ print $c "$n\n"; $_=<$c>; $_==$n or die; open F,">","clock.new"; print F $n; close F; rename "clock.new","clock"; select undef,undef,undef,0.005 }' &
while :; do dd if=/dev/xvda of=/dev/null bs=256k count=8 iflag=direct status=none; sleep 0.05; done &
while :; do cat /srv/www/00/* >/dev/null; sleep 0.05; done &
`

// checkpoints is a lab whose domU is saved and restored.
type checkpoints struct {
	*bed
	took map[string][]float64 // seconds, by the machine's clock
}

// bootCheckpoints boots a lab without patches, with an empty store in dom0, and the
// domU with so many MiB of memory.
func bootCheckpoints(t *testing.T, memory int, packages ...string) *checkpoints {
	t.Helper()
	parts, checkout, cache := prepare(t, lab.Variant{StockXen: true, NoProduct: true, Unthrottled: true, SpareMiB: 4000, Packages: packages})
	b := &checkpoints{start(t, parts, cache, "tail -n 40 /var/log/xen/console/guest-domU-web.log /var/log/xen/xl-domU-web.log"), map[string][]float64{}}
	tools, err := cache.Tools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	program, err := cache.Program(t.Context(), tools, checkout, "./cmd/warmcheckpoint")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Machine.Dom0().Put(t.Context(), program, "/usr/local/sbin/warmcheckpoint", 0o755); err != nil {
		t.Fatal(err)
	}
	b.dom0(t, fmt.Sprintf("mke2fs -q /dev/vdc && mkdir -p /mnt/s && mount /dev/vdc /mnt/s && mkfifo /mnt/s/pipe && sed 's/^memory.*/memory = %d/' %s >%s && xl create %[3]s", memory, ordinaryConfig, checkpointConfig))
	b.awaitDomU(t)
	return b
}

// take makes a checkpoint without a file in between, and returns what import said.
func (b *checkpoints) take(t *testing.T) string {
	t.Helper()
	return b.timed(t, "xl save -c into import", "warmcheckpoint import - </mnt/s/pipe & xl save -c domU-web /mnt/s/pipe >/mnt/s/log 2>&1 || cat /mnt/s/log; wait $!")
}

// timed runs a line of shell in dom0 and notes how long it took by the machine's clock.
func (b *checkpoints) timed(t *testing.T, what, line string) string {
	t.Helper()
	out := b.dom0(t, "set -o pipefail; export WARMCHECKPOINT_STORE=/mnt/s/store; a=$(date +%s%N); { "+line+"; } 2>&1 || exit 1; echo $(($(date +%s%N) - a))")
	last := strings.LastIndexByte(out, '\n') + 1
	ns, err := strconv.ParseInt(out[last:], 10, 64)
	if err != nil {
		t.Fatalf("%s: %v in %q", line, err, out)
	}
	b.took[what] = append(b.took[what], float64(ns)/1e9)
	return strings.TrimSpace(out[:last])
}

// change is what checkpoint n has more than the one before. The last four changes are
// in files, so that there is as much to be summed up at the hundredth as at the fifth.
func (b *checkpoints) change(t *testing.T, n int) {
	t.Helper()
	b.domU(t, fmt.Sprintf("cd %s && dd if=/dev/urandom of=file%d bs=1M count=1 2>/dev/null && echo %d >number && sha256sum file* number >sums", kept, n%4, n))
}

// connect has dom0 connect to the guest and exchange a line with it. The connection
// is idle then until answers asks for another.
func (b *checkpoints) connect(t *testing.T) {
	t.Helper()
	b.dom0(t, fmt.Sprintf(`rm -f /tmp/c.*; mkfifo /tmp/c.go
setsid bash -c 'exec 3<>/dev/tcp/10.0.5.2/%d; echo before >&3; read -r -t 60 a <&3; echo "$a" >/tmp/c.up; read -r word </tmp/c.go; echo "$word" >&3; read -r -t 60 a <&3; echo "$a" >/tmp/c.new; mv /tmp/c.new /tmp/c.answer' </dev/null >/tmp/c.err 2>&1 &
for i in $(seq 600); do grep -q before /tmp/c.up 2>/dev/null && exit; sleep 0.1; done; cat /tmp/c.err; exit 1`, echoPort))
}

// answers sends a word on the connection, and returns what comes back on it.
func (b *checkpoints) answers(t *testing.T, word string) string {
	t.Helper()
	return b.dom0(t, "echo "+word+" >/tmp/c.go; for i in $(seq 700); do [ -e /tmp/c.answer ] && exec cat /tmp/c.answer; sleep 0.1; done; cat /tmp/c.err; exit 1")
}

// restored checks that the guest is the one of checkpoint n.
func (b *checkpoints) restored(t *testing.T, n int) {
	t.Helper()
	b.awaitDomU(t)
	sums := b.domU(t, "cd "+kept+" && cat number && sha256sum -c sums")
	if lines := strings.Split(sums, "\n"); lines[0] != fmt.Sprint(n) || strings.Count(sums, ": OK") != min(n, 4)+1 {
		t.Fatalf("restored from checkpoint %d: %q", n, sums)
	}
	word := fmt.Sprintf("after-%d", n)
	if got := b.answers(t, word); got != word {
		t.Fatalf("restored from checkpoint %d: the connection that it had answers %q", n, got)
	}
	before := b.domU(t, "cat "+kept+"/clock")
	for deadline := time.Now().Add(patience); b.domU(t, "cat "+kept+"/clock") == before; {
		if time.Now().After(deadline) {
			t.Fatalf("restored from checkpoint %d: what counts over a connection of the guest's own does not go on", n)
		}
	}
}

// TestCheckpoint: a domU under load is saved by `xl save -c` again and again, on a Xen
// without patches, and taken in on the way. Each checkpoint is restored by stock xl
// after the guest's memory has become a different one, and the restored guest is the
// one that is saved next. What was in memory at the checkpoint is there, with its sums;
// what came later is not; its processes go on, over the connections that they had, and
// one from outside goes on, too. What is exported says the same as what was saved: taken
// in again, it changes no page. (It has not the same bytes: xl lists the holes, too.)
// Some are saved into a file first, from which stock xl restores them, too, for a
// comparison of the time. The guest's root is frozen meanwhile, so that the disk
// is the same one at each checkpoint.
func TestCheckpoint(t *testing.T) {
	t.Parallel()
	b := bootCheckpoints(t, 128)
	b.domU(t, "mkdir -p "+kept+" && /bin/busybox mount -t tmpfs -o size=20m tmpfs "+kept+" && sync && fsfreeze -f "+build.ImageRoot+" && fsfreeze -f /")
	b.domU(t, "cd "+kept+" && { "+guestsLoad+" } >/dev/null 2>"+kept+"/complaints </dev/null")
	passed := 0
	begin := time.Now()
	defer func() {
		t.Logf("%d of %d checkpoints restored, with all that was in them", passed, *restores)
		for what, list := range b.took {
			slices.Sort(list)
			t.Logf("%-24s %3d times, %.2f s in the middle, from %.2f to %.2f", what, len(list), list[len(list)/2], list[0], list[len(list)-1])
		}
	}()
	for n := 1; n <= *restores; n++ {
		b.change(t, n)
		b.connect(t)
		compare := n <= 2 || n%20 == 1
		if compare {
			b.timed(t, "xl save -c", "xl save -c domU-web /mnt/s/save")
			t.Log(b.timed(t, "import", "warmcheckpoint import /mnt/s/save"))
		} else {
			t.Log(b.take(t))
		}
		b.domU(t, "cd "+kept+" && sha256sum -c sums") // it goes on
		b.change(t, n+1)
		b.dom0(t, "xl destroy domU-web")
		if compare {
			b.timed(t, "xl restore", "xl restore "+checkpointConfig+" /mnt/s/save")
			b.awaitDomU(t)
			b.dom0(t, "xl destroy domU-web && rm /mnt/s/save")
		}
		b.timed(t, "export into xl restore", fmt.Sprintf("warmcheckpoint export domU-web@%d | xl restore %s /dev/stdin", n, checkpointConfig))
		b.restored(t, n)
		passed++
		t.Logf("checkpoint %d restored, %.0f s", n, time.Since(begin).Seconds())
	}
	if got := b.domU(t, "cat "+kept+"/complaints"); got != "" {
		t.Errorf("the guest's load complains: %s", got)
	}
	b.verify(t)
	if got := b.timed(t, "export into import", "warmcheckpoint export domU-web@last | warmcheckpoint import -"); !strings.Contains(got, " 0 changed,") {
		t.Errorf("what is exported is not what was taken in: %s", got)
	}
	t.Log(b.timed(t, "verify", "warmcheckpoint verify"))
	t.Log(b.timed(t, "list", "warmcheckpoint list | tail -n 3; du -sk /mnt/s/store; warmcheckpoint diff domU-web@1 domU-web@last | wc -l"))
	b.timed(t, "core", "warmcheckpoint export --format vmcore -o /mnt/s/core domU-web@last")
	if got := b.dom0(t, "head -c 4 /mnt/s/core"); got != "\x7fELF" {
		t.Errorf("a core file begins with %q", got)
	}
}
