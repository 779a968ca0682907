package hand

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"

	"github.com/warmreboot/warmreboot/tests/lab/proc"
)

// Used is what has been used so far, as dom0 sees it.
type Used struct {
	Xen
	Agent float64           // seconds of processor time of warmrebootd
	disks map[string]counts // by dom0's names: its own, the domUs', and loop devices on them
}

// agentName is the process that is looked for.
const agentName = "warmrebootd"

// AskUsed is for dom0.
func AskUsed() (Used, error) {
	xen, err := AskXen()
	if err != nil {
		return Used{}, err
	}
	u := Used{Xen: xen, disks: make(map[string]counts)}
	processes, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return Used{}, err
	}
	for _, p := range processes {
		name, err := os.ReadFile(p)
		if err != nil || string(bytes.TrimSpace(name)) != agentName {
			continue // or it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
		if err != nil {
			return Used{}, err
		}
		seconds, err := proc.Time(pid)
		if err != nil {
			return Used{}, err
		}
		u.Agent += seconds
	}
	disks, err := os.ReadDir("/sys/block")
	if err != nil {
		return Used{}, err
	}
	for _, d := range disks {
		if u.disks[d.Name()], err = readDisk(d.Name()); err != nil {
			return Used{}, err
		}
	}
	return u, nil
}

// Since is what was used since an earlier moment, by name. Of a domain that was
// destroyed meanwhile nobody knows; all others but dom0 are together. Disks that
// nobody has ever read are left out.
func (u Used) Since(was Used) map[string]float64 {
	d := map[string]float64{"agent_cpu_seconds": u.Agent - was.Agent}
	for domid, now := range u.Processor {
		who := "domU_cpu_seconds"
		if domid == "0" {
			who = "dom0_cpu_seconds"
		}
		d[who] += now - was.Processor[domid]
	}
	for name, now := range u.disks {
		if now.reads > 0 {
			before := was.disks[name]
			d[name+"_requests"], d[name+"_bytes"] = float64(now.reads-before.reads), 512*float64(now.readSectors-before.readSectors)
		}
	}
	return d
}
