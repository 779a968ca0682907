package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"

	"github.com/warmreboot/warmreboot/internal/text"
)

// A long answer is a stream: a line of JSON for each thing, and a last one that
// says that it was all. An answer that ends without that line was cut off.

// streamType is that of an answer that is a stream.
const streamType = "application/x-ndjson"

// line is one of a stream; exactly one of the three is there.
type line[T any] struct {
	Item  *T     `json:"item,omitempty"`
	End   bool   `json:"end,omitempty"`
	Error *Error `json:"error,omitempty"`
}

// stream answers with all items. An error before the first is an ordinary answer.
func stream[T any](w http.ResponseWriter, items iter.Seq2[T, error]) {
	began := false
	enc := json.NewEncoder(w)
	begin := func() {
		if !began {
			w.Header().Set("Content-Type", streamType)
			began = true
		}
	}
	for item, err := range items {
		if err != nil {
			if !began {
				answer(w, struct{}{}, err)
				return
			}
			_ = enc.Encode(text.UTF8(line[T]{Error: asError(err)}))
			return
		}
		begin()
		if enc.Encode(text.UTF8(line[T]{Item: &item})) != nil {
			return // nobody reads it any more
		}
	}
	begin()
	_ = enc.Encode(line[T]{End: true})
}

// follow asks for a stream and yields its items, as they come. The last thing that
// it yields is an error, if it was not all.
func follow[T any](ctx context.Context, c *Client, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		resp, err := c.do(ctx, http.MethodGet, path, query, nil, streamType)
		if err != nil {
			yield(none, err)
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, maxResponse)
		for lines.Scan() {
			var l line[T]
			switch err := json.Unmarshal(lines.Bytes(), &l); {
			case err != nil:
				yield(none, Errorf(Failed, "answer of the agent: %v; see its log", err))
				return
			case l.Error != nil:
				yield(none, l.Error)
				return
			case l.End:
				return
			case l.Item != nil:
				if !yield(*l.Item, nil) {
					return
				}
			}
		}
		err = lines.Err()
		if err == nil {
			err = errors.New("the agent ended")
		}
		if ctx.Err() != nil {
			yield(none, ctx.Err())
			return
		}
		yield(none, Errorf(AgentDown, "the answer of the agent is not whole: it was cut off (%v); see its log", err))
	}
}
