package api

import "context"

// Service is what the daemon can do. Domains are named by name, domid or UUID.
// Errors that are no *Error count as Failed.
type Service interface {
	List(ctx context.Context) ([]DomainStatus, error)
	// Status returns at once, or, with wait, when no reboot is under way.
	Status(ctx context.Context, domain string, wait bool) (DomainStatus, error)
	Enable(ctx context.Context, domain string, p Policy) (DomainStatus, error)
	Disable(ctx context.Context, domain string) (DomainStatus, error)
	Drop(ctx context.Context, domain string) (DropResult, error)
	Plan(ctx context.Context, domain string, mode Trigger) (Plan, error)
	// Reboot returns when the reboot has ended, or ctx has. In the latter case
	// the error is TimedOut and the summary says how far it got.
	Reboot(ctx context.Context, domain string, mode Trigger) (Summary, error)
}
