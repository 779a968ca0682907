package text_test

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/text"
)

// TestUTF8: what is no text survives JSON, everywhere, and the original is as it
// was.
func TestUTF8(t *testing.T) {
	in := api.DomainStatus{Domain: "caf\xe9", UUID: ident.UUID{0xe9}, Policy: &api.Policy{Content: "full"},
		Custody: []api.VBDCustody{{Name: "xvda"}, {Backing: "/dev/\xff"}}, Last: &api.Summary{Refused: map[string]uint64{"\xfe": 3, "x": 1}, Started: time.Unix(5, 0)}}
	out := text.UTF8(in)
	want := in
	want.Domain = `caf\xe9`
	want.Custody = []api.VBDCustody{{Name: "xvda"}, {Backing: `/dev/\xff`}}
	want.Last = &api.Summary{Refused: map[string]uint64{`\xfe`: 3, "x": 1}, Started: time.Unix(5, 0)}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("%+v", out)
	}
	if in.Domain != "caf\xe9" || in.Custody[1].Backing != "/dev/\xff" || in.Last.Refused["\xfe"] != 3 || out.Policy != in.Policy {
		t.Errorf("changed: %+v", in)
	}
}

// TestMarshal: also in what is stored as any.
func TestMarshal(t *testing.T) {
	type private struct {
		Name   string `json:"name"`
		hidden string
	}
	for want, v := range map[string]any{
		`{"name":"caf\\xe9"}`:     private{"caf\xe9", "\xff"},
		`["a",null,"\\xff\\xfe"]`: []any{"a", nil, "\xff\xfe"},
		`{"x":{"name":"\\xe9"}}`:  map[string]any{"x": &private{Name: "\xe9"}},
		`null`:                    nil,
	} {
		if got, err := text.Marshal(v); string(got) != want || err != nil {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	in := []api.LockStatus{{Domain: "a\nb", Owner: "\x1b[2J"}, {Domain: "web"}}
	want := []api.LockStatus{{Domain: `a\x0ab`, Owner: `\x1b[2J`}, {Domain: "web"}}
	if got := text.Printable(in); !reflect.DeepEqual(got, want) || in[0].Domain != "a\nb" {
		t.Errorf("%+v, %+v", got, in)
	}
}

func TestWriter(t *testing.T) {
	var b bytes.Buffer
	n, err := fmt.Fprint(text.Writer(&b), "a\tb\x1b[2J\ncaf\xe9\r\n")
	if want := "a\tb\\x1b[2J\ncaf\\xe9\\x0d\n"; b.String() != want || n != 14 || err != nil {
		t.Errorf("%q, %d, %v", b.String(), n, err)
	}
}
