package hand

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/tests/faults/guest"
)

// listen returns a domU of which the console's file is given, and what appends
// to that file.
func listen(t *testing.T) (*domU, func(text string)) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "guest.log"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Open(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	changes, err := watch(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close(); log.Close(); changes.Close() })
	return &domU{log: log, changes: changes}, func(text string) {
		if _, err := file.WriteString(text); err != nil {
			t.Error(err)
		}
	}
}

func TestAwait(t *testing.T) {
	d, print := listen(t)
	print("[    0.1] boot\nhand: up\n")
	if _, ok := d.await(guest.SayUp, time.Second); !ok {
		t.Error("what was printed before was not found")
	}
	if _, ok := d.await(guest.SayUp, 10*time.Millisecond); ok {
		t.Error("one line was found twice")
	}
	go func() {
		print("[    0.2] noise hand: pre")
		print("pared [1")
		time.Sleep(20 * time.Millisecond)
		print(",2]\r\nmore\n")
	}()
	var inodes []uint64
	if err := d.awaitJSON(guest.SayPrepared, 10*time.Second, &inodes); err != nil || len(inodes) != 2 {
		t.Errorf("%v, %v", inodes, err)
	}
	if err := d.awaitJSON(guest.SaySeen, 10*time.Millisecond, &inodes); err == nil {
		t.Error("an answer was found that was not given")
	}
}
