package apiserver

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/api"
)

// FuzzRequest: whatever is asked, the answer is JSON with a result or an error,
// and the service is asked nothing that was not in a well-formed request.
func FuzzRequest(f *testing.F) {
	f.Add("POST", "/v1/domains/web/enable", "", `{"policy":{}}`)
	f.Add("POST", "/v1/operations", "", `{"kind":"reboot","domain":"web","mode":"force","timeout_seconds":1e300}`)
	f.Add("POST", "/v1/operations", "", `{"kind":"reboot","domain":"web","mode":"force"}`)
	f.Add("GET", "/v1/domains/web", "wait=1&timeout=NaN", "")
	f.Add("GET", "/v1/plan", "domain=%2e%2e&mode=%00", "")
	f.Add("POST", "/v1/domains/web/enable", "", `{"policy":`+strings.Repeat("[", 1000))
	f.Fuzz(func(t *testing.T, method, path, query, request string) {
		target, err := url.ParseRequestURI(path)
		if err != nil || target.Host != "" {
			return
		}
		target.RawQuery = query
		r := httptest.NewRequest("GET", "/", strings.NewReader(request))
		r.Method, r.URL = method, target
		w := httptest.NewRecorder()
		s := &echo{}
		Handler(s, ServeOperations(&instant{doer: s})).ServeHTTP(w, r)
		if w.Header().Get("Content-Type") != "application/json" {
			if w.Code < 300 { // what is not ours is not found, not allowed, or elsewhere
				t.Fatalf("%d %q", w.Code, w.Body)
			}
			return
		}
		var v api.Answer[json.RawMessage]
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			t.Fatalf("%v: %q", err, w.Body)
		}
		if (v.Error != nil) != (w.Code != http.StatusOK && w.Code != http.StatusAccepted) {
			t.Fatalf("%d %q", w.Code, w.Body)
		}
		if v.Error != nil && s.mode != "" {
			t.Fatalf("%v, but a reboot was asked for", v.Error)
		}
	})
}
