// Package api is what the CLI and the daemon say to each other: JSON over HTTP
// on a UNIX socket that only root can open.
package api

import (
	"fmt"
	"time"

	"github.com/warmreboot/warmreboot/ident"
)

// Code says what kind of failure an error is; the CLI's exit codes follow it.
type Code string

// Codes.
const (
	Failed        Code = "failed"
	BadRequest    Code = "bad_request"
	NotFound      Code = "not_found"      // no such domain
	NoWarmcache   Code = "no_warmcache"   // Xen has no warm cache
	NotTracked    Code = "not_tracked"    // not enabled, guest kernel does not track, PV guest
	AgentDown     Code = "agent_down"     // the daemon does not answer
	CameBackCold  Code = "came_back_cold" // though warm was asked
	TimedOut      Code = "timeout"        //
	MismatchFound Code = "mismatch_found" // by check
	Locked        Code = "locked"         // something else has it now, or it is outside its window
	Cancelled     Code = "cancelled"      // somebody cancelled the operation
	VersionSkew   Code = "version_skew"   // Xen, the agent and the CLI do not belong together
	FellBack      Code = "fell_back"      // an update ended with the old kernel
	UpdateRefused Code = "refused"        // an update was not even tried
	TrialAgainst  Code = "trial_failed"   // an update's trial on a clone found a reason against
)

// Error is a failure for the operator: what happened, to which domain, and
// what to do next.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	// Hint is what else could be asked for. How that is said is the asker's matter:
	// the command line has options, others have not.
	Hint Hint `json:"hint,omitempty"`
}

// Hint is what could be done about an error, by another request.
type Hint string

// Hints.
const (
	TryForce    Hint = "force"    // the reboot, without the guest's help
	TryCold     Hint = "cold"     // an ordinary reboot
	TryOverride Hint = "override" // in spite of locks and windows
	TryWait     Hint = "wait"     // until the reboot that is under way has ended
)

// Try returns the error with a hint.
func (e *Error) Try(h Hint) *Error {
	with := *e
	with.Hint = h
	return &with
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Trigger is what made a domain reboot.
type Trigger string

// Triggers.
const (
	Graceful Trigger = "graceful" // we asked the guest
	Force    Trigger = "force"    // we shut it down without its help
	Cold     Trigger = "cold"     // a normal reboot was asked for
	Guest    Trigger = "guest"    // the guest rebooted on its own, or xl asked it
	Crash    Trigger = "crash"
	Off      Trigger = "off"     // it switched itself off, or xl shutdown had it do so
	Unknown  Trigger = "unknown" // the agent did not see it
)

// Outcome is how a reboot ended.
type Outcome string

// Outcomes; "" is not yet.
const (
	OutcomeWarm   Outcome = "warm"
	OutcomeCold   Outcome = "cold"
	OutcomeFailed Outcome = "failed" // it did not take place, or nobody knows
	// OutcomeCancelled: it did not take place, as somebody cancelled the operation.
	OutcomeCancelled Outcome = "cancelled"
)

// Outcomes are all of them.
var Outcomes = []Outcome{OutcomeWarm, OutcomeCold, OutcomeFailed, OutcomeCancelled}

// Verdict is what the agent said of the pages of a vbd.
type Verdict string

// Verdicts; "" is none.
const (
	Approved Verdict = "approved"
	Refused  Verdict = "refused"
)

// Summary is the account of one reboot. Counts are pages.
type Summary struct {
	Domain      string      `json:"domain"`
	UUID        ident.UUID  `json:"uuid"`
	DomidBefore ident.Domid `json:"domid_before"`
	DomidAfter  ident.Domid `json:"domid_after"`
	Sequence    uint64      `json:"sequence"`
	Trigger     Trigger     `json:"trigger"`
	By          Origin      `json:"by"`
	Schedule    string      `json:"schedule,omitempty"` // which, if By is BySchedule
	Outcome     Outcome     `json:"outcome"`
	Reason      string      `json:"reason"` // why cold

	PagesBefore    uint64 `json:"pages_before"`    // reusable when the domain went down
	PagesPreserved uint64 `json:"pages_preserved"` // by Xen, when it was destroyed
	PagesAdopted   uint64 `json:"pages_adopted"`   // placed into the new domain
	PagesApproved  uint64 `json:"pages_approved"`  // by this agent
	PagesRestored  uint64 `json:"pages_restored"`  // into the page cache, says the guest

	Refused map[string]uint64 `json:"refused"` // by the guest, by reason
	VBDs    []VBDSummary      `json:"vbds"`

	Started time.Time `json:"started"` // when the domain was seen to go down
	// DownSeconds is from then until the new domain ran, RestoredSeconds until
	// the guest said that no held page is left. 0 if not seen.
	DownSeconds     float64 `json:"down_seconds"`
	RestoredSeconds float64 `json:"restored_seconds"`
	Done            bool    `json:"done"`
}

// VBDSummary is the verdict on the pages of one vbd.
type VBDSummary struct {
	VBD        ident.VBD `json:"vbd"`
	Name       string    `json:"name"`
	Backing    string    `json:"backing"`
	Verdict    Verdict   `json:"verdict"`
	Reason     string    `json:"reason"` // why refused
	Custody    string    `json:"custody,omitempty"`
	Note       string    `json:"note,omitempty"` // what led to the check that was made
	Held       uint64    `json:"held"`
	Checked    uint64    `json:"checked"`
	Mismatches uint64    `json:"mismatches"`
	// Refusals count the pages that were refused or dropped, by reason.
	Refusals Refusals `json:"refusals"`
}

// Counters are those of struct xen_warmcache_status, by their C names.
type Counters struct {
	MaxPFN         uint64 `json:"max_pfn"`
	Pending        uint64 `json:"pending"`
	Preserved      uint64 `json:"preserved"`
	Adopted        uint64 `json:"adopted"`
	LostBusy       uint64 `json:"lost_busy"`
	Registered     uint64 `json:"registered"`
	Commits        uint64 `json:"commits"`
	CommitsIgnored uint64 `json:"commits_ignored"`
	Unregistered   uint64 `json:"unregistered"`
	WriteFaults    uint64 `json:"write_faults"`
	ForeignWrites  uint64 `json:"foreign_writes"`
	P2MChanges     uint64 `json:"p2m_changes"`
	Replaced       uint64 `json:"replaced"`
	Untrackable    uint64 `json:"untrackable"`
	Hypercalls     uint64 `json:"hypercalls"`
}

// Report is the guest's own account, as far as it has got.
type Report struct {
	Held     uint64            `json:"held"`
	Restored uint64            `json:"restored"`
	Refused  map[string]uint64 `json:"refused"`
	Done     bool              `json:"done"`
}

// Policy is how a domain's pages are checked before they are approved.
type Policy struct {
	// Content is "none", "sample=N" or "full": what is compared with the disk
	// if custody of it is certain.
	Content string `json:"content"`
	// Uncertain is "full" or "refuse": what to do if it is not.
	Uncertain string `json:"uncertain"`
	// TTL is how long Xen preserves an image that nobody adopts.
	TTLSeconds uint32 `json:"ttl_seconds"`
}

// DomainStatus is what is known of a domain.
type DomainStatus struct {
	Domain string      `json:"domain"`
	UUID   ident.UUID  `json:"uuid"`
	Domid  ident.Domid `json:"domid"` // 0 if it is down
	// State is running, paused, shutdown, down, or gone: it was suspended, and is saved
	// or runs elsewhere.
	State string `json:"state"`
	// Phase is where a domain that is kept is in its life: running, down, up, judgement,
	// restore, off, away, gone, unseen.
	Phase string `json:"phase,omitempty"`
	// Resumed: the domain was suspended since its boot (saved, migrated or copied), and
	// has not been tracked since.
	Resumed bool   `json:"resumed,omitempty"`
	Type    string `json:"type"` // hvm (also PVH) or pv
	// Unwitnessed: it is down, and was so when the daemon was started. It may have come
	// back before that, and have left again for another host.
	Unwitnessed bool `json:"unwitnessed,omitempty"`
	// Twin is another domain that runs under the same UUID: both are left alone.
	Twin ident.Domid `json:"twin,omitempty"`
	// Toolstack is who creates it again when it reboots: xl, libvirt, "" if unknown
	// or not asked for: only Status has it.
	Toolstack string `json:"toolstack,omitempty"`
	// Service is what it is there for, if it is no guest of an operator's: "xenstore", or
	// "trial" of a clone that an update made.
	// Schedules leave such alone. Stub domains are not listed at all.
	Service string `json:"service,omitempty"`

	// Managed: the agent was told to see to it, by enable.
	Managed    bool   `json:"managed"`
	Enabled    bool   `json:"enabled"`
	Armed      bool   `json:"armed"`
	Attached   bool   `json:"attached"` // the guest kernel tracks
	Committed  uint64 `json:"committed"`
	Held       uint64 `json:"held"`
	ImagePages uint64 `json:"image_pages"`
	// MemoryPages is how many the domain has.
	MemoryPages uint64 `json:"memory_pages"`
	Counters
	Report *Report `json:"report,omitempty"`

	Policy  *Policy      `json:"policy,omitempty"`
	Custody []VBDCustody `json:"custody,omitempty"`
	// Refusals are those of all reboots since the domain was enabled.
	Refusals []VBDRefusals `json:"refusals,omitempty"`
	Current  *Summary      `json:"current,omitempty"` // the reboot under way
	Last     *Summary      `json:"last,omitempty"`
	Message  string        `json:"message,omitempty"` // what an operator should know
}

// VBDCustody is the account of a vbd's disk so far.
type VBDCustody struct {
	VBD     ident.VBD `json:"vbd"`
	Name    string    `json:"name"`
	Backing string    `json:"backing"`
	State   string    `json:"state"`
	Reason  string    `json:"reason,omitempty"`
}

// Plan is what a reboot would do.
type Plan struct {
	Domain  string      `json:"domain"`
	UUID    ident.UUID  `json:"uuid"`
	Domid   ident.Domid `json:"domid"`
	Mode    Trigger     `json:"mode"`
	Policy  *Policy     `json:"policy,omitempty"`
	Pages   uint64      `json:"pages"`
	VBDs    []PlanVBD   `json:"vbds"`
	NotWarm string      `json:"not_warm,omitempty"` // why it would come back cold
	// Joins: the domain is going down by itself, for this reason; nothing would be
	// done but to wait until it is back.
	Joins Trigger `json:"joins,omitempty"`
	// Update is what an update would boot, nil of a reboot.
	Update *Update `json:"update,omitempty"`
}

// PlanVBD is one vbd of a plan.
type PlanVBD struct {
	VBD     ident.VBD `json:"vbd"`
	Name    string    `json:"name"`
	Backing string    `json:"backing"`
	Pages   uint64    `json:"pages"`
	Check   string    `json:"check"`
}

// EnableRequest is the body of the request.
type EnableRequest struct{ Policy }

// DropResult is what was forgotten.
type DropResult struct {
	Domain     string `json:"domain"`
	Pages      uint64 `json:"pages"`
	ImagePages uint64 `json:"image_pages"`
}
