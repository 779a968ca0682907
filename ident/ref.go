package ident

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Ref is what an operator calls a domain by. There is one rule, and it is xl's:
// digits are a domid, whatever domains are called; what has the form of a UUID is
// one; all else is a name. So a word means the same before and after a reboot,
// and never one domain here and another one there.
type Ref struct {
	kind  refKind
	domid Domid
	uuid  UUID
	name  string
}

type refKind int

const (
	byName refKind = iota
	byDomid
	byUUID
	byNothing // a number that is no domid
)

// ParseRef reads what an operator calls a domain by. Every string is one.
func ParseRef(s string) Ref {
	if s != "" && strings.Trim(s, "0123456789") == "" {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return Ref{kind: byNothing, name: s}
		}
		return Ref{kind: byDomid, domid: Domid(n), name: s}
	}
	if u, err := ParseUUID(s); err == nil {
		return Ref{kind: byUUID, uuid: u, name: s}
	}
	return Ref{kind: byName, name: s}
}

// Word is what to call a domain by in a command that somebody is advised to type: its
// name, unless a shell would take that for something else, or the command for an option,
// a domid or a UUID.
func Word(name string, uuid UUID) string {
	plain := func(c rune) bool {
		return c == '.' || c == '_' || c == '-' || c < utf8.RuneSelf && (unicode.IsLetter(c) || unicode.IsDigit(c))
	}
	if name != "" && name[0] != '-' && ParseRef(name).kind == byName && !strings.ContainsFunc(name, func(c rune) bool { return !plain(c) }) {
		return name
	}
	return uuid.String()
}

// String returns what was parsed.
func (r Ref) String() string { return r.name }

// UUID returns the UUID, if that is what the domain is called by.
func (r Ref) UUID() (UUID, bool) { return r.uuid, r.kind == byUUID }

// IsDomid reports whether a domid was given, which means no domain that is down.
func (r Ref) IsDomid() bool { return r.kind == byDomid || r.kind == byNothing }

// Matches reports whether a domain is meant; domid is 0 if it is down.
func (r Ref) Matches(name string, uuid UUID, domid Domid) bool {
	switch r.kind {
	case byDomid:
		return domid != 0 && r.domid == domid
	case byUUID:
		return r.uuid == uuid
	case byName:
		return SameName(r.name, name)
	}
	return false
}
