package store

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var kills = flag.Int("kills", 25, "TestKilled: how many writers are killed")

// killedStore is the variable that tells this program, started by TestKilled, to be
// the writer that is killed, and where its store is.
const killedStore = "WARMREBOOT_TEST_KILLED_STORE"

// writtenPFNs are enough pages for a checkpoint to be several records.
var writtenPFNs = func() []uint32 {
	l := slices.Clone(modelPFNs)
	for i := range uint32(150) {
		l = append(l, 100_000+i)
	}
	return l
}()

// written returns a page of what the writer writes as checkpoint e: it follows from
// the numbers, whoever writes it.
func written(e Epoch, pfn uint32) modelPage {
	since := e
	for ; since > 1; since-- { // the last time that it changed
		if (uint64(since)*2654435761+uint64(pfn)*40503)%5 < 2 {
			break
		}
	}
	r := rand.New(rand.NewPCG(uint64(since), uint64(pfn)))
	switch r.IntN(12) {
	case 0:
		return modelPage{kind: Absent}
	case 1:
		return modelPage{kind: Allocated}
	case 2:
		return modelPage{data: string(zeroPage[:])}
	}
	b := make([]byte, PageSize)
	few := r.IntN(4) > 0 // changes to what is always the same
	for i := range b {
		if b[i] = byte(i % 61); !few || i%97 == 0 {
			b[i] = byte(r.Uint32())
		}
	}
	return modelPage{data: string(b)}
}

// write writes checkpoints until it is killed, and says so after each commit, and
// before it forgets some.
func write(dir string) error {
	w, err := OpenWriter(dir, Options{SegmentBytes: 300 << 10, SegmentCheckpoints: 7, SyncEvery: 1})
	if err != nil {
		return err
	}
	fmt.Println("open")
	for {
		c, err := w.Begin(Info{Time: time.Unix(1e9, 0), Domain: "web"}, true)
		if err != nil {
			return err
		}
		e := c.Epoch()
		for _, pfn := range writtenPFNs {
			p := written(e, pfn)
			if p.kind == Absent {
				continue
			}
			var data []byte
			if p.kind == Data {
				data = []byte(p.data)
			}
			if err := c.Page(pfn, p.kind, data); err != nil {
				return err
			}
		}
		if _, err := c.Commit([]byte(stateOf(e))); err != nil {
			return err
		}
		fmt.Println("committed", e)
		if e%4 != 0 {
			continue
		}
		var gone []Epoch
		for _, i := range w.Infos() {
			if i.Epoch+6 < e || i.Epoch%3 == 0 {
				gone = append(gone, i.Epoch)
				fmt.Println("forgotten", i.Epoch)
			}
		}
		if err := w.Forget(gone); err != nil {
			return err
		}
		if _, err := w.Collect(); err != nil {
			return err
		}
	}
}

// TestKilled: a process that writes checkpoints, forgets some and collects is ended by
// SIGKILL at any moment, again and again on the same store. What it has said to be
// committed is there afterwards, as it was; what is there is whole. What loss of power
// may do besides is in TestCuts.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(killedStore); dir != "" {
		t.Fatal(write(dir))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(5, 5))
	kept := map[Epoch]bool{} // committed, and not begun to be forgotten
	last := Epoch(0)
	idle, tails := 0, 0
	for n := range *kills {
		cmd := exec.Command(self, "-test.run", "^TestKilled$")
		cmd.Env = append(os.Environ(), killedStore+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		first := ""
		if r.IntN(8) > 0 { // else it is killed while it starts, or puts in order what the last one left
			if first, err = lines.ReadString('\n'); err != nil || first != "open\n" {
				rest, _ := io.ReadAll(lines)
				t.Fatalf("after %d kills: %v: %s%s", n, err, first, rest)
			}
		}
		time.Sleep(time.Duration(r.IntN(60_000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(lines)
		if err != nil {
			t.Fatal(err)
		}
		var ended *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("after %d kills: %v: %s", n, err, said)
		}
		before := last
		for line := range strings.Lines(string(said)) {
			what, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			e, err := strconv.ParseUint(number, 10, 32)
			switch {
			case what == "committed" && err == nil:
				kept[Epoch(e)], last = true, Epoch(e)
			case what == "forgotten" && err == nil:
				delete(kept, Epoch(e))
			case line != "open\n":
				t.Fatalf("after %d kills: %q", n, line)
			}
		}
		if last == before {
			idle++
		}
		rd, err := OpenWriter(dir, Options{noSync: true, step: func(what string) {
			if what == "tail found" {
				tails++
			}
		}})
		if err != nil {
			t.Fatalf("after %d kills: %v", n, err)
		}
		there := 0
		for _, i := range rd.Infos() {
			if kept[i.Epoch] {
				there++
			} else if i.Epoch == last+1 { // whole, though there was no time to say so
				kept[i.Epoch], last = true, i.Epoch
				there++
			}
			want := memory{}
			for _, pfn := range writtenPFNs {
				if p := written(i.Epoch, pfn); p.kind != Absent {
					want[pfn] = p
				}
			}
			if err := same(rd.view, i.Epoch, want); err != nil {
				t.Fatalf("after %d kills: %v", n, err)
			}
			if i.Epoch > last {
				t.Fatalf("after %d kills: checkpoint %d is there, the last one was %d", n, i.Epoch, last)
			}
		}
		if there != len(kept) {
			t.Fatalf("after %d kills: %d of %d checkpoints are there", n, there, len(kept))
		}
		if err := rd.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills: %d checkpoints committed and none lost; %d writers got nothing done, %d left a part of a checkpoint", *kills, last, idle, tails)
	if last < Epoch(*kills)/2 {
		t.Error("the writers hardly wrote")
	}
}
