package lab

import (
	"fmt"

	"github.com/warmreboot/warmreboot/tests/lab/agent"
)

// At returns the agent in another domU, whose address dom0 can reach.
func (m *Machine) At(address string) *Client {
	return newClient(fmt.Sprintf("http://127.0.0.1:%d/via/%s:%d", m.Port, address, agent.Port))
}
