package toolstack

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// assignment is one of a configuration in xl's language (xl.cfg(5), libxlu_cfg_l.l and
// libxlu_cfg_y.y in Xen's tools/libs/util).
type assignment struct {
	name string
	// text is the value, if known: that of a string or a number.
	text  string
	known bool
	line  int // from 1
	// begin and end are where the value is in the file, start where the name begins.
	start, begin, end int
}

// configError is that a line of a configuration is not understood.
type configError struct {
	line int
	what string
}

func (e configError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.what) }

var (
	xlName   = regexp.MustCompile(`^[a-z][._0-9a-z]*`)
	xlNumber = regexp.MustCompile(`^[0-9][0-9a-fx]*`)
	xlString = regexp.MustCompile(`^(?:'(?:[^'\\\n]|\\[^\n])*'|"(?:[^"\\\n]|\\[^\n])*")`)
	xlBlank  = regexp.MustCompile(`^[ \t]*`)
	// xlSpace is what may be between the values of a list, too.
	xlSpace = regexp.MustCompile(`^(?:[ \t\n]|#[^\n]*)*`)
)

// parseConfig returns the assignments of a configuration, in their order. It
// understands no more than xl does, so that nothing is taken for another thing.
func parseConfig(raw []byte) ([]assignment, error) {
	p := configParser{raw: raw}
	var all []assignment
	for {
		p.take(xlSpace)
		if p.skip(';') {
			continue
		}
		if p.at == len(raw) {
			return all, nil
		}
		a := assignment{start: p.at, line: p.line()}
		if a.name = p.take(xlName); a.name == "" {
			return nil, p.fault("no name of a setting")
		}
		p.take(xlBlank)
		adds := p.skip('+')
		if !p.skip('=') {
			return nil, p.fault("no = after " + a.name)
		}
		p.take(xlBlank)
		a.begin = p.at
		text, known, err := p.value()
		if err != nil {
			return nil, err
		}
		a.text, a.known, a.end = text, known && !adds, p.at
		all = append(all, a)
		p.take(xlBlank)
		if p.at < len(raw) && !strings.ContainsRune(";\n#", rune(raw[p.at])) {
			return nil, p.fault("something is left after the value of " + a.name)
		}
	}
}

type configParser struct {
	raw []byte
	at  int
}

func (p *configParser) take(what *regexp.Regexp) string {
	found := what.Find(p.raw[p.at:])
	p.at += len(found)
	return string(found)
}

func (p *configParser) skip(c byte) bool {
	if p.at < len(p.raw) && p.raw[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *configParser) line() int { return 1 + bytes.Count(p.raw[:p.at], []byte("\n")) }

func (p *configParser) fault(what string) error { return configError{p.line(), what} }

// value reads a value. It is known if it is a string or a number.
func (p *configParser) value() (text string, known bool, err error) {
	if !p.skip('[') {
		if quoted := p.take(xlString); quoted != "" {
			text, known = unquote(quoted)
			return text, known, nil
		}
		if text = p.take(xlNumber); text == "" {
			return "", false, p.fault("no value that xl knows")
		}
		return text, true, nil
	}
	for depth := 1; depth > 0; {
		p.take(xlSpace)
		switch {
		case p.skip('['):
			depth++
		case p.skip(']'):
			depth--
		case p.skip(','), p.take(xlString) != "", p.take(xlNumber) != "":
		default:
			return "", false, p.fault("a list that does not end")
		}
	}
	return "", false, nil
}

// unquote is what is between quotes; false if it has escapes by number, which libxlu
// reads otherwise than it says.
func unquote(quoted string) (string, bool) {
	var b strings.Builder
	inner := quoted[1 : len(quoted)-1]
	for i := 0; i < len(inner); i++ {
		if inner[i] != '\\' {
			b.WriteByte(inner[i])
			continue
		}
		i++
		at := strings.IndexByte(`"'\abfnrtv`, inner[i])
		if at < 0 {
			return "", false
		}
		b.WriteByte("\"'\\\a\b\f\n\r\t\v"[at])
	}
	return b.String(), true
}

// only returns the assignment of a name, nil if there is none; an error if it is not
// clear what it amounts to.
func only(all []assignment, name string) (*assignment, error) {
	var found *assignment
	for i, a := range all {
		switch {
		case a.name != name:
		case found != nil:
			return nil, configError{a.line, fmt.Sprintf("%s is set a second time, after line %d", name, found.line)}
		case !a.known:
			return nil, configError{a.line, "the value of " + name + " is no plain text"}
		default:
			found = &all[i]
		}
	}
	return found, nil
}

// ConfigAbout returns nil if a configuration of xl's is a domain's: it has its UUID, or
// else, if it has none, its name.
func ConfigAbout(raw []byte, d Domain) error {
	all, err := parseConfig(raw)
	if err != nil {
		return err
	}
	return about(all, d)
}

func about(all []assignment, d Domain) error {
	uuid, err := only(all, "uuid")
	if err != nil {
		return err
	}
	if uuid != nil {
		if !strings.EqualFold(uuid.text, d.UUID.String()) {
			return fmt.Errorf("it is not about domain %s: its uuid is %q, not %s", d.Name, uuid.text, d.UUID)
		}
		return nil
	}
	name, err := only(all, "name")
	switch {
	case err != nil:
		return err
	case name == nil:
		return errors.New("it has no name")
	case name.text != d.Name:
		return fmt.Errorf("it is not about domain %s: its name is %q", d.Name, name.text)
	}
	return nil
}

// noLoader returns an error if a configuration has a boot loader, which chooses a kernel
// whatever else is said.
func noLoader(all []assignment) error {
	for _, a := range all {
		if strings.HasPrefix(a.name, "bootloader") {
			return configError{a.line, a.name + " is set, and would choose another kernel"}
		}
	}
	return nil
}

// edit replaces what is between two places of a file.
type edit struct {
	begin, end int
	text       string
}

// ConfigWithKernel returns a configuration of xl's that names another kernel of the
// domain. All else is left as it is, byte for byte. It is an error if it is not a
// domain's that has the old kernel, or if it is not plain which lines say so: then
// they are somebody's to change who knows what they are for. One that has the new
// kernel already is returned as it is.
func ConfigWithKernel(raw []byte, d Domain, old, new Kernel) ([]byte, error) {
	all, err := parseConfig(raw)
	if err == nil {
		err = about(all, d)
	}
	if err == nil {
		err = noLoader(all)
	}
	if err != nil {
		return nil, err
	}
	var edits []edit
	var s settings
	kernel, err := only(all, "kernel")
	switch {
	case err != nil:
		return nil, err
	case kernel == nil:
		return nil, errors.New("it names no kernel")
	}
	change := func(name, was, is string) error {
		a, err := only(all, name)
		switch {
		case err != nil:
			return err
		case a == nil && is == "":
		case a == nil && was != "":
			return fmt.Errorf("it has no %s, and the domain was booted with %q", name, was)
		case a == nil: // below the kernel
			_, end, _, after := lineOf(raw, *kernel)
			if after != "" && after[0] != '#' || raw[end-1] != '\n' {
				return configError{kernel.line, "something else is on the line of the kernel, below which " + name + " has to be"}
			}
			edits = append(edits, edit{end, end, name + " = " + s.quote(is) + "\n"})
		case a.text == is: // somebody has written it already
		case a.text != was:
			return configError{a.line, fmt.Sprintf("%s is %q, and the domain was booted with %q", name, a.text, was)}
		case is == "":
			begin, end, before, after := lineOf(raw, *a)
			if before+after != "" {
				return configError{a.line, "something else is on the line of " + name + ", which is to go"}
			}
			edits = append(edits, edit{begin, end, ""})
		default:
			edits = append(edits, edit{a.begin, a.end, s.quote(is)})
		}
		return nil
	}
	if err := change("kernel", old.File, new.File); err != nil {
		return nil, err
	}
	if err := change("ramdisk", old.Initrd, new.Initrd); err != nil {
		return nil, err
	}
	if old.Cmdline != new.Cmdline {
		for _, a := range all {
			if a.name == "root" || a.name == "extra" {
				return nil, configError{a.line, "the command line is made of root and extra: write it as cmdline"}
			}
		}
		if err := change("cmdline", old.Cmdline, new.Cmdline); err != nil {
			return nil, err
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	// What comes below the kernel's line is before that one which goes.
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Or(a.begin-b.begin, a.end-b.end) })
	var out []byte
	at := 0
	for _, e := range edits {
		out = append(append(out, raw[at:e.begin]...), e.text...)
		at = e.end
	}
	return append(out, raw[at:]...), nil
}

// lineOf returns the line of an assignment, with its end, and what else is on it.
func lineOf(raw []byte, a assignment) (begin, end int, before, after string) {
	begin, end = 1+bytes.LastIndexByte(raw[:a.start], '\n'), len(raw)
	if n := bytes.IndexByte(raw[a.end:], '\n'); n >= 0 {
		end = a.end + n + 1
	}
	return begin, end, strings.Trim(string(raw[begin:a.start]), " \t"), strings.Trim(string(raw[a.end:end]), " \t\n")
}
