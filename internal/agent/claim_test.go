package agent

import (
	"context"
	"testing"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/internal/reboot"
	"github.com/warmreboot/warmreboot/xenctl"
)

// TestUnknownClaim: what nobody vouches for is refused, whatever is known of disks.
func TestUnknownClaim(t *testing.T) {
	k := &keeper{a: &Agent{}, rec: &Record{State: reboot.State{Reboot: &reboot.Reboot{}}}}
	v := &verdict{claim: reboot.Claim{Kind: "other"}, approve: true}
	k.judge(context.Background(), xenctl.DomainInfo{}, v, nil, nil, false)
	if v.approve || v.why != api.Failure || v.Reason == "" {
		t.Errorf("%+v", v)
	}
	if _, err := k.tell(1, v.claim, xenctl.Approved); err == nil {
		t.Error("approved")
	}
}
