package api

import (
	"context"
	"net/url"
	"time"

	"github.com/warmreboot/warmreboot/ident"
)

// ConfigStatus is which configuration is in force.
type ConfigStatus struct {
	Dir   string   `json:"dir"`
	Files []string `json:"files"`
	// Loaded is when it was read.
	Loaded time.Time `json:"loaded"`
	// Error is why what is in the directory now is not in force.
	Error  string `json:"error,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"` // of the whole daemon
}

// Forecast is what schedules will do.
type Forecast struct {
	Now    time.Time     `json:"now"`
	Config ConfigStatus  `json:"config"`
	Runs   []PlannedRun  `json:"runs"` // in the order in which they come
	Locks  []LockStatus  `json:"locks"`
	Halted []HaltedRules `json:"stopped"`
}

// PlannedRun is what a schedule will do with a domain.
type PlannedRun struct {
	Schedule string     `json:"schedule"`
	Domain   string     `json:"domain"`
	UUID     ident.UUID `json:"uuid"`
	Mode     Trigger    `json:"mode"`
	// Kernel is what the domain is updated to, unless it has that; "": it is rebooted.
	Kernel string `json:"kernel,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
	// Running: it is being done now.
	Running bool `json:"running,omitempty"`
	// Due is since when; missing if it is not. Then Blocked is why it has not
	// begun.
	Due     time.Time `json:"due,omitzero"`
	Blocked string    `json:"blocked,omitempty"`
	// Next is when it begins if nothing changes; missing if nobody can tell.
	Next time.Time `json:"next,omitzero"`
	Why  string    `json:"why"`
}

// RunResult is how a run of a schedule ended.
type RunResult string

// Results of runs.
const (
	RunWarm      RunResult = "warm"
	RunCold      RunResult = "cold"      // by intent or not
	RunUnhealthy RunResult = "unhealthy" // rebooted, but the health check failed
	RunFailed    RunResult = "failed"    // not rebooted, or nobody knows
	RunMissed    RunResult = "missed"    // left out, as its time was over
	RunCancelled RunResult = "cancelled" // by somebody, before the reboot
)

// RunResults are all of them.
var RunResults = []RunResult{RunWarm, RunCold, RunUnhealthy, RunFailed, RunMissed, RunCancelled}

// RunCount is how often runs of a schedule for a domain have ended in one way,
// since the daemon was started.
type RunCount struct {
	Schedule string
	Domain   string
	UUID     ident.UUID
	Result   RunResult
	Times    uint64
}

// HaltedRules is a schedule that is stopped.
type HaltedRules struct {
	Schedule string `json:"schedule"`
	Why      string `json:"why"`
}

// LockStatus is a lock on a domain.
type LockStatus struct {
	Domain string     `json:"domain"`
	UUID   ident.UUID `json:"uuid"`
	Owner  string     `json:"owner"`
	Reason string     `json:"reason,omitempty"`
	Made   time.Time  `json:"made"`
	// Until is when its time is over, as the clock is now; zero: it has none, as nobody
	// knows what was locked.
	Until time.Time `json:"until"`
	// Operation has the id of the one that has it, and releases it when it ends; missing
	// if somebody took it.
	Operation string `json:"operation,omitempty"`
}

// LockRequest is the body of a POST request.
type LockRequest struct {
	Owner      string  `json:"owner"`
	Reason     string  `json:"reason"`
	TTLSeconds float64 `json:"ttl_seconds"`
}

// Schedules is what the daemon does of itself.
type Schedules interface {
	History
	Config(ctx context.Context) (ConfigStatus, error)
	// Forecast is about one domain, or all if it is "".
	Forecast(ctx context.Context, domain string) (Forecast, error)
	// Lock fails with code Locked if somebody else has it.
	Lock(ctx context.Context, domain string, r LockRequest) (LockStatus, error)
	// Unlock releases whosever lock; NotFound if there is none.
	Unlock(ctx context.Context, domain string) (LockStatus, error)
	// Resume lets a stopped schedule go on.
	Resume(ctx context.Context, schedule string) (HaltedRules, error)
}

// Config implements Schedules.
func (c *Client) Config(ctx context.Context) (ConfigStatus, error) {
	return call[ConfigStatus](ctx, c, "GET", "/v1/config", nil, nil)
}

// Forecast implements Schedules.
func (c *Client) Forecast(ctx context.Context, domain string) (Forecast, error) {
	return call[Forecast](ctx, c, "GET", "/v1/forecast", url.Values{"domain": {domain}}, nil)
}

// Lock implements Schedules.
func (c *Client) Lock(ctx context.Context, domain string, r LockRequest) (LockStatus, error) {
	return call[LockStatus](ctx, c, "POST", domainPath(domain, "lock"), nil, r)
}

// Unlock implements Schedules.
func (c *Client) Unlock(ctx context.Context, domain string) (LockStatus, error) {
	return call[LockStatus](ctx, c, "POST", domainPath(domain, "unlock"), nil, nil)
}

// Resume implements Schedules.
func (c *Client) Resume(ctx context.Context, schedule string) (HaltedRules, error) {
	return call[HaltedRules](ctx, c, "POST", "/v1/schedules/"+segment(schedule)+"/resume", nil, nil)
}
