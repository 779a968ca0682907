package build

import (
	"slices"
	"testing"
)

func TestStoreBeforeCall(t *testing.T) {
	store := []byte{0x89, 0xb3, 0x50, 0xc2, 0xff, 0xff} // mov %esi,-0x3db0(%rbx)
	above := []byte{0x89, 0xb3, 0x80, 0x34, 0x00, 0x00} // mov %esi,0x3480(%rbx)
	other := []byte{0x89, 0x8b, 0x50, 0xc2, 0xff, 0xff} // mov %ecx,-0x3db0(%rbx)
	stack := []byte{0x89, 0xb4, 0x24, 0x10, 0xff, 0xff} // mov %esi,...(%rsp)
	call := []byte{0xe8, 0x00, 0x10, 0x00, 0x00}        // of what is 0x1000 after it
	fill := slices.Repeat([]byte{0x90}, 64)
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	const at = 0x400000
	for name, c := range map[string]struct {
		code   []byte
		offset int // -1: it is not found
	}{
		"found":              {join(fill, above, store, other, call, fill), 70},
		"none":               {join(fill, above, other, stack, call), -1},
		"two":                {join(store, store, call), -1},
		"too far":            {join(store, fill, call), -1},
		"after the call":     {join(fill, call, store), -1},
		"no call":            {join(fill, store, fill), -1},
		"two calls":          {join(store, call, []byte{0xe8, 0xfb, 0x0f, 0x00, 0x00}), -1},
		"call of the other":  {join(store, []byte{0xe8, 0x01, 0x10, 0x00, 0x00}), -1},
		"ends with the call": {join(store, call), 0},
	} {
		// The function is where the first call would lead to.
		end := len(c.code)
		for i := range c.code {
			if slices.Equal(c.code[i:min(i+5, end)], call) {
				end = i + 5
				break
			}
		}
		offset, err := storeBeforeCall(c.code, at, at+uint64(end)+0x1000)
		if c.offset < 0 && err == nil || c.offset >= 0 && (err != nil || offset != c.offset) {
			t.Errorf("%s: %d, %v, want %d", name, offset, err, c.offset)
		}
	}
}
