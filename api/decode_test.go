package api

import (
	"strings"
	"testing"
)

func FuzzDecode(f *testing.F) {
	f.Add(`{"result":{"domain":"a","uuid":"5c0f3a60-7d0b-4a57-9d2b-77a26d6c0b01"}}`)
	f.Add(`{"error":{"code":"timeout","message":"x"}}`)
	f.Fuzz(func(t *testing.T, raw string) {
		_, _ = decode[DomainStatus](strings.NewReader(raw))
		_, _ = decode[Summary](strings.NewReader(raw))
	})
}
