package command

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/checkpoint/stream"
)

const uuid = "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b01"

// saved makes a file like xl save's. What is nil in pages is allocated.
func saved(t *testing.T, pages map[uint32][]byte) []byte {
	t.Helper()
	params := binary.LittleEndian.AppendUint64(nil, 1)
	params = binary.LittleEndian.AppendUint64(params, 1)
	params = binary.LittleEndian.AppendUint64(params, 0xfeffc)
	cpu := make([]byte, 8+1024+8)
	binary.LittleEndian.PutUint16(cpu, 2)
	binary.LittleEndian.PutUint32(cpu[4:], 1024)
	binary.LittleEndian.PutUint64(cpu[8+640:], 0xffffffff81000000)
	s := &stream.State{Config: []byte(`{"c_info":{"type":"pvh","name":"web","uuid":"` + uuid + `"}}`), XenMajor: 4, XenMinor: 20,
		Static: []stream.Record{{Type: stream.RecCPUIDPolicy, Body: make([]byte, 24)}},
		Rest:   []stream.Record{{Type: stream.RecHVMParams, Body: params}, {Type: stream.RecHVMContext, Body: cpu}}}
	var out bytes.Buffer
	w := stream.NewWriter(&out, s)
	for pfn := range uint32(300) {
		b, ok := pages[pfn]
		if !ok {
			continue
		}
		p := stream.Page{PFN: ident.PFN(pfn), Kind: stream.Data, Data: b}
		if b == nil {
			p.Kind = stream.Allocated
		}
		if err := w.Page(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func page(text string) []byte {
	b := make([]byte, 4096)
	copy(b, text)
	return b
}

type bench struct {
	t    *testing.T
	root string
}

// run runs a command, which must end with that code, and returns its output.
func (b bench) run(code int, stdin []byte, args ...string) string {
	b.t.Helper()
	var out, errs bytes.Buffer
	got := Main(append([]string{"warmcheckpoint", "--store", b.root}, args...), bytes.NewReader(stdin), &out, &errs)
	if got != code {
		b.t.Fatalf("%q: exit code %d, want %d: %s", args, got, code, errs.String())
	}
	if code == 0 {
		return out.String()
	}
	return errs.String()
}

// ten are ten checkpoints of one domain: page 5 counts, page 7 changes at 4 and 8,
// page 9 has the word "leak" from 6 on, page 20 is there up to 3.
func ten(t *testing.T) (bench, [][]byte) {
	b := bench{t, filepath.Join(t.TempDir(), "checkpoints")}
	var files [][]byte
	for n := 1; n <= 10; n++ {
		pages := map[uint32][]byte{0: page("first"), 1: page(""), 2: nil, 5: page(fmt.Sprint(n)), 7: page("seven"), 9: page("nine")}
		pages[100] = append([]byte("OSRELEASE=6.12.1\nPAGESIZE=4096\n"), make([]byte, 4096-31)...)
		if n >= 4 {
			pages[7] = page("seven at four")
		}
		if n >= 8 {
			pages[7] = page("seven at eight")
		}
		if n >= 6 {
			pages[9] = page("a leak")
		}
		if n <= 3 {
			pages[20] = page("secret")
		}
		f := saved(t, pages)
		files = append(files, f)
		got := b.run(0, f, "import", "--time", fmt.Sprintf("2026-11-30T%02d:00:00Z", n), "--label", "n", "-")
		if !strings.HasPrefix(got, fmt.Sprintf("web@%d: ", n)) {
			t.Fatal(got)
		}
	}
	return b, files
}

// TestXL: what is exported is what was imported, byte by byte.
func TestXL(t *testing.T) {
	b, files := ten(t)
	for n, want := range files {
		if got := b.run(0, nil, "export", fmt.Sprintf("web@%d", n+1)); got != string(want) {
			t.Errorf("checkpoint %d is exported as something else", n+1)
		}
	}
	if got := b.run(0, nil, "export", uuid+"@last"); got != string(files[9]) {
		t.Error("the last one by UUID")
	}
	if n := strings.Count(b.run(0, nil, "list", "web"), "web@"); n != 10 {
		t.Errorf("%d in the list", n)
	}
	b.run(0, nil, "verify")
	file := filepath.Join(t.TempDir(), "out")
	b.run(0, nil, "export", "-o", file, "web@3")
	st, err := os.Stat(file)
	if err != nil || st.Mode() != 0o600 || st.Size() != int64(len(files[2])) {
		t.Error(st, err)
	}
	b.run(exitFailure, nil, "export", "-o", file, "web@3") // it is there
}

func TestMemoryAndCore(t *testing.T) {
	b, _ := ten(t)
	mem := b.run(0, nil, "export", "--format", "mem", "web@2")
	if len(mem) != 101*4096 || !strings.HasPrefix(mem[5*4096:], "2\x00") || strings.Trim(mem[2*4096:5*4096], "\x00") != "" {
		t.Error("memory is not as it was")
	}
	file := filepath.Join(t.TempDir(), "mem")
	b.run(0, nil, "export", "--format", "mem", "-o", file, "web@2")
	if raw, err := os.ReadFile(file); err != nil || string(raw) != mem {
		t.Error("the file with holes is not the same", err)
	}
	core := b.run(0, nil, "export", "--format", "vmcore", "web@2")
	if !strings.HasPrefix(core, "\x7fELF") || !strings.Contains(core, "VMCOREINFO\x00\x00OSRELEASE=6.12.1\n") {
		t.Error("no core file")
	}
	if got := b.run(0, nil, "cat", "--pfn", "0x5", "web@8"); !strings.HasPrefix(got, "8\x00") || len(got) != 4096 {
		t.Errorf("%.10q", got)
	}
	b.run(exitNotFound, nil, "cat", "--pfn", "2", "web@8")
	b.run(exitNotFound, nil, "cat", "--pfn", "20", "web@8")
	b.run(exitUsage, nil, "export", "--format", "zip", "web@2")
}

func TestSearch(t *testing.T) {
	b, _ := ten(t)
	if got := b.run(0, nil, "diff", "web@3", "web@8"); got != "0x5-0x6 1\n0x7-0x8 1\n0x9-0xa 1\n0x14-0x15 1\n" {
		t.Errorf("%q", got)
	}
	if got := b.run(0, nil, "diff", "--count", "web@9", "@10"); got != "1\n" {
		t.Errorf("%q", got)
	}
	got := b.run(0, nil, "log", "--pfn", "7", "web")
	if n := strings.Count(got, "web@"); n != 3 || !strings.Contains(got, "web@4 ") || !strings.Contains(got, "web@8 ") {
		t.Errorf("%q", got)
	}
	if got := b.run(0, nil, "grep", "--first", "web", "leak"); !strings.HasPrefix(got, "web@6 ") || !strings.HasSuffix(got, "pfn 0x9 offset 2\n") {
		t.Errorf("%q", got)
	}
	if got := b.run(0, nil, "grep", "--hex", "web", "736563726574"); !strings.HasPrefix(got, "web@1 ") {
		t.Errorf("%q", got)
	}
	b.run(exitNotFound, nil, "grep", "web", "nowhere to be found")
}

func TestBisect(t *testing.T) {
	b, _ := ten(t)
	is := "! grep -q leak"
	for _, format := range []string{"mem", "vmcore"} {
		got := b.run(0, nil, "bisect", "--format", format, "web@1", "web@10", "--", "sh", "-c", is+` "$0"`)
		if !strings.HasPrefix(got, "web@6 is the first bad one") {
			t.Errorf("%s: %q", format, got)
		}
	}
	got := b.run(0, nil, "bisect", "--pfn", "9", "web@1", "web@10", "--", "sh", "-c", is+` "$0"`)
	if !strings.HasPrefix(got, "web@6 is the first bad one") || !strings.Contains(got, " 0 looked at") {
		t.Errorf("%q", got) // there are two versions only, the good one and the bad one
	}
	got = b.run(0, nil, "bisect", "--pfn", "5", "web@1", "web@10", "--", "sh", "-c", `n=$(tr -d '\0' <"$0"); [ $n != 5 ] || exit 125; [ $n -lt 5 ]`)
	if got != "the first bad one is among web@5 to @6; for 1 the command couldn't say\n" {
		t.Errorf("%q", got)
	}
	b.run(exitFailure, nil, "bisect", "web@1", "web@10", "--", "sh", "-c", "exit 200")
	b.run(exitFailure, nil, "bisect", "web@1", "web@10", "--", "/no/such/command")
	b.run(exitNotFound, nil, "bisect", "--pfn", "0", "web@1", "web@10", "--", "true")
	b.run(exitUsage, nil, "bisect", "web@9", "web@2", "--", "true")
}

func TestFirstBad(t *testing.T) {
	for n := 2; n < 70; n++ {
		for want := 1; want < n; want++ {
			probes := 0
			_, got, err := firstBad(n, func(i int) (verdict, error) {
				probes++
				if i >= want {
					return bad, nil
				}
				return good, nil
			})
			if err != nil || got != want || 1<<probes > 4*n {
				t.Fatalf("%d of %d: %d in %d probes, %v", want, n, got, probes, err)
			}
		}
	}
	wrong := errors.New("wrong")
	if _, _, err := firstBad(9, func(int) (verdict, error) { return bad, wrong }); err != wrong {
		t.Error(err)
	}
	lo, hi, err := firstBad(100, func(int) (verdict, error) { return skip, nil })
	if lo != 0 || hi != 99 || err != nil {
		t.Error(lo, hi, err)
	}
}

func TestForget(t *testing.T) {
	b, files := ten(t)
	if got := b.run(0, nil, "forget", "--dry-run", "--keep-last", "3", "web"); strings.Count(got, "web@") != 7 {
		t.Errorf("%q", got)
	}
	b.run(0, nil, "forget", "--keep-last", "3", "web")
	if n := strings.Count(b.run(0, nil, "list"), "web@"); n != 3 {
		t.Errorf("%d left", n)
	}
	for n := 8; n <= 10; n++ {
		if b.run(0, nil, "export", fmt.Sprintf("web@%d", n)) != string(files[n-1]) {
			t.Errorf("checkpoint %d is another one now", n)
		}
	}
	b.run(exitNotFound, nil, "export", "web@2")
	b.run(exitNotFound, nil, "forget", "web@2")
	b.run(exitNotFound, nil, "grep", "web", "secret")
	b.run(0, nil, "forget", "web@9", "web@last")
	got := b.run(0, nil, "log", "--pfn", "5", "web")
	if strings.Count(got, "web@") != 1 {
		t.Errorf("%q", got)
	}
	if got := b.run(0, files[0], "import", "-"); !strings.HasPrefix(got, "web@11: ") {
		t.Errorf("a number was used again: %q", got)
	}
	b.run(0, nil, "verify", "web")
}

// TestRefused: a file that is cut short leaves no checkpoint, and the command line
// says what is wrong with it.
func TestRefused(t *testing.T) {
	b, files := ten(t)
	for _, n := range []int{10, len(files[0]) / 2, len(files[0]) - 1} {
		b.run(exitFailure, files[0][:n], "import", "-")
	}
	if n := strings.Count(b.run(0, nil, "list"), "web@"); n != 10 {
		t.Errorf("%d in the list", n)
	}
	if got := b.run(0, files[0], "import", "-"); !strings.HasPrefix(got, "web@11: ") {
		t.Errorf("%q", got)
	}
	for _, a := range [][]string{{"import"}, {"import", "a", "b"}, {"import", "--time", "today", "-"}, {"nonsense"}, {"export", "web"}, {"export", "web@x"},
		{"log", "--pfn", "x", "web"}, {"forget"}, {"forget", "web"}, {"forget", "--keep-last", "-1", "web"}, {"export", "web@1", "--format"}, {"list", "a", "b"},
		{"bisect", "web@1", "web@2"}, {"--nonsense"}, {"diff", "web@1", "other@2"}} {
		b.run(exitUsage, files[0], a...)
	}
	b.run(exitNotFound, nil, "list", "nobody")
	b.run(exitNotFound, nil, "export", "web@99")
	b.run(exitFailure, nil, "import", "/no/such/file")
	log := filepath.Join(b.root, uuid, "seg-0000000001.log")
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 4
	if err := os.WriteFile(log, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	b.run(exitDamaged, nil, "verify")
}
