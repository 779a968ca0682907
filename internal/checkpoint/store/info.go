package store

import (
	"encoding/binary"
	"encoding/json"
)

// In the catalogue an Info is packed, as a million of them are read before anything
// else is: a byte that says so, numbers, the time as package time writes it, and the
// texts. Entries as JSON, as they once were, are read, too; a commit record has JSON,
// so that what is left of a store says by itself what it is.
const infoPacked = 1

func packInfo(i Info) ([]byte, error) {
	when, err := i.Time.MarshalBinary()
	if err != nil {
		return nil, err
	}
	b := []byte{infoPacked}
	for _, n := range []int64{int64(i.Pages), int64(i.Changed), i.Bytes, i.Meta} {
		b = binary.AppendVarint(b, n)
	}
	for _, s := range []string{string(when), i.Domain, i.Label} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b, nil
}

// unpackInfo is the opposite. last is the Info before, whose domain's name is mostly
// the same and then takes no memory of its own.
func unpackInfo(b []byte, last *Info) (i Info, err error) {
	if len(b) == 0 || b[0] != infoPacked {
		if err := json.Unmarshal(b, &i); err != nil {
			return Info{}, damaged("catalogue: %v", err)
		}
		return i, nil
	}
	in := &numbers{b: b[1:]}
	i.Pages, i.Changed, i.Bytes, i.Meta = int(in.nextSigned()), int(in.nextSigned()), in.nextSigned(), in.nextSigned()
	text := func() []byte {
		n := in.count()
		s := in.b[:n]
		in.b = in.b[n:]
		return s
	}
	when := text()
	if domain := text(); last != nil && last.Domain == string(domain) {
		i.Domain = last.Domain
	} else {
		i.Domain = string(domain)
	}
	i.Label = string(text())
	if in.bad || len(in.b) != 0 || i.Time.UnmarshalBinary(when) != nil {
		return Info{}, damaged("catalogue: an entry makes no sense")
	}
	return i, nil
}
