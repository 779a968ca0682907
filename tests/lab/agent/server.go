package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Handler serves
//
//	GET  /ping                    200 as soon as the machine is up
//	POST /exec                    ExecRequest in, Frames out
//	GET  /file?path=P             the file's bytes
//	PUT  /file?path=P&mode=0755   replace the file
//	any  /via/HOST:PORT/...       the same, asked of another agent
//
// The last one is how a domU is reached through dom0.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "up")
	})
	mux.HandleFunc("POST /exec", serveExec)
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) {
		file, err := os.Open(r.URL.Query().Get("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		defer file.Close()
		_, _ = io.Copy(w, file) // a broken connection is the client's to see
	})
	mux.HandleFunc("PUT /file", servePut)
	mux.HandleFunc("/via/", serveVia)
	return mux
}

func servePut(w http.ResponseWriter, r *http.Request) {
	mode, err := strconv.ParseUint(r.URL.Query().Get("mode"), 8, 32)
	if err != nil {
		mode = 0o644
	}
	if err := replaceFile(r.URL.Query().Get("path"), r.Body, os.FileMode(mode)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// replaceFile writes beside path and renames, so that a running program can
// be replaced.
func replaceFile(path string, content io.Reader, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".put-*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	if _, err := io.Copy(temporary, content); err != nil {
		temporary.Close()
		return err
	}
	if err := errors.Join(temporary.Chmod(mode), temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}

func serveVia(w http.ResponseWriter, r *http.Request) {
	host, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/via/"), "/")
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1, // frames are worth nothing later
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: host})
			p.Out.URL.Path = "/" + path
			p.Out.URL.RawPath = ""
		},
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	proxy.ServeHTTP(w, r)
}

func serveExec(w http.ResponseWriter, r *http.Request) {
	var request ExecRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil || len(request.Args) == 0 {
		http.Error(w, "bad exec request", http.StatusBadRequest)
		return
	}
	out := &frameWriter{encoder: json.NewEncoder(w), flush: http.NewResponseController(w).Flush}
	// A command ends with the connection that asked for it.
	out.send(run(r.Context(), request, out))
	out.close()
}

func run(ctx context.Context, request ExecRequest, out *frameWriter) Frame {
	command := exec.CommandContext(ctx, request.Args[0], request.Args[1:]...)
	command.Stdin = bytes.NewReader(request.Stdin)
	command.Stdout = frameStream{out, func(p []byte) Frame { return Frame{Stdout: p} }}
	command.Stderr = frameStream{out, func(p []byte) Frame { return Frame{Stderr: p} }}
	command.WaitDelay = time.Second // a daemon may keep the pipes open
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return Frame{Error: err.Error()}
	}
	code := command.ProcessState.ExitCode()
	return Frame{Exit: &code}
}

// frameWriter sends whole frames from several goroutines.
type frameWriter struct {
	mu      sync.Mutex
	encoder *json.Encoder
	flush   func() error
	closed  bool
}

// close makes later frames vanish: a daemon that the command left behind may
// go on printing, but the connection is not ours any more.
func (f *frameWriter) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

func (f *frameWriter) send(frame Frame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	_ = f.encoder.Encode(frame) // a broken connection ends the command
	_ = f.flush()
}

type frameStream struct {
	out  *frameWriter
	wrap func([]byte) Frame
}

func (s frameStream) Write(p []byte) (int, error) {
	s.out.send(s.wrap(p))
	return len(p), nil
}
