// Package ident has the names that Xen gives to things: domains, their disks
// and their pages. It knows neither how they are looked up nor any policy, and
// compiles on every system.
package ident

import (
	"encoding/hex"
	"fmt"
)

// Domid is a domain's number; it changes with every reboot.
type Domid uint16

// UUID is a domain's handle; it stays the same over a reboot.
type UUID [16]byte

// String returns the canonical form, 8-4-4-4-12 lower-case hex digits.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// IsZero reports whether no toolstack has given the domain a handle.
func (u UUID) IsZero() bool { return u == UUID{} }

// MarshalText implements encoding.TextMarshaler.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (u *UUID) UnmarshalText(text []byte) error {
	v, err := ParseUUID(string(text))
	if err != nil {
		return err
	}
	*u = v
	return nil
}

// ParseUUID parses the canonical form; upper-case digits are accepted.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return UUID{}, fmt.Errorf("%q is not a UUID", s)
	}
	digits := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if n, err := hex.Decode(u[:], []byte(digits)); err != nil || n != len(u) {
		return UUID{}, fmt.Errorf("%q is not a UUID", s)
	}
	return u, nil
}
