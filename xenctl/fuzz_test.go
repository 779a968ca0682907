package xenctl

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/xenctl/internal/abi"
)

// decodeABI fills a structure from bytes as Xen would have written them.
func decodeABI[T any](raw []byte) (v T) {
	size := binary.Size(v)
	padded := make([]byte, size)
	copy(padded, raw)
	if _, err := binary.Decode(padded, binary.LittleEndian, &v); err != nil {
		panic(err)
	}
	return v
}

// FuzzStatus: whatever a guest reports, every page it refused is counted under
// a reason that has a name, and the rest is Xen's numbers.
func FuzzStatus(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 512))
	f.Add(bytes.Repeat([]byte{1, 0, 0, 0, 0, 0, 0, 0}, 40))
	f.Fuzz(func(t *testing.T, raw []byte) {
		v := decodeABI[abi.WarmcacheStatus](raw)
		s := statusFromABI(&v)
		var want, got uint64
		for _, n := range v.Report.Refused {
			want += n
		}
		for reason, n := range s.Report.Refused {
			if reason == "" || n == 0 {
				t.Fatalf("%q: %d", reason, n)
			}
			got += n
		}
		if got != want || s.Committed != v.Committed || s.TTL < 0 {
			t.Fatalf("%+v of %+v", s, v)
		}
	})
}

// FuzzDomainInfo: a domain that is going down is not alive, whatever the rest.
func FuzzDomainInfo(f *testing.F) {
	f.Add([]byte{3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		v := decodeABI[abi.DomctlGetDomainInfo](raw)
		d := infoFromABI(&v)
		if d.Alive() && (d.Dying || d.Shutdown) {
			t.Fatalf("%+v", d)
		}
		if u, err := ident.ParseUUID(d.UUID.String()); err != nil || u != d.UUID {
			t.Fatalf("%v, %v", u, err)
		}
	})
}
