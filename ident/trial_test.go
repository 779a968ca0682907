package ident

import "testing"

func TestTrialUUID(t *testing.T) {
	a, b := TrialUUID("a"), TrialUUID("b")
	if a == b || a != TrialUUID("a") || !a.Trial() || !b.Trial() {
		t.Errorf("%v, %v", a, b)
	}
	for _, u := range []UUID{{}, {1}, {'w', 't', 'r', 'i', 'a', 'l'}} {
		if u.Trial() {
			t.Errorf("%v", u)
		}
	}
	if s := a.String(); s[14] != '8' || s[19] < '8' || s[19] > 'b' {
		t.Errorf("%s is not of version 8, variant 1", s)
	}
}
