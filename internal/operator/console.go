package operator

import (
	"bytes"
	"io"
	"os"
	"strings"
)

const (
	// maxConsole is how much of a console is looked at, in bytes, and consoleLines how
	// much of it is shown, in lines.
	maxConsole   = 1 << 20
	consoleLines = 20
)

// boots is what each kernel of Linux begins its console with.
const boots = "Linux version "

// newConsole returns the end of what the first kernel wrote to a console that was
// booted since the log had so many bytes; nothing if there is no log.
func newConsole(path string, from int64) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() < from {
		from = 0 // it was rotated
	}
	raw, err := io.ReadAll(io.NewSectionReader(f, from, maxConsole))
	if err != nil {
		return nil
	}
	// What comes before is the end of the kernel before, what comes after the next one's.
	if i := bytes.Index(raw, []byte(boots)); i >= 0 {
		begin, end := bytes.LastIndexByte(raw[:i], '\n')+1, len(raw)
		if j := bytes.Index(raw[i+len(boots):], []byte(boots)); j >= 0 {
			end = bytes.LastIndexByte(raw[:i+len(boots)+j], '\n') + 1
		}
		raw = raw[begin:max(begin, end)]
	}
	var lines []string
	for line := range strings.Lines(strings.ToValidUTF8(string(raw), "?")) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-consoleLines):]
}
