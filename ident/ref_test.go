package ident

import (
	"fmt"
	"testing"
)

// TestWord: what is advised means the domain, whoever reads it: a shell, or our own
// commands.
func TestWord(t *testing.T) {
	u := UUID{7}
	for name, plain := range map[string]bool{"web": true, "web-1.example_net": true, "W": true, "0x7": true, "": false, "--all": false, "-h": false, "7": false,
		"012": false, "99999": false, UUID{2}.String(): false, "a b": false, `x"y`: false, "x;reboot": false, "$(reboot)": false, "*": false, "~root": false, "#x": false,
		"a\nb": false, "caf\xe9": false, "ümlaut": false, "٧": false, "web*": false, "a/b": false, "!x": false} {
		want := u.String()
		if plain {
			want = name
		}
		if got := Word(name, u); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// TestRef: domid 7 is called "12", domid 12 "db" and domid 20 "7"; each word means
// one of them, before and after a reboot.
func TestRef(t *testing.T) {
	type domain struct {
		name  string
		uuid  UUID
		domid Domid
	}
	all := []domain{{"12", UUID{1}, 7}, {"db", UUID{2}, 12}, {"7", UUID{3}, 20}, {"down", UUID{4}, 0},
		{UUID{2}.String(), UUID{5}, 21}, {"99999", UUID{6}, 22}, {"0x7", UUID{7}, 23}, {"-7", UUID{8}, 24}, {"٧", UUID{9}, 25}, {"caf\xe9", UUID{10}, 26}}
	for word, want := range map[string]string{
		"7": "[7]", "12": "[12]", "012": "[12]", "20": "[20]", "0": "[]", "99999": "[]", "99999999999999999999999": "[]",
		"db": "[12]", "down": "[0]", UUID{2}.String(): "[12]", "01000000-0000-0000-0000-000000000000": "[7]",
		"DB": "[]", "": "[]", "0x7": "[23]", "-7": "[24]", "٧": "[25]", "caf\xe9": "[26]", `caf\xe9`: "[26]", "caf\xe8": "[]", " 7": "[]",
	} {
		got := []Domid{}
		r := ParseRef(word)
		for _, d := range all {
			if r.Matches(d.name, d.uuid, d.domid) {
				got = append(got, d.domid)
			}
		}
		if fmt.Sprint(got) != want || r.String() != word {
			t.Errorf("%q (%q) means %v, want %s", word, r, got, want)
		}
	}
	if _, ok := ParseRef("7").UUID(); ok || !ParseRef("7").IsDomid() || !ParseRef("70000").IsDomid() || ParseRef("x7").IsDomid() {
		t.Error("what kind it is")
	}
	if u, ok := ParseRef(UUID{3}.String()).UUID(); !ok || u != (UUID{3}) {
		t.Error(u)
	}
}
