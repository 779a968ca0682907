package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"strings"
)

// What is spoken is HTTP/1.0: one request for each connection, and an answer that
// ends with it. That is little enough to speak it here. net/http would bring TLS,
// certificates and HTTP/2, a third of the command line's program, to a UNIX socket.
// curl --unix-socket, or net/http, may ask the daemon just as well.

// answer is what came back. Its body ends with the connection.
type answer struct {
	status string // as "404 Not Found"
	kind   string // the Content-Type
	body   io.Reader
	close  func()
}

// exchange sends a request and reads the answer up to its body. path is escaped.
// When ctx ends, so does the connection, and with it what the daemon does for it.
func (c *Client) exchange(ctx context.Context, method, path string, query url.Values, body []byte) (*answer, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, Errorf(AgentDown, "the agent does not answer on %s (%v); is warmrebootd running?", c.socket, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	end := func() { stop(); conn.Close() }
	a, err := talk(conn, method, path, query, body)
	if err != nil {
		end()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, lost(method, err)
	}
	a.close = end
	return a, nil
}

// lostError is that the daemon ended after it was asked and before it had answered.
type lostError struct{ err *Error }

func (l *lostError) Error() string { return l.err.Error() }
func (l *lostError) Unwrap() error { return l.err }

// lost makes a lostError. Who has only asked how something is has changed nothing.
func lost(method string, err error) error {
	if method == "GET" {
		return &lostError{Errorf(AgentDown, "the agent ended while it was being asked (%v); see its log", err)}
	}
	return &lostError{Errorf(Failed, "the agent ended while it was being asked (%v), and may have done it: warmreboot status shows how it is, its log what happened", err)}
}

func talk(conn io.ReadWriter, method, path string, query url.Values, body []byte) (*answer, error) {
	if q := query.Encode(); q != "" {
		path += "?" + q
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.0\r\nHost: warmrebootd\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", method, path, ContentType, len(body))
	b.Write(body)
	if _, err := conn.Write(b.Bytes()); err != nil {
		return nil, err
	}
	head := bufio.NewReader(&bounded{conn, maxHead})
	text := textproto.NewReader(head)
	line, err := text.ReadLine()
	if err != nil {
		return nil, err
	}
	version, status, ok := strings.Cut(line, " ")
	if !ok || !strings.HasPrefix(version, "HTTP/1.") {
		return nil, fmt.Errorf("it does not speak HTTP but %.40q", line)
	}
	header, err := text.ReadMIMEHeader()
	if err != nil {
		return nil, err
	}
	// What has been read of the body by now comes first.
	begun, err := head.Peek(head.Buffered())
	if err != nil {
		return nil, err
	}
	return &answer{status: status, kind: header.Get("Content-Type"), body: io.MultiReader(bytes.NewReader(begun), conn)}, nil
}

const (
	// maxHead bounds the head of an answer, in bytes, maxResponse the rest of it, or
	// one line of a stream.
	maxHead     = 64 << 10
	maxResponse = 16 << 20
)

// bounded reads up to left bytes, and then says that there are more.
type bounded struct {
	r    io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errors.New("it is longer than an answer may be")
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// ask asks for an answer of a type.
func (c *Client) ask(ctx context.Context, method, path string, query url.Values, req any, kind string) (*answer, error) {
	var body []byte
	if req != nil {
		var err error
		if body, err = json.Marshal(req); err != nil {
			return nil, err
		}
	}
	if strings.Contains(path+"/", "//") { // an empty segment
		return nil, Errorf(BadRequest, "the name is empty; name a domain (by name, domid or UUID) or a schedule")
	}
	a, err := c.exchange(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	if a.kind == kind {
		return a, nil
	}
	defer a.close()
	if a.kind == ContentType { // an error, where a stream was asked for
		if _, err := decode[json.RawMessage](&bounded{a.body, maxResponse}); err != nil {
			return nil, err
		}
	}
	// What a daemon answers to a path that it does not know is not JSON.
	return nil, Errorf(VersionSkew, "the agent on %s does not know this request (%s): it is of another version; restart warmrebootd after an upgrade", c.socket, a.status)
}

// call asks, and reads one answer.
func call[T any](ctx context.Context, c *Client, method, path string, query url.Values, req any) (T, error) {
	a, err := c.ask(ctx, method, path, query, req, ContentType)
	if err != nil {
		var none T
		return none, err
	}
	defer a.close()
	v, err := decode[T](&bounded{a.body, maxResponse})
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return v, err
}

// decode reads an answer. With an error, the result holds what came with it.
func decode[T any](r io.Reader) (T, error) {
	var v Answer[T]
	if err := json.NewDecoder(r).Decode(&v); err != nil {
		var none T
		failed := Errorf(Failed, "the answer of the agent is not whole: %v; see its log", err)
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return none, &lostError{failed}
		}
		return none, failed
	}
	if v.Error != nil {
		return v.Result, v.Error
	}
	return v.Result, nil
}
