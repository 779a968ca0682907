package lab

import (
	"bytes"
	"slices"
	"testing"
)

const registers = "info registers\r\n\r\nCPU#0\r\nRAX=0000000000000001 RBX=0000000000000000\r\n" +
	"RIP=ffff82d040201234 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0\r\n"

func TestParseRegisters(t *testing.T) {
	s, err := parseRegisters(registers)
	if want := (Sample{Address: 0xffff82d040201234, Ring: '0'}); err != nil || s != want {
		t.Errorf("%+v, %v; want %+v", s, err, want)
	}
	for _, bad := range []string{"", "RIP=1 CPL=0", "RIP=x CPL=0 HLT=0"} {
		if s, err := parseRegisters(bad); err == nil {
			t.Errorf("%q: %+v", bad, s)
		}
	}
}

func TestWho(t *testing.T) {
	for _, c := range []struct {
		sample Sample
		want   string
	}{
		{Sample{0xffffffff81000000, '3', false}, InDom0},
		{Sample{0xffffffff81000000, '0', false}, InDomU},
		{Sample{0xffff82d040201234, '0', true}, Idle},
		{Sample{0xffff82d040201234, '0', false}, InXen},
		{Sample{0x401000, '3', false}, InPrograms},
		{Sample{0x7f0000001000, '3', false}, InPrograms},
		{Sample{0x8000, '0', false}, Elsewhere}, // a guest's kernel before it has mapped itself
	} {
		if got := c.sample.Who(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.sample, got, c.want)
		}
	}
}

func TestCountSamples(t *testing.T) {
	xen, err := ReadSymbols([]byte("0xffff82d040202000 T second\nffff82d040201000 t first\nffff82d040201800 D data\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[uint64]string{0xffff82d040200fff: "", 0xffff82d040201000: "first", 0xffff82d040201fff: "first", 0xffff82d040202000: "second"} {
		if got := xen.Find(address); got != want {
			t.Errorf("%x: %q, want %q", address, got, want)
		}
	}
	if _, err := ReadSymbols([]byte("zz T name\n")); err == nil {
		t.Error("an address that is none")
	}
	at := func(address uint64) Sample { return Sample{Address: address, Ring: '0'} }
	who, functions := CountSamples([]Sample{at(0xffff82d040202000), at(0xffff82d040201000), at(0xffff82d040202010), at(0xffffffff81000000), {Halted: true}},
		map[string]Symbols{InXen: xen})
	if want := []Count{{InXen, "", 3}, {InDomU, "", 1}, {Idle, "", 1}}; !slices.Equal(who, want) {
		t.Errorf("who: %v, want %v", who, want)
	}
	if want := []Count{{InXen, "second", 2}, {InXen, "first", 1}}; !slices.Equal(functions, want) {
		t.Errorf("functions: %v, want %v", functions, want)
	}
	var text bytes.Buffer
	if err := WriteCounts(&text, functions, 1, 5); err != nil || text.String() != "      2  40.0 %  xen        second\n" {
		t.Errorf("%q, %v", text.String(), err)
	}
}
