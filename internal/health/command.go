package health

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// MaxOutput is how much of a command's output is kept: its end, in bytes.
const MaxOutput = 4 << 10

// tail keeps the end of what is written to it. os/exec copies each stream in a
// goroutine of its own, so it may be written to from several.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b) - MaxOutput; n > 0 {
		t.b = append(t.b[:0], t.b[n:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(strings.TrimSpace(string(t.b)), "?")
}

// drainWait is how long after its end a command's output is waited for, if it
// has left somebody behind who holds it open.
const drainWait = time.Second

// Command runs a program without a shell. When ctx ends, or its time is over,
// it is killed with all that it has started, unless that has left its process
// group. output is the end of what it wrote to both streams, out that of stdout.
func Command(ctx context.Context, args, env []string, limit time.Duration) (out, output string, err error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := exec.CommandContext(limited, args[0], args[1:]...)
	var stdout, both tail
	c.Stdout, c.Stderr = twice{&stdout, &both}, &both
	c.Env = env
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = drainWait
	err = c.Run()
	switch {
	case limited.Err() != nil && ctx.Err() == nil:
		err = fmt.Errorf("took longer than %v", limit)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // it has ended well, and left somebody behind
	}
	return stdout.String(), both.String(), err
}

// twice writes to both. The two streams are not one file, so the order between
// them may not be that in which they were written.
type twice struct{ a, b *tail }

func (t twice) Write(p []byte) (int, error) {
	_, _ = t.a.Write(p)
	return t.b.Write(p)
}
