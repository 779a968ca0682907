package hand

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab/agent"
)

// Drive is a web server's client that asks for one file after the other, as
// long as its server reboots. Times are in seconds.
type Drive struct {
	Address string `json:"address"` // of the domU
	Files   int64  `json:"files"`   // that Make has made, below the web root
	// Think is how long the client waits between an answer and the next
	// question.
	Think float64 `json:"think"`
	// Before the reboot, and after the service is back, it asks for so long.
	Before float64 `json:"before"`
	After  float64 `json:"after"`
	// Command, run here, makes the domU reboot; or else Kill, run in the domU,
	// which does not come back from it.
	Command []string `json:"command,omitempty"`
	Kill    string   `json:"kill,omitempty"`
	// Prefetch is run in the domU as soon as the service is back, and counts
	// as a part of the time after.
	Prefetch []string `json:"prefetch,omitempty"`

	used func() (Used, error) // AskUsed, but in a test
}

// Bin is how long each count of Timeline covers, in seconds.
const Bin = 0.25

// Timeline is what the client has seen. Times are in seconds since it began.
type Timeline struct {
	Answers []int `json:"answers"` // complete ones, in each Bin
	// Command was given; no more answers from Down on; the first answer came at
	// Service; the client ended at End.
	Command float64 `json:"command"`
	Down    float64 `json:"down"`
	Service float64 `json:"service"`
	End     float64 `json:"end"`
	// PrefetchSeconds is what the prefetch took.
	PrefetchSeconds float64 `json:"prefetch_seconds,omitempty"`
	// Rate is answers per second before the command; AfterRate from Service to
	// End.
	Rate      float64 `json:"rate"`
	AfterRate float64 `json:"after_rate"`
	// Recovered is how long after Service the first second begins in which
	// there are 99 % of the answers of a second before, or -1: never seen.
	Recovered float64 `json:"recovered"`
	// Used is what was used from Command to Service; see Used.Since.
	Used map[string]float64 `json:"used"`
}

// While the server is away packets get no answer; TCP would try again after a
// second only, so connecting is begun anew. A server that was asked for
// something has less time to answer while it reboots, so that it is soon asked
// again.
const (
	connectTimeout   = 50 * time.Millisecond
	answerTimeout    = 20 * time.Second
	rebootingTimeout = 500 * time.Millisecond
	mostDown         = 5 * time.Minute
	// surelyDown is how many failures in a row are not just a slow answer.
	surelyDown = 3
)

// client is a Drive that runs.
type client struct {
	Drive
	http  *http.Client
	start time.Time
	next  int64
	ends  []float64 // of the complete answers
}

// Run asks, reboots, and asks on.
func (d Drive) Run(ctx context.Context) (Timeline, error) {
	dialer := &net.Dialer{Timeout: connectTimeout}
	c := &client{Drive: d, start: time.Now(), http: &http.Client{
		Timeout: answerTimeout, Transport: &http.Transport{DialContext: dialer.DialContext, MaxIdleConns: 1},
	}}
	var t Timeline
	for c.since() < d.Before {
		if err := c.ask(ctx); err != nil {
			return t, fmt.Errorf("before the reboot: %w", err)
		}
		c.think()
	}
	if d.used == nil {
		d.used = AskUsed
	}
	before, err := d.used()
	if err != nil {
		return t, err
	}
	t.Command = c.since()
	t.Rate = rate(c.ends)
	command := make(chan error, 1)
	go func() { command <- d.reboot(ctx) }()
	c.http.Timeout = rebootingTimeout
	for failures := 0; t.Service == 0; {
		err := c.ask(ctx)
		switch {
		case err != nil:
			failures++
		case failures >= surelyDown:
			t.Service = c.ends[len(c.ends)-1]
		default:
			failures, t.Down = 0, c.ends[len(c.ends)-1]
		}
		if c.since() > t.Command+mostDown.Seconds() {
			return t, fmt.Errorf("the service did not go and come back: %w", err)
		}
		c.think()
	}
	used, err := d.used()
	if err != nil {
		return t, err
	}
	t.Used = used.Since(before)
	t.Down = max(t.Down, t.Command)
	c.http.Timeout = answerTimeout
	first := len(c.ends) - 1
	wait := d.prefetch(ctx, &t)
	for c.since() < t.Service+d.After {
		if err := c.ask(ctx); err != nil {
			return t, fmt.Errorf("after the reboot: %w", err)
		}
		c.think()
	}
	t.End = c.since()
	t.AfterRate = rate(c.ends[first:])
	t.Recovered = recovered(c.ends[first:], t.Service, t.End, t.Rate)
	t.Answers = bins(c.ends, t.End)
	if err := wait(); err != nil {
		return t, err
	}
	return t, <-command
}

func (c *client) since() float64 { return time.Since(c.start).Seconds() }

func (c *client) think() { time.Sleep(time.Duration(c.Think * float64(time.Second))) }

// ask asks for the next file.
func (c *client) ask(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Address+"/"+fileName(c.next%c.Files), nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		c.http.CloseIdleConnections()
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	response.Body.Close()
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", request.URL, response.Status)
	}
	if err != nil {
		return err
	}
	c.next++
	c.ends = append(c.ends, c.since())
	return nil
}

func (d Drive) reboot(ctx context.Context) error {
	if d.Kill != "" {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_ = d.inDomU(ctx, []string{"sh", "-c", d.Kill}) // the answer never comes
		return nil
	}
	output, err := exec.CommandContext(ctx, d.Command[0], d.Command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w: %s", d.Command, err, bytes.TrimSpace(output))
	}
	return nil
}

// prefetch begins the prefetch, if there is one, and returns what waits for it.
func (d Drive) prefetch(ctx context.Context, t *Timeline) func() error {
	if len(d.Prefetch) == 0 {
		return func() error { return nil }
	}
	var err error
	var group sync.WaitGroup
	group.Add(1)
	go func() {
		defer group.Done()
		start := time.Now()
		err = d.inDomU(ctx, d.Prefetch)
		t.PrefetchSeconds = time.Since(start).Seconds()
	}()
	return func() error { group.Wait(); return err }
}

// inDomU runs a command by the lab's agent in the domU, which may come up a
// little later than the service.
func (d Drive) inDomU(ctx context.Context, args []string) error {
	body, err := json.Marshal(agent.ExecRequest{Args: args})
	if err != nil {
		return err
	}
	url := fmt.Sprintf("http://%s:%d/exec", d.Address, agent.Port)
	response, err := http.Post(url, "application/json", bytes.NewReader(body))
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline) && ctx.Err() == nil; {
		time.Sleep(20 * time.Millisecond)
		response, err = http.Post(url, "application/json", bytes.NewReader(body))
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	stop := context.AfterFunc(ctx, func() { response.Body.Close() })
	defer stop()
	var stderr bytes.Buffer
	for frames := json.NewDecoder(response.Body); ; {
		var frame agent.Frame
		if err := frames.Decode(&frame); err != nil {
			return err
		}
		stderr.Write(frame.Stderr)
		if frame.Error != "" {
			return fmt.Errorf("%v: %s", args, frame.Error)
		}
		if frame.Exit != nil {
			if *frame.Exit != 0 {
				return fmt.Errorf("%v: exit code %d: %s", args, *frame.Exit, stderr.String())
			}
			return nil
		}
	}
}

// rate is answers per second, from the first one to the last.
func rate(ends []float64) float64 {
	n := len(ends)
	if n < 2 {
		return 0
	}
	return float64(n-1) / (ends[n-1] - ends[0])
}

// bins counts the times in each bin up to end.
func bins(times []float64, end float64) []int {
	counts := make([]int, int(end/Bin)+1)
	for _, at := range times {
		counts[int(at/Bin)]++
	}
	return counts
}

// recovered returns how long after service the first second begins that has 99 %
// of rate answers, or -1.
func recovered(ends []float64, service, end, rate float64) float64 {
	last := 0
	for i, at := range ends {
		if at+1 > end {
			break
		}
		for last < len(ends) && ends[last] < at+1 {
			last++
		}
		// Half an answer, as answers are whole ones.
		if float64(last-i)+0.5 >= 0.99*rate {
			return at - service
		}
	}
	return -1
}
