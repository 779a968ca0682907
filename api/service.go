package api

import "context"

// Service is what the daemon does with a domain at once. Domains are named by name,
// domid or UUID, see ident.Ref. Errors that are no *Error count as Failed.
type Service interface {
	List(ctx context.Context) ([]DomainStatus, error)
	// Status returns at once, or, with wait, when no reboot is under way.
	Status(ctx context.Context, domain string, wait bool) (DomainStatus, error)
	Enable(ctx context.Context, domain string, p Policy) (DomainStatus, error)
	Disable(ctx context.Context, domain string) (DomainStatus, error)
	Drop(ctx context.Context, domain string) (DropResult, error)
}
