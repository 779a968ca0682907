package agent

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/warmreboot/warmreboot/api"
)

// DefaultPolicy is what enable uses where the operator says nothing.
var DefaultPolicy = api.Policy{Content: "sample=256", Uncertain: "full"}

// withDefaults fills in what is empty and checks the rest.
func withDefaults(p api.Policy) (api.Policy, error) {
	if p.Content == "" {
		p.Content = DefaultPolicy.Content
	}
	if p.Uncertain == "" {
		p.Uncertain = DefaultPolicy.Uncertain
	}
	if _, err := contentPages(p.Content); err != nil {
		return p, api.Errorf(api.BadRequest, "%v", err)
	}
	if p.Uncertain != "full" && p.Uncertain != "refuse" {
		return p, api.Errorf(api.BadRequest, "policy for uncertain custody is %q, must be full or refuse", p.Uncertain)
	}
	return p, nil
}

// allPages is contentPages' answer for "full".
const allPages = -1

// contentPages returns how many pages of a vbd a content policy compares.
func contentPages(policy string) (int, error) {
	switch policy {
	case "none":
		return 0, nil
	case "full":
		return allPages, nil
	}
	if n, ok := strings.CutPrefix(policy, "sample="); ok {
		if v, err := strconv.Atoi(n); err == nil && v > 0 {
			return v, nil
		}
	}
	return 0, fmt.Errorf("content policy is %q, must be none, sample=N or full", policy)
}
