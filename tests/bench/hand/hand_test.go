package hand

import (
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/reusebitmap"
)

func TestReads(t *testing.T) {
	root := t.TempDir()
	if err := Make(root, 120, 5000); err != nil {
		t.Fatal(err)
	}
	var r Result
	if err := measure(&r, anyDisk(t), func() error { return r.read(filepath.Join(root, "001/19"), make([]byte, 1024)) }); err != nil {
		t.Fatal(err)
	}
	if r.Files != 1 || r.Bytes != 5000 {
		t.Errorf("one file: %+v", r)
	}
	all, err := Pass(root, 2, anyDisk(t))
	if err != nil || all.Files != 240 || all.Bytes != 240*5000 || all.BestSeconds > all.Seconds/2 || all.LookupSeconds <= 0 || all.LookupSeconds > all.Seconds {
		t.Errorf("all files: %+v, %v", all, err)
	}
	random, err := Random(filepath.Join(root, "000/00"), 10, 1, anyDisk(t))
	if err != nil || random.Bytes != 10*PageSize {
		t.Errorf("at random: %+v, %v", random, err)
	}
}

// anyDisk is some disk of this machine.
func anyDisk(t *testing.T) string {
	t.Helper()
	disks, err := os.ReadDir("/sys/block")
	if err != nil || len(disks) == 0 {
		t.Fatalf("this machine has no block device: %v", err)
	}
	return disks[0].Name()
}

func TestWrites(t *testing.T) {
	root := t.TempDir()
	const size = 256 << 10
	for _, name := range []string{"write", "rewrite", "mmap", "fsync", "churn"} {
		if _, err := Write(name, root, size, anyDisk(t)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	content, err := os.ReadFile(filepath.Join(root, "file"))
	if err != nil || len(content) != size {
		t.Fatalf("%d bytes, %v", len(content), err)
	}
	for i, b := range content {
		if want := i%PageSize == 0; (b == 1) != want {
			t.Fatalf("byte %d is %d: the mapping was not written to as it should", i, b)
		}
	}
	if _, err := Write("nothing", root, size, anyDisk(t)); err == nil {
		t.Error("an unknown way to write")
	}
}

// TestDrive has a server that is away for a while after it was told to reboot.
func TestDrive(t *testing.T) {
	var away atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/reboot" {
			away.Store(2 * surelyDown)
			return
		}
		if away.Load() > 0 {
			away.Add(-1)
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer server.Close()
	d := Drive{Address: strings.TrimPrefix(server.URL, "http://"), Files: 3, Think: 0.001, Before: 0.3, After: 1.5,
		Command: []string{"bash", "-c", `exec 3<>/dev/tcp/${0/:/\/} && printf "GET /reboot HTTP/1.0\r\n\r\n" >&3 && cat <&3`,
			strings.TrimPrefix(server.URL, "http://")}}
	asked := 0.0
	d.used = func() (Used, error) { asked++; return Used{Agent: asked * asked}, nil }
	got, err := d.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Used["agent_cpu_seconds"] != 3 {
		t.Errorf("used %v", got.Used)
	}
	if got.Rate <= 0 || got.AfterRate <= 0 || got.Command < d.Before || got.Service <= got.Down || got.End < got.Service+d.After {
		t.Errorf("%+v", got)
	}
}

func TestRecovered(t *testing.T) {
	var ends []float64
	for at := 10.0; at < 12; at += 0.1 { // at half the rate
		ends = append(ends, at)
	}
	for at := 12.0; at < 15; at += 0.05 {
		ends = append(ends, at)
	}
	if got := recovered(ends, 10, 15, 20); got < 1.85 || got > 2.1 {
		t.Errorf("recovered after %v s, want about 2", got)
	}
	if got := recovered(ends, 10, 15, 40); got != -1 {
		t.Errorf("recovered after %v s, want never", got)
	}
	if got := bins(ends, 15)[int(12/Bin)]; got != 5 {
		t.Errorf("%d answers in a bin, want 5", got)
	}
}

// TestServe: a command's answer, its error, and another command after it.
func TestServe(t *testing.T) {
	server, client := net.Pipe()
	go func() { _ = converse(t.Context(), server) }() // ends with the test's connection
	s := &servant{client, json.NewDecoder(client)}
	defer client.Close()
	root := t.TempDir()
	if _, err := s.ask([]string{"make", root, "3", "5000"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ask([]string{"run", "false"}); err == nil {
		t.Error("a command's failure was not told")
	}
	if _, err := s.ask([]string{"evict", root}); err != nil {
		t.Error(err)
	}
	if _, err := s.ask([]string{"fill", root}); err != nil {
		t.Error(err)
	}
	value, err := s.ask([]string{"pass", root, "1", anyDisk(t)})
	var r Result
	if err := errors.Join(err, json.Unmarshal(value, &r)); err != nil || r.Files != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	value, err = s.ask([]string{"stat", root, anyDisk(t)})
	r = Result{}
	if err := errors.Join(err, json.Unmarshal(value, &r)); err != nil || r.Files != 3 || r.Bytes != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if value, err := s.ask([]string{"run", "echo", "a"}); err != nil || strings.TrimSpace(string(value)) != `"a"` {
		t.Errorf("%s, %v", value, err)
	}
}

func TestMemcpy(t *testing.T) {
	r, err := Memcpy(256)
	if err != nil || r.Bytes != 256*PageSize || r.BestSeconds <= 0 || r.LookupSeconds <= 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestSpread(t *testing.T) {
	got := spread(reusebitmap.Of(3*pagesPerRegion+1, 0, 1, pagesPerRegion-1, 3*pagesPerRegion))
	if want := (Spread{Pages: 4, Regions: 2, All: 4}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestMemoryTotal(t *testing.T) {
	if n, err := MemoryTotal(); err != nil || n < 16<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestAwait(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := Await(t.Context(), address, time.Minute); err != nil {
		t.Error(err)
	}
	listener.Close()
	if err := Await(t.Context(), address, 50*time.Millisecond); err == nil {
		t.Error("nobody listens, and it was not noticed")
	}
}

func TestUsed(t *testing.T) {
	before := Used{Xen{Processor: map[string]float64{"0": 5, "1": 3, "2": 1}}, 0.5, map[string]counts{"vda": {reads: 600, readSectors: 1}}}
	after := Used{Xen{Processor: map[string]float64{"0": 7, "2": 2, "3": 4}}, 0.75, map[string]counts{"vda": {reads: 620, readSectors: 2}, "vdb": {reads: 1, readSectors: 1}, "loop1": {}}}
	want := map[string]float64{"dom0_cpu_seconds": 2, "domU_cpu_seconds": 5, "agent_cpu_seconds": 0.25,
		"vda_requests": 20, "vda_bytes": 512, "vdb_requests": 1, "vdb_bytes": 512}
	if got := after.Since(before); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
