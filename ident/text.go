package ident

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A domain's name is what its toolstack wrote into xenstore: any bytes, of any
// encoding, newlines and escape sequences for a terminal included.

// UTF8 returns s as valid UTF-8: bytes that are none become \xNN, so that two
// names stay two. What is valid stays as it is.
func UTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return escape(s, func(rune) bool { return true })
}

// SameName reports whether two names are one: JSON and files have UTF8's form of a name,
// xenstore has its bytes.
func SameName(a, b string) bool { return a == b || UTF8(a) == UTF8(b) }

// Printable returns s as it can be shown on one line of a terminal: what is not
// valid UTF-8 or not printable becomes \xNN or \uNNNN. Blanks stay.
func Printable(s string) string { return escape(s, unicode.IsPrint) }

func escape(s string, keep func(rune) bool) string {
	var b strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case keep(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}
