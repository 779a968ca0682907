package api

import (
	"encoding"
	"encoding/json"
	"reflect"

	"github.com/warmreboot/warmreboot/ident"
)

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// utf8 returns v with ident.UTF8 applied to every string in it. JSON can carry
// nothing else: encoding/json makes one and the same character of all bytes that
// are no text, and two names one. What is right is shared with v, not copied.
func utf8[T any](v T) T {
	fixed, changed := fix(reflect.ValueOf(&v).Elem())
	if changed {
		return fixed.Interface().(T)
	}
	return v
}

func fix(v reflect.Value) (fixed reflect.Value, changed bool) {
	if !v.IsValid() || v.Type().Implements(jsonMarshaler) || v.Type().Implements(textMarshaler) {
		return v, false
	}
	switch v.Kind() {
	case reflect.String:
		s := v.String()
		if u := ident.UTF8(s); u != s {
			fixed = reflect.New(v.Type()).Elem()
			fixed.SetString(u)
			return fixed, true
		}
	case reflect.Pointer:
		if v.IsNil() {
			return v, false
		}
		if e, ok := fix(v.Elem()); ok {
			fixed = reflect.New(v.Type().Elem())
			fixed.Elem().Set(e)
			return fixed, true
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if e, ok := fix(v.Field(i)); ok {
				if !changed {
					fixed, changed = reflect.New(v.Type()).Elem(), true
					fixed.Set(v)
				}
				fixed.Field(i).Set(e)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if e, ok := fix(v.Index(i)); ok {
				if !changed {
					fixed, changed = reflect.MakeSlice(v.Type(), v.Len(), v.Len()), true
					reflect.Copy(fixed, v)
				}
				fixed.Index(i).Set(e)
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			key, odd := fix(it.Key())
			e, ok := fix(it.Value())
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
