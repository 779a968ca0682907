package hand

import (
	"context"
	"fmt"
	"net"
	"time"
)

// Await returns when somebody listens at a TCP address, or after patience. Asked
// from the host instead, ten times as often by the clock of this machine, the
// question would take much of what there is of a processor.
func Await(ctx context.Context, address string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		conn, err := (&net.Dialer{Timeout: 200 * time.Millisecond}).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("await %s: %w", address, err)
		case <-time.After(100 * time.Millisecond): // nothing tells that it is up
		}
	}
}
