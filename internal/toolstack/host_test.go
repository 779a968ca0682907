package toolstack_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/ident"
	"github.com/warmreboot/warmreboot/internal/bootonce"
	"github.com/warmreboot/warmreboot/internal/toolstack"
	"github.com/warmreboot/warmreboot/xenctl"
	"github.com/warmreboot/warmreboot/xenctl/libxl"
	"github.com/warmreboot/warmreboot/xenstore"
)

var (
	onHost    = flag.String("toolstack", "", "xl or libvirt: run the suite against this dom0's; it creates, reboots and destroys a domain")
	ofConfig  = flag.String("config", "", "the domain's configuration, an absolute path")
	ofUUID    = flag.String("uuid", "", "its UUID")
	guestExec = flag.String("exec", "", "where the guest runs commands, as the lab's agent does: http://ADDRESS:PORT/exec")
)

// TestMain is the loader, where libxl asks for it.
func TestMain(m *testing.M) {
	if bootonce.Asked(os.Args[1:]) {
		os.Exit(bootonce.Main(os.Args[1:], os.Stderr))
	}
	os.Exit(m.Run())
}

// TestHost is the suite against a real toolstack. tests/e2e runs it in the lab's dom0;
// without its flags there is nothing to run it on.
func TestHost(t *testing.T) {
	if *onHost == "" {
		t.Log("no toolstack is named: tests/e2e does, in the lab")
		return
	}
	xen, err := xenctl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer xen.Close()
	store, err := xenstore.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	uuid, err := ident.ParseUUID(*ofUUID)
	if err != nil {
		t.Fatal(err)
	}
	life := libxl.Xenstore{Store: store, Xen: xen}
	b := bed{config: *ofConfig, patience: 2 * time.Minute,
		domain: func() (toolstack.Domain, bool) {
			all, err := xen.Domains()
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range all {
				if d.UUID == uuid && d.Alive() {
					return toolstack.Domain{Domid: d.Domid, UUID: uuid, Name: "domU-web"}, true
				}
			}
			return toolstack.Domain{}, false
		},
		cmdline: func() (string, error) { return guestCmdline(t) }}
	loader, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	switch *onHost {
	case toolstack.XL:
		b.Driver = toolstack.Xl{Lifecycle: life, Host: toolstack.Here, Run: toolstack.Command, Beside: toolstack.Detached(), Loader: loader}
	case toolstack.Libvirt:
		b.Driver = toolstack.LibvirtDriver{Lifecycle: life, Host: toolstack.Here, Run: toolstack.Command, Loader: loader}
	default:
		t.Fatalf("there is no toolstack %q", *onHost)
	}
	conform(t, b)
}

func guestCmdline(t *testing.T) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	ask, err := http.NewRequestWithContext(ctx, http.MethodPost, *guestExec, bytes.NewReader([]byte(`{"args": ["cat", "/proc/cmdline"]}`)))
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(ask)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	line := ""
	for d := json.NewDecoder(answer.Body); ; {
		var frame struct {
			Stdout []byte `json:"stdout"`
			Exit   *int   `json:"exit"`
		}
		if err := d.Decode(&frame); err != nil {
			return "", err
		}
		line += string(frame.Stdout)
		if frame.Exit != nil {
			return line, nil
		}
	}
}
