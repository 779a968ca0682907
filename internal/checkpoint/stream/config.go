package stream

import (
	"encoding/json"
	"fmt"

	"github.com/warmreboot/warmreboot/ident"
)

// Domain returns the name and the UUID that the configuration gives the domain.
func (s *State) Domain() (name string, uuid ident.UUID, err error) {
	if len(s.Config) == 0 {
		return "", uuid, fmt.Errorf("the saved domain has no configuration in it")
	}
	var c struct {
		Info struct {
			Name string     `json:"name"`
			UUID ident.UUID `json:"uuid"`
		} `json:"c_info"`
	}
	if err := json.Unmarshal(s.Config, &c); err != nil {
		return "", uuid, fmt.Errorf("the saved domain's configuration: %w", err)
	}
	if c.Info.UUID.IsZero() {
		return "", uuid, fmt.Errorf("the saved domain's configuration has no UUID")
	}
	return c.Info.Name, c.Info.UUID, nil
}
