package custody

import (
	"encoding/binary"
	"encoding/json"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/internal/disk"
)

// FuzzAccount: whatever the counters say, and also after it was kept in a
// journal, an account does not forget a breach, and is certain of nothing once
// it doubts.
func FuzzAccount(f *testing.F) {
	f.Add([]byte{1, 0, 8, 0, 0, 8, 0, 2, 0, 16, 0, 0, 16, 0})
	f.Add([]byte{0x81, 0xff, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0x40, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27})
	f.Fuzz(func(t *testing.T, raw []byte) {
		id := disk.Identity{Name: "a", Block: "8:0", Size: 1 << 30}
		at := time.Unix(1, 0)
		var a *Account
		for ; len(raw) >= 7; raw = raw[7:] {
			at = at.Add(time.Duration(raw[0]&15) * 300 * time.Millisecond)
			r := disk.Reading{At: at, Written: uint64(binary.LittleEndian.Uint16(raw[1:])), Discards: uint64(raw[3]), Discarded: uint64(raw[3]) * 8}
			if raw[0]&0x80 == 0 {
				r.Guest = &disk.GuestIO{Written: uint64(binary.LittleEndian.Uint16(raw[4:])), Discards: uint64(raw[6])}
			}
			if a == nil {
				opened := Open(id, r)
				a = &opened
				continue
			}
			breach, doubt := a.Breach, a.Doubt
			switch raw[0] >> 4 & 3 {
			case 0, 1:
				a.Enter(r)
			case 2:
				a.Close(r)
			case 3:
				kept, err := json.Marshal(a)
				if err != nil {
					t.Fatal(err)
				}
				a = &Account{}
				if err := json.Unmarshal(kept, a); err != nil {
					t.Fatal(err)
				}
				a.Resume()
			}
			if (breach != "" && a.Breach != breach) || (doubt != "" && a.Doubt != doubt) {
				t.Fatalf("%q and %q became %q and %q", breach, doubt, a.Breach, a.Doubt)
			}
			judgement, why := a.Judge(id, r, false)
			if judgement != Certain && why == "" {
				t.Fatalf("%s without a reason", judgement)
			}
			if (a.Breach != "" && judgement != Broken) || (a.Doubt != "" && judgement == Certain) {
				t.Fatalf("%s with breach %q and doubt %q", judgement, a.Breach, a.Doubt)
			}
			other := id
			other.Size++
			if judgement, _ := a.Judge(other, r, false); judgement != Broken {
				t.Fatalf("another size is %s", judgement)
			}
		}
	})
}
