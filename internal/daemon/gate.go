package daemon

import (
	"encoding/json"
	"net/http"
	"sync"

	"github.com/warmreboot/warmreboot/api"
)

// gate lets requests in until it is closed, and knows when the last has left.
// http.Server.Close waits for nobody, and a request may come in beside it.
type gate struct {
	h http.Handler

	mu     sync.Mutex
	inside int
	closed bool
	idle   chan struct{} // closed when it is closed and nobody is inside
}

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.enter() {
		w.Header().Set("Content-Type", api.ContentType)
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(api.Answer[struct{}]{Error: api.Errorf(api.AgentDown, "warmrebootd stops")})
		return
	}
	defer g.leave()
	g.h.ServeHTTP(w, r)
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.closed && g.inside == 0 {
		close(g.idle)
	}
}

// close lets nobody in any more, and returns when nobody is inside. It is called
// once.
func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	if g.inside == 0 {
		close(g.idle)
	}
	g.mu.Unlock()
	<-g.idle
}
