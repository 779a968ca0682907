package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab/agent"
	"github.com/warmreboot/warmreboot/tests/lab/proc"
)

// ExitError is a command that ended with another code than 0.
type ExitError struct {
	Args   []string
	Code   int
	Stderr string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: exit code %d: %s", strings.Join(e.Args, " "), e.Code, strings.TrimSpace(e.Stderr))
}

// Client talks to the agent in one of the lab's machines.
type Client struct {
	base string
	http *http.Client
}

func newClient(base string) *Client {
	return &Client{base: base, http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// Ping asks once whether the machine is up.
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	response, err := c.do(ctx, http.MethodGet, "/ping", nil)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// Await returns when the machine answers.
//
// Nothing tells the host that a machine inside the emulator has come up, so
// this asks again and again.
func (c *Client) Await(ctx context.Context) error {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := c.Ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("await %s: %w (last answer: %w)", c.base, ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// Stream runs a command and passes its output on as it comes. It returns the
// exit code; err is nil whatever the code is.
func (c *Client) Stream(ctx context.Context, request agent.ExecRequest, stdout, stderr io.Writer) (int, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return 0, err
	}
	response, err := c.do(ctx, http.MethodPost, "/exec", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	for frames := json.NewDecoder(response.Body); ; {
		var frame agent.Frame
		if err := frames.Decode(&frame); err != nil {
			return 0, fmt.Errorf("exec %s: connection lost: %w", strings.Join(request.Args, " "), err)
		}
		if frame.Error != "" {
			return 0, fmt.Errorf("exec: %s", frame.Error)
		}
		if frame.Exit != nil {
			return *frame.Exit, nil
		}
		_, outErr := stdout.Write(frame.Stdout)
		_, errErr := stderr.Write(frame.Stderr)
		if err := errors.Join(outErr, errErr); err != nil {
			return 0, err
		}
	}
}

// Run runs a command and returns what it printed. An exit code other than 0
// is an *ExitError; the output is returned then, too.
func (c *Client) Run(ctx context.Context, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	code, err := c.Stream(ctx, agent.ExecRequest{Args: args}, &stdout, &stderr)
	if err == nil && code != 0 {
		err = &ExitError{Args: args, Code: code, Stderr: stderr.String()}
	}
	return stdout.Bytes(), err
}

// Shell runs a line of shell and returns what it printed.
func (c *Client) Shell(ctx context.Context, line string) (string, error) {
	output, err := c.Run(ctx, "sh", "-c", line)
	return strings.TrimSpace(string(output)), err
}

// Busy is how many of the machine's processors are not idle, over two seconds.
func (c *Client) Busy(ctx context.Context) (float64, error) {
	output, err := c.Shell(ctx, "head -n 1 /proc/stat; sleep 2; head -n 1 /proc/stat")
	if err != nil {
		return 0, err
	}
	before, after, _ := strings.Cut(output, "\n")
	was, err := busyTicks(before)
	if err != nil {
		return 0, err
	}
	is, err := busyTicks(after)
	return float64(is-was) / (2 * proc.TicksPerSecond), err
}

// busyTicks parses the first line of /proc/stat (proc_stat(5)): user, nice,
// system, idle, iowait, irq, softirq and others, in ticks.
func busyTicks(line string) (int64, error) {
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("unknown line of /proc/stat: %q", line)
	}
	var busy int64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("unknown line of /proc/stat: %q", line)
		}
		busy += n
	}
	return busy, nil
}

// Put copies a file of the host into the machine.
func (c *Client) Put(ctx context.Context, local, remote string, mode os.FileMode) error {
	file, err := os.Open(local)
	if err != nil {
		return err
	}
	defer file.Close()
	return c.put(ctx, file, remote, mode)
}

// PutBytes creates a file in the machine.
func (c *Client) PutBytes(ctx context.Context, content []byte, remote string) error {
	return c.put(ctx, bytes.NewReader(content), remote, 0o644)
}

func (c *Client) put(ctx context.Context, content io.Reader, remote string, mode os.FileMode) error {
	query := url.Values{"path": {remote}, "mode": {fmt.Sprintf("%o", mode.Perm())}}
	response, err := c.do(ctx, http.MethodPut, "/file?"+query.Encode(), content)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// Get returns the content of a file in the machine.
func (c *Client) Get(ctx context.Context, remote string) ([]byte, error) {
	response, err := c.do(ctx, http.MethodGet, "/file?"+url.Values{"path": {remote}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(response.Body)
}

// Sums returns the SHA-256 of all files of a folder, as the machine computes
// them. It is with OpenSSL's code, which coreutils uses, that the emulator takes
// least: busybox takes it four times as long, and Go more.
func (c *Client) Sums(ctx context.Context, root string) (agent.Sums, error) {
	output, err := c.Shell(ctx, "cd "+root+" && find . -type f -print0 | xargs -0 sha256sum")
	if err != nil {
		return nil, err
	}
	sums := make(agent.Sums)
	for line := range strings.Lines(output) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ./")
		if !ok {
			return nil, fmt.Errorf("sums of %s: unknown line %q", root, line)
		}
		sums[name] = sum
	}
	return sums, nil
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1000)) // best effort: for the message only
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, strings.TrimSpace(string(text)))
	}
	return response, nil
}

// JSON runs a command that prints one JSON object and decodes it. The value is
// decoded also when the exit code is not 0, where there is one.
func JSON[T any](ctx context.Context, c *Client, args ...string) (T, error) {
	output, err := c.Run(ctx, args...)
	var exit *ExitError
	if err != nil && !errors.As(err, &exit) {
		var none T
		return none, err
	}
	value, decodeErr := agent.Decode[T](output)
	if err == nil && decodeErr != nil {
		err = fmt.Errorf("%s: %w", strings.Join(args, " "), decodeErr)
	}
	return value, err
}
