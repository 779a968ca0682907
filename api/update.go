package api

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
	// where xl has created it; "": the one in /etc/xen that names the domain. It is not
	// changed. A domain that its toolstack could not create with the new kernel is created
	// by it.
	Config string `json:"config,omitempty"`
	// Health is how to see that the domain is well; nil: that it is up.
	Health *HealthCheck `json:"health,omitempty"`
	// DeadlineSeconds is how long it may take to be up, ProbationSeconds how long it has
	// to be well then.
	DeadlineSeconds  float64 `json:"deadline_seconds"`
	ProbationSeconds float64 `json:"probation_seconds"`
}

// NoInitrd is the Initrd of a kernel that needs none, though the old one had one.
const NoInitrd = "none"

// HealthCheck is one of its first three fields, as in a schedule.
type HealthCheck struct {
	HTTP    string   `json:"http,omitempty"`
	TCP     string   `json:"tcp,omitempty"`
	Command []string `json:"command,omitempty"`
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
)

// UpdateOutcomes are all of them.
var UpdateOutcomes = []UpdateOutcome{Updated, UpdateBack, NotTried, UpdateLost}

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
	// Copies is where the daemon's own copies of the kernel are that the domain boots,
	// as the files that were named have been changed or removed meanwhile; "" if they
	// are not needed.
	Copies string `json:"copies,omitempty"`
}
