package api

import (
	"context"
	"iter"
	"net/url"
	"strconv"
	"time"

	"github.com/warmreboot/warmreboot/ident"
)

// Origin is who wanted a reboot.
type Origin string

// Origins.
const (
	ByOperator Origin = "operator" // on the command line
	BySchedule Origin = "schedule"
	ByGuest    Origin = "guest" // its own doing, a crash, or xl's: nobody asked warmreboot
)

// HistoryEntry is one reboot, or one that was to be and did not happen.
type HistoryEntry struct {
	// ID counts all entries of a host; it never comes again.
	ID uint64 `json:"id"`
	// At is when the entry was made: when the reboot had ended.
	At time.Time `json:"at"`
	// Summary has the figures. Outcome is "failed" if the domain did not go
	// down, did not come back, or was not even asked to; Error says why.
	Summary
	Error string `json:"error,omitempty"`
	// Operation is the id of the one that it was part of.
	Operation string `json:"operation,omitempty"`
	// Hooks and Health are what a schedule had run around the reboot.
	Hooks  []StepResult `json:"hooks,omitempty"`
	Health *StepResult  `json:"health,omitempty"`
	// Followed is what was done about a failed health check.
	Followed string `json:"followed,omitempty"`
}

// StepResult is how a hook or a health check ended.
type StepResult struct {
	Name    string    `json:"name"` // "before", "after", "health"
	What    string    `json:"what"` // the command, URL or address
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	OK      bool      `json:"ok"`
	// Detail is the end of a command's output, or what was wrong.
	Detail string `json:"detail,omitempty"`
}

// HistoryQuery selects entries; what is zero selects nothing away.
type HistoryQuery struct {
	// Domain is a name or a UUID; the name is the one at the time.
	Domain string
	Since  time.Time
	By     Origin
	// Before selects those with a lower ID: the next page, after the last entry of one.
	Before uint64
	// Limit is how many of the latest are wanted; 0: all.
	Limit int
}

// Matches reports whether an entry is selected, Limit aside.
func (q HistoryQuery) Matches(e *HistoryEntry) bool {
	if q.Domain != "" && !ident.SameName(e.Domain, q.Domain) {
		if u, err := ident.ParseUUID(q.Domain); err != nil || u != e.UUID {
			return false
		}
	}
	return !e.At.Before(q.Since) && (q.By == "" || q.By == e.By) && (q.Before == 0 || e.ID < q.Before)
}

// History is what the daemon knows of past reboots.
type History interface {
	// History yields the selected entries, the latest first. An error is the last.
	History(ctx context.Context, q HistoryQuery) iter.Seq2[HistoryEntry, error]
}

// All collects what is yielded. With an error, what came before it is returned, too.
func All[T any](items iter.Seq2[T, error]) ([]T, error) {
	all := []T{}
	for item, err := range items {
		if err != nil {
			return all, err
		}
		all = append(all, item)
	}
	return all, nil
}

func (q HistoryQuery) values() url.Values {
	v := url.Values{}
	if q.Domain != "" {
		v.Set("domain", q.Domain)
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	if q.By != "" {
		v.Set("by", string(q.By))
	}
	if q.Before != 0 {
		v.Set("before", strconv.FormatUint(q.Before, 10))
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// History implements History.
func (c *Client) History(ctx context.Context, q HistoryQuery) iter.Seq2[HistoryEntry, error] {
	return follow[HistoryEntry](ctx, c, "/v1/history", q.values())
}
