package ident

import (
	"bytes"
	"crypto/sha256"
)

// trialPrefix begins the UUIDs of domains that are made to try a kernel on, and thrown
// away: whoever finds one knows what it is.
var trialPrefix = []byte("wtrial")

// TrialUUID is the UUID of a domain that is made to try something on: the same for the
// same word, and of the form that RFC 9562 leaves to everybody (version 8).
func TrialUUID(word string) UUID {
	sum := sha256.Sum256([]byte(word))
	u := UUID(sum[:16])
	copy(u[:], trialPrefix)
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return u
}

// Trial reports whether a UUID is one of TrialUUID's.
func (u UUID) Trial() bool { return bytes.HasPrefix(u[:], trialPrefix) && u[6]>>4 == 8 }
