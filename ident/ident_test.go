package ident

import "testing"

func TestUUID(t *testing.T) {
	const s = "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b01"
	u, err := ParseUUID(s)
	if err != nil || u.String() != s || u.IsZero() {
		t.Errorf("%v, %v", u, err)
	}
	if up, err := ParseUUID("5C0F3A60-7D0B-4A57-9D2B-77A26D6C0B01"); err != nil || up != u {
		t.Errorf("%v, %v", up, err)
	}
	var v UUID
	if raw, _ := u.MarshalText(); v.UnmarshalText(raw) != nil || v != u {
		t.Errorf("%v", v)
	}
	for _, bad := range []string{"", s[1:], s + "0", "5c0f3a60x7d0b-4a57-9d2b-77a26d6c0b01", "5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b0g"} {
		if _, err := ParseUUID(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func FuzzParseUUID(f *testing.F) {
	f.Add("5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b01")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseUUID(s)
		if err != nil {
			return
		}
		if v, err := ParseUUID(u.String()); err != nil || v != u {
			t.Fatalf("%q: %v, %v", s, v, err)
		}
	})
}

// TestErrors: both the sentinel and the errno are found, and the message names
// the operation and its arguments.

func TestVBDName(t *testing.T) {
	for v, want := range map[VBD]string{
		51712: "xvda", 51728: "xvdb", 51713: "xvda1", 51952: "xvdp",
		1<<28 | 16<<8: "xvdq", 1<<28 | 26<<8 | 3: "xvdaa3", 768: "hda", 769: "hda1", 832: "hdb", 5632: "hdc", 5696: "hdd", 5699: "hdd3", 3<<8 | 128: "vbd-896",
		2048: "sda", 2049: "sda1", 8<<8 | 15<<4: "sdp", 4 << 8: "vbd-1024", 0: "vbd-0",
	} {
		if got := v.Name(); got != want {
			t.Errorf("%d: %s, want %s", v, got, want)
		}
	}
}

func TestParseVBD(t *testing.T) {
	for s, want := range map[string]VBD{
		"xvda": 51712, "xvdb": 51728, "xvda2": 51714, "xvdp15": 51967, "xvdq": 268439552, "xvdz": 1<<28 | 25<<8, "xvdaa3": 1<<28 | 26<<8 | 3,
		"xvda16": 1<<28 | 16, "51714": 51714, "vbd-768": 768, "268439552": 268439552,
	} {
		if got, err := ParseVBD(s); got != want || err != nil {
			t.Errorf("%s: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, bad := range []string{"", "xvd", "xvda0", "xvda01", "xvda256", "xvdA", "xvdbwcfa", "sda", "hda", "051712", "-1", "99999999999", "xvda2 ", "1073741824"} {
		if v, err := ParseVBD(bad); err == nil {
			t.Errorf("%q: %d", bad, v)
		}
	}
	// Name's inverse, for all that has a name.
	for disk := range VBD(2000) {
		for part := range VBD(256) {
			v := 1<<28 | disk<<8 | part
			if disk < 16 && part < 16 {
				v = 202<<8 | disk<<4 | part
			}
			if got, err := ParseVBD(v.Name()); got != v || err != nil {
				t.Fatalf("%d is %s: %d, %v", v, v.Name(), got, err)
			}
		}
	}
}

func FuzzParseVBD(f *testing.F) {
	f.Add("xvda2")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVBD(s)
		if err != nil {
			return
		}
		if w, err := ParseVBD(v.Name()); err != nil || w.Name() != v.Name() {
			t.Fatalf("%q: %d, %s, %v", s, v, v.Name(), err)
		}
	})
}
