package xenstore

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// serve is a xenstored with a flat store, for the protocol's sake.
func serve(t *testing.T, conn net.Conn) {
	t.Helper()
	store := map[string]string{}
	type watch struct{ path, token string }
	var watches []watch
	transactions := uint32(0)
	pending := func() {}
	between := []func(){func() { store["/swap"] = "others" }} // what comes between the next transactions
	reply := func(m message, typ uint32, payload string) {
		raw, err := message{typ: typ, reqID: m.reqID, payload: []byte(payload)}.encode()
		if err != nil {
			t.Error(err)
		}
		_, _ = conn.Write(raw)
	}
	for {
		m, err := readMessage(conn)
		if err != nil {
			return
		}
		path, rest, _ := strings.Cut(string(m.payload), "\x00")
		switch m.typ {
		case opRead:
			v, ok := store[path]
			if !ok {
				reply(m, opError, "ENOENT\x00")
				continue
			}
			reply(m, opRead, v)
		case opWrite:
			if m.txID != 0 { // it counts from its end on
				pending = func() { store[path] = rest }
				reply(m, opWrite, "OK\x00")
				continue
			}
			store[path] = rest
			reply(m, opWrite, "OK\x00")
			for _, w := range watches {
				if strings.HasPrefix(path, w.path) {
					reply(message{}, opWatchEvent, path+"\x00"+w.token+"\x00")
				}
			}
		case opBegin:
			transactions++
			reply(m, opBegin, strconv.Itoa(int(transactions))+"\x00")
		case opEnd:
			if m.txID != transactions {
				t.Errorf("transaction %d ends, not %d", m.txID, transactions)
			}
			if path == "T" && len(between) > 0 {
				between[0]()
				between, pending = between[1:], func() {}
				reply(m, opError, "EAGAIN\x00")
				continue
			}
			if path == "T" {
				pending()
			}
			pending = func() {}
			reply(m, opEnd, "OK\x00")
		case opDirectory:
			names := ""
			for p := range store {
				if name, ok := strings.CutPrefix(p, path+"/"); ok {
					names += name + "\x00"
				}
			}
			reply(m, opDirectory, names)
		case opRm:
			delete(store, path)
			reply(m, opRm, "OK\x00")
		case opWatch:
			watches = append(watches, watch{path, strings.TrimSuffix(rest, "\x00")})
			reply(m, opWatch, "OK\x00")
		case opIntroduced:
			reply(m, opIntroduced, map[bool]string{true: "T", false: "F"}[path == "7"]+"\x00")
		case opUnwatch:
			watches = nil
			reply(m, opUnwatch, "OK\x00")
		default:
			reply(m, opError, "EFOO\x00")
		}
	}
}

func client(t *testing.T) (*Client, net.Conn) {
	t.Helper()
	a, b := net.Pipe()
	go serve(t, b)
	c := NewClient(a)
	t.Cleanup(func() { c.Close() })
	return c, b
}

func TestClient(t *testing.T) {
	ctx := context.Background()
	c, server := client(t)
	if _, err := c.Read(ctx, "/a"); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, unix.ENOENT) {
		t.Errorf("read of nothing: %v", err)
	}
	w, err := c.Watch(ctx, "/a")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(ctx, "/a/b", "value"); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(ctx, "/a/c", ""); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.C:
	case <-time.After(5 * time.Second):
		t.Fatal("no event")
	}
	if _, err := c.Read(ctx, "/a/b"); err != nil { // the second event has come before its answer
		t.Fatal(err)
	}
	if paths, many := w.Changed(); !slices.Equal(slices.Sorted(slices.Values(paths)), []string{"/a/b", "/a/c"}) || many {
		t.Errorf("changed: %q, %v", paths, many)
	}
	if paths, many := w.Changed(); len(paths) != 0 || many {
		t.Errorf("changed again: %q, %v", paths, many)
	}
	for i := range mostChanged + 5 {
		w.notify(strconv.Itoa(i))
	}
	if paths, many := w.Changed(); len(paths) > mostChanged || !many {
		t.Errorf("%d paths, %v", len(paths), many)
	}
	if v, err := c.Read(ctx, "/a/b"); v != "value" || err != nil {
		t.Errorf("read %q, %v", v, err)
	}
	names, err := c.Directory(ctx, "/a")
	slices.Sort(names)
	if !slices.Equal(names, []string{"b", "c"}) || err != nil {
		t.Errorf("directory %q, %v", names, err)
	}
	if err := c.Remove(ctx, "/a/c"); err != nil {
		t.Error(err)
	}
	for domid, want := range map[uint16]bool{7: true, 8: false} {
		if got, err := c.Introduced(ctx, domid); got != want || err != nil {
			t.Errorf("introduced %d: %v, %v", domid, got, err)
		}
	}
	if err := w.Stop(ctx); err != nil {
		t.Error(err)
	}
	// The first of them fails at its end, as others have written meanwhile.
	for _, s := range []struct {
		old, value string
		want       bool
	}{{"", "mine", false}, {"others", "mine", true}, {"others", "again", false}, {"mine", "", true}, {"", "x", true}} {
		if got, err := c.Swap(ctx, "/swap", s.old, s.value); got != s.want || err != nil {
			t.Errorf("swap %q for %q: %v, %v", s.old, s.value, got, err)
		}
	}
	if v, err := c.Read(ctx, "/swap"); v != "x" || err != nil {
		t.Errorf("swapped: %q, %v", v, err)
	}
	if err := c.Write(ctx, "/a", strings.Repeat("x", payloadMax)); !errors.Is(err, unix.E2BIG) {
		t.Errorf("long write: %v", err)
	}
	if _, err := c.call(ctx, 99, "foo", ""); err == nil {
		t.Error("unknown error accepted")
	}
	server.Close()
	<-c.Done()
	if _, err := c.Read(ctx, "/a/b"); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func TestContext(t *testing.T) {
	a, b := net.Pipe()
	go func() { // takes requests, answers none
		for {
			if _, err := readMessage(b); err != nil {
				return
			}
		}
	}()
	c := NewClient(a)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Read(ctx, "/a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// FuzzReadMessage: whatever the other side sends is either a message that
// encodes to the same bytes, or an error.
func FuzzReadMessage(f *testing.F) {
	m, _ := message{typ: opRead, reqID: 7, payload: []byte("/a\x00")}.encode()
	f.Add(m)
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 20))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := readMessage(bytes.NewReader(raw))
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil || !bytes.HasPrefix(raw, again) {
			t.Fatalf("%q: %v", again, err)
		}
		splitStrings(m.payload)
	})
}
