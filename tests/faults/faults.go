// Package faults breaks a guest's kernel on purpose, many times, and looks
// whether anything wrong comes back after its warm reboot. The injector, a
// module for the guest kernel, is in the folder injector.
package faults

import "embed"

// Injector is the source of the module.
//
//go:embed injector
var Injector embed.FS
