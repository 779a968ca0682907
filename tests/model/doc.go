// Package model is the warm cache's protocol as a state machine, small enough
// for millions of random schedules in a minute: Xen's tracking and its images,
// the guest kernel's announcements, the backend's I/O, the toolstack and the
// agent. It is a transcription of the C code: each transition names the function
// it stands for, and each check that the code makes is a Rule that can be taken
// away, to see that the invariants notice.
//
// A step of a schedule is what happens between two points at which another CPU
// may come in. Every step can be applied in every state: one that makes no sense
// does nothing. So any part of a schedule is a schedule, which makes shrinking
// simple.
//
// The model knows nothing of time, of the hash chains behind the index by sector,
// of allocation failures other than of frames, and of page sizes. See
// docs/consistency.md for what it claims.
package model
