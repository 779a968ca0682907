package api

import "github.com/warmreboot/warmreboot/ident"

// UpdateRequest has a domain try another kernel: it becomes the domain's if it is well,
// and its old one comes back if not.
type UpdateRequest struct {
	// Kernel and Initrd are files of dom0, by absolute paths. Initrd may be "" if the
	// domain has none now; else it is another one, or NoInitrd.
	Kernel string `json:"kernel"`
	Initrd string `json:"initrd,omitempty"`
	// Cmdline is the kernel's command line; nil: as it is now.
	Cmdline *string `json:"cmdline,omitempty"`
	// Config is the operator's own configuration of the domain, by an absolute path,
	// where xl has created it; "": the one in /etc/xen that names the domain. A domain
	// that its toolstack could not create with the new kernel is created by it.
	Config string `json:"config,omitempty"`
	// WriteConfig has Config name the new kernel once that is the domain's; else it is not
	// changed. libvirt needs none.
	WriteConfig bool `json:"write_config,omitempty"`
	// Health is how to see that the domain is well; nil: that it is up.
	Health *HealthCheck `json:"health,omitempty"`
	// DeadlineSeconds is how long it may take to be up, ProbationSeconds how long it has
	// to be well then.
	DeadlineSeconds  float64 `json:"deadline_seconds"`
	ProbationSeconds float64 `json:"probation_seconds"`
	// Trial has the kernel tried on a clone first; nil: it is not.
	Trial *TrialRequest `json:"trial,omitempty"`
}

// TrialRequest has a kernel tried on a clone of the domain, with copies of its disks, while
// the domain runs on. Deadline and probation are the update's. Of health checks, a
// connection is not made, as the clone has no network of the domain's.
type TrialRequest struct {
	// Only: the update ends with the trial.
	Only bool `json:"only,omitempty"`
	// Keep leaves the clone for looking at, until somebody destroys it.
	Keep bool `json:"keep,omitempty"`
	// Bridge is one of dom0's that the clone's network interfaces are put on; "": it has
	// none.
	Bridge string `json:"bridge,omitempty"`
	// SpaceBytes is how much room of each file system that has disks of the domain's the
	// trial may take; twice as much has to be free before.
	SpaceBytes int64 `json:"space_bytes"`
}

// MaxSeconds is the longest of all times that a request names, in seconds: 11.5 days.
const MaxSeconds = 1e6

// NoInitrd is the Initrd of a kernel that needs none, though the old one had one.
const NoInitrd = "none"

// HealthCheck is one of its first four fields, as in a schedule.
type HealthCheck struct {
	HTTP string `json:"http,omitempty"`
	TCP  string `json:"tcp,omitempty"`
	// Xenstore is a path below the domain's own, to which its guest writes 1 when it is
	// well: data/boot-complete.
	Xenstore string   `json:"xenstore,omitempty"`
	Command  []string `json:"command,omitempty"`
	// TimeoutSeconds is how long it is tried until it succeeds.
	TimeoutSeconds float64 `json:"timeout_seconds"`
}

// UpdateOutcome is how an update ended.
type UpdateOutcome string

// Outcomes; "" is not yet.
const (
	Updated    UpdateOutcome = "updated"
	UpdateBack UpdateOutcome = "fell_back" // it has its old kernel again
	NotTried   UpdateOutcome = "not_tried" // nothing has happened
	UpdateLost UpdateOutcome = "lost"      // nobody knows, or it is down: Why has what to do

	// After a trial on a clone, and nothing has happened to the domain:
	TrialPassed UpdateOutcome = "trial_passed" // and no more was asked for
	TrialFailed UpdateOutcome = "trial_failed" // there is a reason against the new kernel
)

// UpdateOutcomes are all of them.
var UpdateOutcomes = []UpdateOutcome{Updated, UpdateBack, NotTried, UpdateLost, TrialPassed, TrialFailed}

// BootFiles are what a domain is booted with.
type BootFiles struct {
	Kernel  string `json:"kernel"`
	Initrd  string `json:"initrd,omitempty"`
	Cmdline string `json:"cmdline"`
}

// Update is the account of one.
type Update struct {
	Outcome UpdateOutcome `json:"outcome"`
	// Why it was not updated.
	Why string    `json:"why,omitempty"`
	Old BootFiles `json:"old"`
	New BootFiles `json:"new"`
	// Console is the end of what the new kernel wrote to its console, if it failed.
	Console []string `json:"console,omitempty"`
	// Config is the operator's own configuration, which has the old kernel; "" if
	// there is none, or it is not known.
	Config string `json:"config,omitempty"`
	// ConfigWritten: that has the new kernel now, as was asked for. ConfigError is why it
	// has not.
	ConfigWritten bool   `json:"config_written,omitempty"`
	ConfigError   string `json:"config_error,omitempty"`
	// Copies is where the daemon's own copies of the kernel are that the domain boots,
	// as the files that were named have been changed or removed meanwhile; "" if they
	// are not needed.
	Copies string `json:"copies,omitempty"`
	// Trial is the account of the trial on a clone, nil if there was none.
	Trial *Trial `json:"trial,omitempty"`
}

// Trial is the account of a kernel's trial on a clone of a domain.
type Trial struct {
	// Domain and UUID are the clone's.
	Domain string     `json:"domain"`
	UUID   ident.UUID `json:"uuid"`
	// Passed: the clone came up with the new kernel, and was well until the end. Against:
	// it did not, for the reason of Why. Neither: it could not be tried.
	Passed  bool   `json:"passed"`
	Against bool   `json:"against"`
	Why     string `json:"why,omitempty"`
	// NotChecked is what was not looked at, and why.
	NotChecked string `json:"not_checked,omitempty"`
	// What it has cost the domain's disks: for how long its writes may have waited while
	// its files were cloned; what the clone has read and written; and how much room was
	// taken at most, for what either of them has written.
	CloneSeconds float64 `json:"clone_seconds"`
	ReadBytes    int64   `json:"read_bytes"`
	WrittenBytes int64   `json:"written_bytes"`
	SpaceBytes   int64   `json:"space_bytes"`
	// Kept: the clone is left, as was asked for.
	Kept bool `json:"kept,omitempty"`
	// Console is the end of what the clone wrote to its console, if it has not passed.
	Console []string `json:"console,omitempty"`
}
