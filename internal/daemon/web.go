package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"

	"github.com/warmreboot/warmreboot/api"
	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/agent"
	"github.com/warmreboot/warmreboot/internal/metrics"
	"github.com/warmreboot/warmreboot/internal/samples"
	"github.com/warmreboot/warmreboot/internal/settings"
	"github.com/warmreboot/warmreboot/internal/state"
	"github.com/warmreboot/warmreboot/internal/version"
	"github.com/warmreboot/warmreboot/internal/web"
	"github.com/warmreboot/warmreboot/internal/webserver"
	"github.com/warmreboot/warmreboot/xenctl"
)

// recorder is the history, and tells those who show reboots of each, and of domains
// that are gone for good.
type recorder struct {
	agent.History
	tell   []func(api.Summary)
	forget []func(ident.UUID)
	// updated is told of each update that has ended.
	updated func(ident.UUID, api.UpdateOutcome)
}

func (r *recorder) forgot(uuid ident.UUID) {
	for _, f := range r.forget {
		f(uuid)
	}
}

// Add implements agent.History.
func (r *recorder) Add(e api.HistoryEntry) (uint64, error) {
	id, err := r.History.Add(e)
	for _, f := range r.tell {
		f(e.Summary)
	}
	return id, err
}

// shown is all that pages, metrics and reports show.
type shown struct {
	*agent.Agent
	*state.Store
	*samples.Sampler
}

var _ web.Source = shown{}

// show makes the figures and curves of an agent that has not been started yet.
// The sampler has to be run.
func show(a *agent.Agent, history *state.Store, r *recorder, schedules metrics.Schedules, scrubber metrics.Scrubber, o settings.Daemon, host func() api.Host, probe func() (xenctl.Feature, error), log *slog.Logger) (shown, webserver.Options) {
	s := &samples.Sampler{Source: a, Sys: "/sys", Dir: filepath.Join(o.StateDir, "samples"), Log: log}
	m := metrics.New(metrics.Options{Source: a, Schedules: schedules, Scrubber: scrubber, Version: version.String(), Warmcache: probe, Log: log})
	r.tell = append(r.tell, m.Finished, s.Finished)
	r.updated = m.Updated
	r.forget = append(r.forget, m.Forget, s.Forget)
	all := shown{a, history, s}
	return all, webserver.Options{Source: all, Host: host, Metrics: m.Handler(), Log: log}
}

// hostOf says what this daemon and its Xen are.
func hostOf(probe func() (xenctl.Feature, error)) func() api.Host {
	return func() api.Host {
		feature, err := probe()
		h := api.Host{Version: version.String(), Warmcache: feature.String()}
		if err != nil {
			h.Error = err.Error()
		}
		return h
	}
}

// webAddress takes --listen apart. Nobody but this host may read what it shows:
// names of domains, disks and files.
func webAddress(s string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return "", "", fmt.Errorf("--listen %q: the path must be absolute", s)
		}
		return "unix", path, nil
	}
	host, _, err := net.SplitHostPort(s)
	if err != nil {
		return "", "", fmt.Errorf("--listen %q must be unix:/PATH or a loopback address with a port, as 127.0.0.1:9816: %v", s, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", "", fmt.Errorf("--listen %q: only loopback addresses and UNIX sockets; to be read from elsewhere, put a proxy with authentication before it", s)
	}
	return "tcp", s, nil
}

// serveWeb serves pages and metrics until ctx ends. That it cannot is no reason
// for the agent not to run.
func serveWeb(ctx context.Context, where string, o webserver.Options) {
	network, address, err := webAddress(where)
	if err == nil {
		var l net.Listener
		if network == "unix" {
			l, err = listen(address)
		} else {
			l, err = net.Listen(network, address)
		}
		if err == nil {
			o.Log.Info("pages and metrics", "listen", l.Addr().String())
			err = serve(ctx, l, webserver.Handler(o))
		}
	}
	if err != nil {
		o.Log.Error("pages and metrics are not served", "op", "listen", "listen", where, "err", err, "next", "is the address in use? the agent runs on without")
	}
}
