// Package xenstore is a client of xenstored: read, write, swap, list, remove and
// watch. It knows no node by name.
//
// Errors wrap the errno that xenstored answered with; errors.Is(err,
// fs.ErrNotExist) holds for a node that is not there.
package xenstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Where xenstored is reached: its socket in dom0, or the kernel's ring.
var (
	socketPaths = []string{"/run/xenstored/socket", "/var/run/xenstored/socket"}
	devicePaths = []string{"/dev/xen/xenbus", "/proc/xen/xenbus"}
)

// ErrClosed: the connection was closed, or has failed.
var ErrClosed = errors.New("xenstore: connection closed")

// Client is a connection to xenstored. Its methods may be called
// concurrently; each waits for its answer.
type Client struct {
	conn io.ReadWriteCloser

	send sync.Mutex // a message is written whole

	mu      sync.Mutex
	nextID  uint32
	replies map[uint32]chan message
	watches map[string]*Watch // by token
	err     error             // set once, when the connection ends
	done    chan struct{}
}

// Open connects to xenstored.
func Open() (*Client, error) {
	var first error
	for _, path := range socketPaths {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return NewClient(conn), nil
		}
		if first == nil {
			first = err
		}
	}
	for _, path := range devicePaths {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			return NewClient(f), nil
		}
	}
	return nil, fmt.Errorf("xenstore: %w", first)
}

// NewClient speaks the protocol over conn, which it owns from then on.
func NewClient(conn io.ReadWriteCloser) *Client {
	c := &Client{conn: conn, replies: map[uint32]chan message{},
		watches: map[string]*Watch{}, done: make(chan struct{})}
	go c.receive()
	return c
}

// Close ends the connection; calls that wait return ErrClosed.
func (c *Client) Close() error {
	err := c.conn.Close()
	c.fail(ErrClosed)
	return err
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.done)
	}
}

func (c *Client) receive() {
	for {
		m, err := readMessage(c.conn)
		if err != nil {
			c.fail(fmt.Errorf("%w: %w", ErrClosed, err))
			return
		}
		if m.typ == opWatchEvent {
			c.event(m.payload)
			continue
		}
		c.mu.Lock()
		ch := c.replies[m.reqID]
		delete(c.replies, m.reqID)
		c.mu.Unlock()
		if ch != nil {
			ch <- m
		}
	}
}

func (c *Client) event(payload []byte) {
	s := splitStrings(payload)
	if len(s) < 2 {
		return
	}
	c.mu.Lock()
	w := c.watches[s[1]]
	c.mu.Unlock()
	if w != nil {
		w.notify(s[0])
	}
}

// call sends a request made of parts, joined as they are.
func (c *Client) call(ctx context.Context, typ uint32, op, path string, parts ...string) ([]byte, error) {
	return c.within(ctx, 0, typ, op, path, parts...)
}

// within is call, in a transaction, unless that is 0.
func (c *Client) within(ctx context.Context, transaction, typ uint32, op, path string, parts ...string) ([]byte, error) {
	ch := make(chan message, 1)
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	c.nextID++
	id := c.nextID
	c.replies[id] = ch
	c.mu.Unlock()

	drop := func() {
		c.mu.Lock()
		delete(c.replies, id)
		c.mu.Unlock()
	}
	raw, err := message{typ: typ, reqID: id, txID: transaction, payload: []byte(strings.Join(parts, ""))}.encode()
	if err != nil {
		drop()
		return nil, fmt.Errorf("%s %s: %w", op, path, err)
	}
	c.send.Lock()
	_, err = c.conn.Write(raw)
	c.send.Unlock()
	if err != nil {
		drop()
		c.fail(fmt.Errorf("%w: %w", ErrClosed, err))
		return nil, fmt.Errorf("%s %s: %w", op, path, err)
	}
	select {
	case m := <-ch:
		if m.typ == opError {
			name := strings.TrimRight(string(m.payload), "\x00")
			errno, ok := errnoByName[name]
			if !ok {
				return nil, fmt.Errorf("xenstore: %s %s: error %q", op, path, name)
			}
			return nil, fmt.Errorf("xenstore: %s %s: %w", op, path, errno)
		}
		if m.typ != typ {
			return nil, fmt.Errorf("xenstore: %s %s: answer of type %d: %w", op, path, m.typ, unix.EPROTO)
		}
		return m.payload, nil
	case <-ctx.Done():
		drop()
		return nil, fmt.Errorf("xenstore: %s %s: %w", op, path, ctx.Err())
	case <-c.done:
		return nil, fmt.Errorf("xenstore: %s %s: %w", op, path, ErrClosed)
	}
}

// Read returns a node's value.
func (c *Client) Read(ctx context.Context, path string) (string, error) {
	b, err := c.call(ctx, opRead, "read", path, path, "\x00")
	return string(b), err
}

// Write sets a node's value; it makes the node and its parents if need be.
func (c *Client) Write(ctx context.Context, path, value string) error {
	_, err := c.call(ctx, opWrite, "write", path, path, "\x00", value)
	return err
}

// swapTries is how often a transaction is begun anew that somebody else's write has
// come between.
const swapTries = 16

// Swap sets a node's value if it is old, at one go, and returns whether it was. A node that
// is not there is "".
func (c *Client) Swap(ctx context.Context, path, old, value string) (swapped bool, err error) {
	for range swapTries {
		swapped, err = c.trySwap(ctx, path, old, value)
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return swapped && err == nil, err
}

func (c *Client) trySwap(ctx context.Context, path, old, value string) (bool, error) {
	b, err := c.call(ctx, opBegin, "begin", path, "\x00")
	if err != nil {
		return false, err
	}
	n, err := strconv.ParseUint(strings.TrimRight(string(b), "\x00"), 10, 32)
	if err != nil {
		return false, fmt.Errorf("xenstore: begin %s: transaction %q: %w", path, b, unix.EPROTO)
	}
	tx := uint32(n)
	is, err := c.within(ctx, tx, opRead, "read", path, path, "\x00")
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	same := string(is) == old
	if err == nil && same {
		_, err = c.within(ctx, tx, opWrite, "write", path, path, "\x00", value)
	}
	end := "T\x00"
	if err != nil || !same {
		end = "F\x00"
	}
	_, ended := c.within(context.WithoutCancel(ctx), tx, opEnd, "end", path, end) // or xenstored would keep it
	if err == nil {
		err = ended
	}
	return same, err
}

// Directory returns the names of a node's children, in no order.
func (c *Client) Directory(ctx context.Context, path string) ([]string, error) {
	b, err := c.call(ctx, opDirectory, "directory", path, path, "\x00")
	return splitStrings(b), err
}

// Remove removes a node and its children.
func (c *Client) Remove(ctx context.Context, path string) error {
	_, err := c.call(ctx, opRm, "rm", path, path, "\x00")
	return err
}

// Introduced reports whether the toolstack has introduced a domain to
// xenstored, which it does when the domain's memory has been built.
func (c *Client) Introduced(ctx context.Context, domid uint16) (bool, error) {
	id := strconv.Itoa(int(domid))
	b, err := c.call(ctx, opIntroduced, "is-domain-introduced", id, id, "\x00")
	return strings.HasPrefix(string(b), "T"), err
}

// Watch is a subscription to changes at and below a node.
type Watch struct {
	// C has an element when something has changed since Changed was last called.
	C <-chan struct{}

	client      *Client
	path, token string
	c           chan struct{}

	mu      sync.Mutex
	changed map[string]bool
	many    bool
}

// mostChanged bounds how many paths are remembered between two calls of Changed.
const mostChanged = 1024

func (w *Watch) notify(path string) {
	w.mu.Lock()
	if w.changed == nil {
		w.changed = map[string]bool{}
	}
	if w.changed[path] = true; len(w.changed) > mostChanged {
		w.changed, w.many = nil, true
	}
	w.mu.Unlock()
	select {
	case w.c <- struct{}{}:
	default:
	}
}

// Changed returns the paths that have changed since it was last called: the path of
// the subscription itself at first. If they are too many to be named, many is true,
// and anything may have changed.
func (w *Watch) Changed() (paths []string, many bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	paths, many = slices.Collect(maps.Keys(w.changed)), w.many
	w.changed, w.many = nil, false
	return paths, many
}

// Watch subscribes to a node, or to @introduceDomain or @releaseDomain. The
// first event comes at once.
func (c *Client) Watch(ctx context.Context, path string) (*Watch, error) {
	ch := make(chan struct{}, 1)
	c.mu.Lock()
	c.nextID++
	w := &Watch{C: ch, c: ch, client: c, path: path, token: "w" + strconv.FormatUint(uint64(c.nextID), 10)}
	c.watches[w.token] = w
	c.mu.Unlock()
	if _, err := c.call(ctx, opWatch, "watch", path, path, "\x00", w.token, "\x00"); err != nil {
		c.forget(w)
		return nil, err
	}
	return w, nil
}

func (c *Client) forget(w *Watch) {
	c.mu.Lock()
	delete(c.watches, w.token)
	c.mu.Unlock()
}

// Stop ends the subscription.
func (w *Watch) Stop(ctx context.Context) error {
	_, err := w.client.call(ctx, opUnwatch, "unwatch", w.path, w.path, "\x00", w.token, "\x00")
	w.client.forget(w)
	return err
}
