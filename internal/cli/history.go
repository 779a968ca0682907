package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/schedule"
	"github.com/warmreboot/warmreboot/internal/settings"
	"github.com/warmreboot/warmreboot/internal/state"
	"github.com/warmreboot/warmreboot/internal/text"
)

func (e *env) historyCommand() *cli.Command {
	return &cli.Command{
		Name: "history", ArgsUsage: "[DOMAIN]", Usage: "show past reboots: operators', schedules' and the guests' own",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "only those not longer ago than `AGE`, as 36h or 7d"},
			&cli.StringFlag{Name: "by", Usage: "only those of `WHOM`: operator, schedule or guest"},
			&cli.IntFlag{Name: "limit", Value: 50, Usage: "the latest `N`; 0: all"},
			&cli.StringFlag{Name: "state-dir", Value: settings.DefaultStateDir, Usage: "`DIRECTORY` to read if the agent does not run"},
		},
		Action: e.showHistory,
	}
}

func (e *env) showHistory(c *cli.Context) error {
	p, err := parse(c, 0, 1)
	if err != nil {
		return err
	}
	q := api.HistoryQuery{By: api.Origin(c.String("by")), Limit: c.Int("limit")}
	if len(p.args) > 0 {
		q.Domain = p.args[0]
	}
	switch q.By {
	case "", api.ByOperator, api.BySchedule, api.ByGuest:
	default:
		return usagef("--by is %q, must be operator, schedule or guest", q.By)
	}
	if q.Limit < 0 {
		return usagef("--limit must not be negative")
	}
	if s := c.String("since"); s != "" {
		age, err := schedule.ParseDuration(s)
		if err != nil {
			return usagef("--since: %v", err)
		}
		q.Since = time.Now().Add(-age)
	}
	all, err := api.All(e.history(p.string("socket")).History(c.Context, q))
	if isAgentDown(err) {
		all, err = e.historyWithoutAgent(c.Context, c.String("state-dir"), q, err)
	}
	if err != nil {
		return err
	}
	if p.json {
		return e.printJSON(all)
	}
	return e.printHistory(all)
}

// historyWithoutAgent reads the file that a daemon has left. down is the
// daemon's error, which is what counts if there is no file, either.
func (e *env) historyWithoutAgent(ctx context.Context, dir string, q api.HistoryQuery, down error) ([]api.HistoryEntry, error) {
	s, err := state.OpenReadOnly(filepath.Join(dir, state.FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, down
	}
	if err != nil {
		return nil, fmt.Errorf("%w\nwhat it had recorded cannot be read, either: %v", down, err)
	}
	defer s.Close()
	fmt.Fprintf(e.stderr, "warmreboot: %v\nThis is what it had recorded:\n", down)
	return api.All(s.History(ctx, q))
}

func (e *env) printHistory(all []api.HistoryEntry) error {
	w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "STARTED\tDOMAIN\tBY\tTRIGGER\tOUTCOME\tRESTORED\tOF\tDOWN\tNOTE")
	for _, h := range text.Printable(all) {
		by := string(h.By)
		if h.Schedule != "" {
			by += " " + h.Schedule
		}
		started := h.Started
		if started.IsZero() {
			started = h.At
		}
		down := "-"
		if h.DownSeconds > 0 {
			down = fmt.Sprintf("%.1f s", h.DownSeconds)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", clock(started), h.Domain, by,
			h.Trigger, h.Outcome, h.PagesRestored, h.PagesBefore, down, historyNote(h))
	}
	return w.Flush()
}

// historyNote is what an operator should know of an entry, on one line.
func historyNote(h api.HistoryEntry) string {
	var notes []string
	for _, n := range []string{h.Error, h.Reason} {
		if n != "" {
			notes = append(notes, n)
			break
		}
	}
	for _, s := range h.Hooks {
		if !s.OK {
			notes = append(notes, "hook "+s.Name+" failed")
		}
	}
	if h.Health != nil && !h.Health.OK {
		notes = append(notes, "health check failed: "+h.Health.Detail)
	}
	if h.Followed != "" {
		notes = append(notes, h.Followed)
	}
	return strings.ReplaceAll(strings.Join(notes, "; "), "\n", " ")
}
