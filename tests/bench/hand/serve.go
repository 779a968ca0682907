package hand

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime/debug"
	"strings"
	"time"
)

// Port is where Serve listens.
const Port = 71

// answer is what Serve says to a command.
type answer struct {
	Value json.RawMessage `json:"value,omitempty"`
	Error string          `json:"error,omitempty"`
}

// Serve performs the commands that come over TCP, each a JSON array of words. It
// is there so that what a program costs to start, and to read from a disk, is in
// none of the figures.
func Serve(ctx context.Context) error {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", Port))
	if err != nil {
		return err
	}
	debug.SetGCPercent(400) // a collection in the midst of a measurement is rare
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		// One after the other: whoever measures wants nobody beside.
		if err := converse(ctx, conn); err != nil {
			fmt.Println(err)
		}
	}
}

func converse(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	requests, answers := json.NewDecoder(conn), json.NewEncoder(conn)
	for {
		var args []string
		if err := requests.Decode(&args); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var out bytes.Buffer
		var a answer
		if err := Main(ctx, args, &out); err != nil {
			a.Error = err.Error()
		} else {
			a.Value = out.Bytes()
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

// servant is a connection to a Serve.
type servant struct {
	conn    net.Conn
	answers *json.Decoder
}

// connect waits a little, for the machine or the program may have been started
// just now.
func connect(ctx context.Context, address string) (*servant, error) {
	address = fmt.Sprintf("%s:%d", address, Port)
	if err := Await(ctx, address, 20*time.Second); err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &servant{conn, json.NewDecoder(conn)}, nil
}

func (s *servant) ask(args []string) (json.RawMessage, error) {
	if err := json.NewEncoder(s.conn).Encode(args); err != nil {
		return nil, err
	}
	var a answer
	if err := s.answers.Decode(&a); err != nil {
		return nil, fmt.Errorf("%v: %w", args, err)
	}
	if a.Error != "" {
		return nil, fmt.Errorf("%s", a.Error)
	}
	return a.Value, nil
}

// run runs a command of the machine, and returns what it prints.
func run(ctx context.Context, args []string) (string, error) {
	output, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	text := strings.TrimSpace(string(output))
	if err != nil {
		return text, fmt.Errorf("%v: %w: %s", args, err, text)
	}
	return text, nil
}
