package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

var thing = Kind{"thing", 2, 64}

func read(t *testing.T, d Dir) string {
	t.Helper()
	_, body, err := d.Read("a", thing)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestKilledAtEachStep: whoever looks afterwards finds the old content or the new
// one, and the new one after the name was changed.
func TestKilledAtEachStep(t *testing.T) {
	for i, at := range append(Steps, "") {
		d := Dir{Path: t.TempDir()}
		if err := d.Write("a", thing, []byte("old")); err != nil {
			t.Fatal(err)
		}
		var seen []string
		killed := d
		killed.Step = func(step string) error {
			seen = append(seen, step)
			if step == at {
				runtime.Goexit() // without whatever would clean up
			}
			return nil
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = killed.Write("a", thing, []byte("new"))
		}()
		<-done
		if want := Steps[:min(i+1, len(Steps))]; fmt.Sprint(seen) != fmt.Sprint(want) {
			t.Fatalf("%s: steps %v, want %v", at, seen, want)
		}
		want := "old"
		if i > 4 {
			want = "new"
		}
		if got := read(t, d); got != want {
			t.Errorf("killed before %q: %q, want %q", at, got, want)
		}
		// The next program removes what is left, and goes on.
		if err := errors.Join(d.Make(), d.Write("a", thing, []byte("newer"))); err != nil {
			t.Error(err)
		}
		if got := read(t, d); got != "newer" {
			t.Errorf("after %q: %q", at, got)
		}
		if names, err := d.Names(""); len(names) != 1 || err != nil {
			t.Errorf("after %q: %v, %v", at, names, err)
		}
	}
}

// TestShortage: a disk that is full, or does not answer, costs nothing that was
// there, and leaves nothing behind.
func TestShortage(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO} {
		for i, at := range Steps {
			d := Dir{Path: t.TempDir()}
			if err := d.Write("a", thing, []byte("old")); err != nil {
				t.Fatal(err)
			}
			short := d
			short.Step = func(step string) error {
				if step == at {
					return errno
				}
				return nil
			}
			if err := short.Write("a", thing, []byte("new")); !errors.Is(err, errno) {
				t.Errorf("%s: %v", at, err)
			}
			want := "old"
			if i == len(Steps)-1 {
				want = "new"
			}
			names, err := d.Names("")
			if got := read(t, d); got != want || len(names) != 1 || err != nil {
				t.Errorf("%v at %q: %q, %v, %v", errno, at, got, names, err)
			}
		}
	}
}

func TestDecode(t *testing.T) {
	d := Dir{Path: t.TempDir()}
	if err := d.Write("a", thing, []byte("what is inside\n")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.Path, "a")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(raw) {
		if _, _, err := thing.Decode(raw[:cut]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut off at %d: %v", cut, err)
		}
	}
	for i := range raw {
		for bit := range 8 {
			bad := bytes.Clone(raw)
			bad[i] ^= 1 << bit
			if _, _, err := thing.Decode(bad); err == nil {
				t.Errorf("byte %d, bit %d: not seen", i, bit)
			}
		}
	}
	older, newer, other := thing, thing, thing
	older.Version, newer.Version, other.Name = 1, 3, "other"
	if v, body, err := newer.Decode(raw); v != 2 || string(body) != "what is inside\n" || err != nil {
		t.Errorf("of an older program: %d, %q, %v", v, body, err)
	}
	if _, _, err := older.Decode(raw); !errors.Is(err, ErrNewer) {
		t.Errorf("of a newer program: %v", err)
	}
	if _, _, err := other.Decode(raw); !errors.Is(err, ErrDamaged) {
		t.Errorf("of another kind: %v", err)
	}
	if err := d.Write("a", thing, bytes.Repeat([]byte{'x'}, 65)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if got := read(t, d); got != "what is inside\n" {
		t.Errorf("%q", got)
	}
	if _, _, err := d.Read("b", thing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
}

func TestFolder(t *testing.T) {
	d := Dir{Path: filepath.Join(t.TempDir(), "sub")}
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := d.Write(fmt.Sprintf("%d.x", i), thing, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(d.Trim(".x", 2), d.Remove("none"), d.Remove("3.x")); err != nil {
		t.Fatal(err)
	}
	if names, err := d.Names(".x"); fmt.Sprint(names) != "[4.x]" || err != nil {
		t.Errorf("%v, %v", names, err)
	}
	// The first that was set aside stays, whatever comes.
	for i := range 9 {
		if err := os.WriteFile(filepath.Join(d.Path, "a"), []byte(fmt.Sprint(i)), 0o600); err != nil {
			t.Fatal(err)
		}
		if to, err := d.SetAside("a"); err != nil || !strings.Contains(to, "a.corrupt") {
			t.Errorf("%q, %v", to, err)
		}
	}
	first, err := os.ReadFile(filepath.Join(d.Path, "a.corrupt"))
	if string(first) != "0" || err != nil {
		t.Errorf("%q, %v", first, err)
	}
	if entries, err := os.ReadDir(d.Path); len(entries) != asides+1 || err != nil {
		t.Errorf("%v, %v", entries, err)
	}
}

func FuzzDecode(f *testing.F) {
	raw, err := thing.Encode([]byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte("warmreboot-store thing 1 -1 00000000\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		version, body, err := thing.Decode(raw)
		if err != nil {
			return
		}
		k := thing
		k.Version, k.Limit = version, len(body)
		if again, err := k.Encode(body); err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%q: %q, %v", raw, again, err)
		}
	})
}
