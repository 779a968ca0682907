// Package text makes what comes from elsewhere, names of domains above all, fit to
// be sent as JSON or shown on a terminal.
package text

import (
	"encoding"
	"encoding/json"
	"io"
	"reflect"
	"strings"

	"github.com/warmreboot/warmreboot/ident"
)

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// UTF8 returns v with ident.UTF8 applied to every string in it. JSON can carry
// nothing else: encoding/json makes one and the same character of all bytes that
// are no text, and two names one. What is right is shared with v, not copied.
func UTF8[T any](v T) T { return each(v, ident.UTF8) }

// Marshal returns v as JSON, with all strings in UTF8's form: json.Marshal would make
// one and the same character of all bytes that are no text.
func Marshal[T any](v T) ([]byte, error) { return json.Marshal(UTF8(v)) }

// Printable returns v with ident.Printable applied to every string in it, so that
// each stays in its place in a line or a table.
func Printable[T any](v T) T { return each(v, ident.Printable) }

func each[T any](v T, change func(string) string) T {
	if fixed, changed := replace(reflect.ValueOf(&v).Elem(), change); changed {
		return fixed.Interface().(T)
	}
	return v
}

func replace(v reflect.Value, change func(string) string) (fixed reflect.Value, changed bool) {
	if !v.IsValid() || v.Type().Implements(jsonMarshaler) || v.Type().Implements(textMarshaler) {
		return v, false
	}
	switch v.Kind() {
	case reflect.String:
		s := v.String()
		if u := change(s); u != s {
			fixed = reflect.New(v.Type()).Elem()
			fixed.SetString(u)
			return fixed, true
		}
	case reflect.Pointer:
		if v.IsNil() {
			return v, false
		}
		if e, ok := replace(v.Elem(), change); ok {
			fixed = reflect.New(v.Type().Elem())
			fixed.Elem().Set(e)
			return fixed, true
		}
	case reflect.Interface:
		if e, ok := replace(v.Elem(), change); ok {
			fixed = reflect.New(v.Type()).Elem()
			fixed.Set(e)
			return fixed, true
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if !v.Type().Field(i).IsExported() {
				continue
			}
			if e, ok := replace(v.Field(i), change); ok {
				if !changed {
					fixed, changed = reflect.New(v.Type()).Elem(), true
					fixed.Set(v)
				}
				fixed.Field(i).Set(e)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if e, ok := replace(v.Index(i), change); ok {
				if !changed {
					fixed, changed = reflect.MakeSlice(v.Type(), v.Len(), v.Len()), true
					reflect.Copy(fixed, v)
				}
				fixed.Index(i).Set(e)
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			key, odd := replace(it.Key(), change)
			e, ok := replace(it.Value(), change)
			if !odd && !ok {
				continue
			}
			if !changed {
				fixed, changed = reflect.MakeMap(v.Type()), true
				for all := v.MapRange(); all.Next(); {
					fixed.SetMapIndex(all.Key(), all.Value())
				}
			}
			fixed.SetMapIndex(it.Key(), reflect.Value{})
			fixed.SetMapIndex(key, e)
		}
	}
	if changed {
		return fixed, true
	}
	return v, false
}

// Writer escapes what is not printable in what is written to it, newlines and tabs
// aside: nothing steers the terminal that it ends at. What is written at once is
// whole characters.
func Writer(w io.Writer) io.Writer { return writer{w} }

type writer struct{ w io.Writer }

func (w writer) Write(p []byte) (int, error) {
	var b strings.Builder
	for rest := string(p); rest != ""; {
		i := strings.IndexAny(rest, "\n\t")
		if i < 0 {
			b.WriteString(ident.Printable(rest))
			break
		}
		b.WriteString(ident.Printable(rest[:i]))
		b.WriteByte(rest[i])
		rest = rest[i+1:]
	}
	if _, err := io.WriteString(w.w, b.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}
