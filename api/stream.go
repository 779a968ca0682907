package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/url"
)

// follow asks for a stream and yields its items, as they come. The last thing that
// it yields is an error, if it was not all.
func follow[T any](ctx context.Context, c *Client, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		a, err := c.ask(ctx, "GET", path, query, nil, StreamType)
		if err != nil {
			yield(none, err)
			return
		}
		defer a.close()
		lines := bufio.NewScanner(a.body)
		lines.Buffer(nil, maxResponse)
		for lines.Scan() {
			var l Line[T]
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
