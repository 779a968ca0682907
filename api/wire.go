package api

import "errors"

// ContentType is that of every request and answer but streams.
const ContentType = "application/json"

// Answer is the body of every answer but streams.
type Answer[T any] struct {
	Result T      `json:"result"`
	Error  *Error `json:"error,omitempty"`
}

// A long answer is a stream: a line of JSON for each thing, and a last one that
// says that it was all. An answer that ends without that line was cut off.

// StreamType is that of an answer that is a stream.
const StreamType = "application/x-ndjson"

// Line is one of a stream; exactly one of the three is there.
type Line[T any] struct {
	Item  *T     `json:"item,omitempty"`
	End   bool   `json:"end,omitempty"`
	Error *Error `json:"error,omitempty"`
}

// AsError returns err as one that can be sent: what has no code is Failed.
func AsError(err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		e = Errorf(Failed, "%v", err)
	}
	return e
}
