// Package health tells whether a domain is well after a reboot: by HTTP, TCP, what its
// guest says in xenstore, or a program of the operator's.
package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/internal/config"
)

// attemptLimit bounds one attempt of a health check.
const attemptLimit = 30 * time.Second

// Subject is the domain that is asked after.
type Subject struct {
	// Expand is for URLs, addresses and arguments; Env is a program's environment.
	Expand func(string) string
	Env    []string
	// Said returns what its guest, as it runs now, has written at a path of xenstore below
	// the domain's own.
	Said func(ctx context.Context, path string) (string, error)
}

// Await tries a health check until it succeeds, or its time is over; then the
// error is that of the last attempt.
func Await(ctx context.Context, h *config.Health, s Subject) error {
	limited, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	deadline, _ := limited.Deadline()
	t := time.NewTicker(h.Interval)
	defer t.Stop()
	var last error
	for {
		attempt, end := context.WithTimeout(limited, attemptLimit)
		err := attemptHealth(attempt, h, s)
		end()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case last == nil || time.Now().Before(deadline): // not that its time was over
			last = err
		}
		select {
		case <-t.C:
		case <-limited.Done():
			return fmt.Errorf("not well after %v: %w", h.Timeout, last)
		}
	}
}

func attemptHealth(ctx context.Context, h *config.Health, s Subject) error {
	expand := s.Expand
	switch {
	case h.Xenstore != "":
		text, err := s.Said(ctx, h.Xenstore)
		if err == nil && strings.TrimSpace(text) == "1" {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return fmt.Errorf("the guest has not written 1 to %s in xenstore", h.Xenstore)
	case h.HTTP != "":
		status, err := Get(ctx, expand(h.HTTP))
		if err != nil {
			return err
		}
		if len(h.Status) > 0 && !slices.Contains(h.Status, status) || len(h.Status) == 0 && status/100 != 2 {
			return fmt.Errorf("%s answers %d %s", expand(h.HTTP), status, http.StatusText(status))
		}
		return nil
	case h.TCP != "":
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", expand(h.TCP))
		if err != nil {
			return err
		}
		return c.Close()
	}
	_, output, err := Command(ctx, ExpandAll(h.Args, expand), s.Env, attemptLimit)
	if err != nil && output != "" {
		err = fmt.Errorf("%w: %s", err, LastLine(output))
	}
	return err
}

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 16 << 20

// Get reads all of an answer. Redirections are answers; a connection is not used
// twice: it may be to a domain that is no more.
func Get(ctx context.Context, url string) (status int, err error) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && n > maxAnswer {
		err = errors.New("the answer is too long")
	}
	return resp.StatusCode, err
}

// ExpandAll expands each argument of a command.
func ExpandAll(args []string, expand func(string) string) []string {
	var all []string
	for _, a := range args {
		all = append(all, expand(a))
	}
	return all
}

// LastLine returns the last line of a command's output.
func LastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }
