// Package version holds the version of everything in this repository: what
// `warmreboot --version` prints, and what the packages are called.
package version

import (
	_ "embed"
	"strings"
)

//go:embed VERSION
var text string

// String returns the version, as Debian compares them.
func String() string { return strings.TrimSpace(text) }
