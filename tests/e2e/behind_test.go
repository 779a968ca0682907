package e2e

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab"
)

// The files that are changed behind the guest's back: one on each disk.
const (
	fileOnExt4 = "/srv/www/03/file-0003.bin" // of xvda, /dev/vdb in dom0
	fileOnXFS  = "/srv/img/image-0.bin"      // of xvdb, imageFile in dom0
	imageFile  = "/srv/img.raw"
)

// refusal, verdictOf and rebooted are what `warmreboot status -o json` says, as
// far as it is needed here.
type refusal struct {
	Reason  string `json:"reason"`
	Times   int    `json:"times"`
	Pages   uint64 `json:"pages"`
	Example string `json:"example"`
}

type verdictOf struct {
	Name       string    `json:"name"`
	Verdict    string    `json:"verdict"`
	Reason     string    `json:"reason"`
	Custody    string    `json:"custody"`
	Note       string    `json:"note"`
	Held       uint64    `json:"held"`
	Checked    uint64    `json:"checked"`
	Mismatches uint64    `json:"mismatches"`
	Refusals   []refusal `json:"refusals"`
}

type rebooted struct {
	Sequence       int         `json:"sequence"`
	Outcome        string      `json:"outcome"`
	Reason         string      `json:"reason"`
	PagesPreserved uint64      `json:"pages_preserved"`
	PagesApproved  uint64      `json:"pages_approved"`
	PagesRestored  uint64      `json:"pages_restored"`
	VBDs           []verdictOf `json:"vbds"`
}

type statusOf struct {
	Domid    int       `json:"domid"`
	Message  string    `json:"message"`
	Last     *rebooted `json:"last"`
	Custody  []struct{ Name, State, Reason string }
	Refusals []struct {
		Name     string    `json:"name"`
		Refusals []refusal `json:"refusals"`
	} `json:"refusals"`
}

func (b *bed) status(t *testing.T, flags ...string) statusOf {
	t.Helper()
	args := append([]string{"warmreboot", "status", "-o", "json"}, flags...)
	s, err := lab.JSON[statusOf](t.Context(), b.Machine.Dom0(), append(args, lab.Domain)...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// refused is how often pages of a disk have been refused or dropped for a
// reason since the domain was enabled.
func (s statusOf) refused(disk, reason string) (times int) {
	for _, v := range s.Refusals {
		for _, r := range v.Refusals {
			if v.Name == disk && r.Reason == reason {
				times += r.Times
			}
		}
	}
	return times
}

func (r *rebooted) vbd(t *testing.T, name string) verdictOf {
	t.Helper()
	for _, v := range r.VBDs {
		if v.Name == name {
			return v
		}
	}
	t.Fatalf("no %s in the summary %+v", name, *r)
	return verdictOf{}
}

// scene is a domU whose files dom0 can find on its disks.
type scene struct {
	*bed
	block  int64 // of fileOnExt4 on /dev/vdb, in pages
	offset int64 // of fileOnXFS in imageFile, in pages
}

// newScene finds the files while no guest uses the disks, keeps a copy of the
// image, and starts the domU.
func newScene(t *testing.T) *scene {
	s := &scene{bed: boot(t, lab.Variant{Unthrottled: true})}
	s.block = s.number(t, "debugfs -R 'bmap "+fileOnExt4+" 0' /dev/vdb 2>/dev/null")
	// The extent's address is printed as (group/block in the group).
	s.offset = s.number(t, `xfs_db -r -c 'sb 0' -c 'p agblocks' -c 'path /image-0.bin' -c bmap `+imageFile+` |
		sed -n 's/agblocks = //p; s/.*offset 0 startblock .*(\([0-9]*\)\/\([0-9]*\)).*/\1 \2/p' | tr '\n' ' ' | awk '{ print $2 * $1 + $3 }'`)
	s.dom0(t, "cp --sparse=always "+imageFile+" /srv/older.raw")
	s.create(t, true)
	return s
}

// load has the guest read files of both disks, so that their pages are known.
func (s *scene) load(t *testing.T) {
	t.Helper()
	s.domU(t, "cat /srv/www/03/* /srv/img/* >/dev/null")
}

// put returns a command that puts a text at the beginning of a page of a disk
// or an image file, and leaves the rest of it alone.
func put(text, to string, page int64, flags string) string {
	return fmt.Sprintf("printf '%%s' '%s' | dd of=%s bs=%d seek=%d conv=notrunc%s 2>/dev/null oflag=seek_bytes", text, to, len(text), page*4096, flags)
}

// putDirect is put past dom0's page cache, which takes whole pages only.
func putDirect(text, to string, page int64) string {
	return fmt.Sprintf("{ printf '%%s' '%s'; head -c %d /dev/zero; } >/tmp/page; dd if=/tmp/page of=%s bs=4096 seek=%d conv=notrunc oflag=direct 2>/dev/null",
		text, 4096-len(text), to, page)
}

// begins asserts what the guest reads at the beginning of a page of a file.
func (s *scene) begins(t *testing.T, file string, page int, want string) {
	t.Helper()
	got := s.domU(t, fmt.Sprintf("dd if=%s bs=4096 skip=%d count=1 2>/dev/null | head -c %d | tr '\\000' 0", file, page, len(want)))
	if got != want {
		t.Errorf("page %d of %s begins with %q, want %q", page, file, got, want)
	}
}

// comeBack creates the domU and returns the account of its reboot, when that
// has ended.
func (s *scene) comeBack(t *testing.T, config string) *rebooted {
	t.Helper()
	before := 0
	if last := s.status(t).Last; last != nil {
		before = last.Sequence
	}
	s.dom0(t, "xl create "+config)
	s.awaitDomU(t)
	last := s.status(t, "--wait", "--timeout", "9m").Last
	if last == nil || last.Sequence <= before {
		t.Fatalf("the agent has not seen the reboot after number %d: %+v", before, last)
	}
	return last
}

const ordinaryConfig = "/etc/xen/domU-web.cfg"

var all = flag.Bool("all", false, "TestDiskChangedBehind: all cases, also those that differ from another in little")

// behind is one way to change a disk while the guest is away.
type behind struct {
	name string
	disk string // that is changed: xvda or xvdb
	// change is done in dom0 after the guest has been destroyed; it says what
	// the file begins with from then on.
	change func(t *testing.T, s *scene, mark string) string
	// undo is a command for when the guest is up again.
	undo   string
	reason string // one of them, in the account of the reboot
	says   string // part of the account's text
	config string // if not the ordinary one
	always bool   // also without -all
	policy string // flags of enable, given before
	other  func(v verdictOf) bool
}

var behinds = []behind{
	{name: "mounted and edited", disk: "xvda", reason: "written", says: "were written while the guest was down",
		policy: "--content none", other: func(v verdictOf) bool { return v.Checked == 0 },
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, "mount -t ext4 /dev/vdb /mnt && "+put(mark, "/mnt"+fileOnExt4, 0, "")+" && umount /mnt")
			return mark
		}},
	{name: "image mounted and edited", always: true, disk: "xvdb", reason: "written", says: "while the guest was down",
		policy: "--content full",
		// The guest may have written to some that were checked.
		other: func(v verdictOf) bool { return v.Checked >= v.Held },
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, "mount -t xfs -o loop "+imageFile+" /mnt && "+put(mark, "/mnt/image-0.bin", 0, "")+" && umount /mnt")
			return mark
		}},
	{name: "dd", disk: "xvda", reason: "written", says: "were written while the guest was down",
		policy: "--content sample=20", other: func(v verdictOf) bool { return v.Checked == 20 },
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, putDirect(mark, "/dev/vdb", s.block))
			return mark
		}},
	{name: "dd to the image", disk: "xvdb", reason: "written", says: "while the guest was down", policy: "--content sample=256",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, put(mark, imageFile, s.offset, ""))
			return mark
		}},
	{name: "dd not yet written back", always: true, disk: "xvda", reason: "written", says: "were written while the guest was down",
		change: func(t *testing.T, s *scene, mark string) string {
			// A reader keeps the device open: else dd's close would write it out.
			s.dom0(t, "echo 0 >/proc/sys/vm/dirty_writeback_centisecs; sleep 3600 </dev/vdb >/dev/null 2>&1 & echo $! >/tmp/holder; sleep 0.2; "+
				put(mark, "/dev/vdb", s.block, ""))
			return mark
		}, undo: "kill $(cat /tmp/holder); echo 500 >/proc/sys/vm/dirty_writeback_centisecs"},
	{name: "loop device on top", disk: "xvda", reason: "in_use", says: "loop device /dev/loop",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, "losetup -f --show /dev/vdb >/tmp/loop && "+put(mark, "$(cat /tmp/loop)", s.block, ",fsync"))
			return mark
		}, undo: "losetup -d $(cat /tmp/loop)"},
	{name: "zeroed by blkdiscard", disk: "xvda", reason: "written", says: "were written while the guest was down",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, fmt.Sprintf("blkdiscard -z -o %d -l 4096 /dev/vdb", s.block*4096))
			return strings.Repeat("0", len(mark)) // begins prints zeroes as such
		}},
	{name: "fsck", disk: "xvda", reason: "written", says: "were written while the guest was down",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, "e2fsck -fy /dev/vdb >/tmp/fsck 2>&1 || [ $? -le 1 ]")
			return ""
		}},
	{name: "fsck of the image", disk: "xvdb", reason: "written", says: "while the guest was down",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, "xfs_repair -L "+imageFile+" >/tmp/fsck 2>&1")
			return ""
		}},
	{name: "written by another domain", always: true, disk: "xvda", reason: "written", says: "were written while the guest was down",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, `sed -e 's/domU-web/other/; s/6c0b01/6c0b02/; s/^disk.*/disk = [ "phy:\/dev\/vdb,xvda,w" ]/' `+ordinaryConfig+` >/tmp/other.cfg; xl create /tmp/other.cfg`)
			s.awaitDomU(t) // it has the same address
			s.domU(t, put(mark, fileOnExt4, 0, ",fsync"))
			s.dom0(t, "xl destroy other")
			return mark
		}},
	{name: "mounted in another namespace", disk: "xvda", reason: "in_use", says: "claimed it",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, "setsid unshare -m sh -c 'mount -t ext4 -o ro,noload /dev/vdb /mnt && echo $$ >/tmp/holder && exec sleep 3600' >/dev/null 2>&1 </dev/null & until [ -s /tmp/holder ] && kill -0 $(cat /tmp/holder); do sleep 0.1; done")
			return ""
		}, undo: "kill $(cat /tmp/holder); rm /tmp/holder"},
	{name: "open for writing", disk: "xvda", reason: "in_use", says: "has it open for writing",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, "sleep 3600 3<>/dev/vdb >/dev/null 2>&1 & echo $! >/tmp/holder; sleep 0.2")
			return ""
		}, undo: "kill $(cat /tmp/holder); rm /tmp/holder"},
	{name: "replaced by another of the same name", disk: "xvdb", reason: "identity", says: "the image file was replaced",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, "cp --sparse=always "+imageFile+" /srv/new.raw && "+put(mark, "/srv/new.raw", s.offset, "")+" && mv /srv/new.raw "+imageFile)
			return mark
		}},
	{name: "replaced, with size and time restored", always: true, disk: "xvdb", reason: "identity", says: "the image file was replaced",
		change: func(t *testing.T, s *scene, mark string) string {
			// The number of an inode that was removed is likely to be given again.
			s.dom0(t, "cp --sparse=always "+imageFile+" /srv/new.raw && touch -r "+imageFile+" /tmp/time && rm "+imageFile+" && cp --sparse=always /srv/new.raw "+imageFile+
				" && "+put(mark, imageFile, s.offset, "")+" && touch -r /tmp/time "+imageFile+" && rm /srv/new.raw")
			return mark
		}},
	{name: "changed in place, with the time restored", disk: "xvdb", reason: "written", says: "the guest was down",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, "touch -r "+imageFile+" /tmp/time && "+put(mark, imageFile, s.offset, "")+" && touch -r /tmp/time "+imageFile)
			return mark
		}},
	{name: "changed with the clock set back", disk: "xvdb", reason: "written", says: "the guest was down",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, "now=$(date +%s); touch -r "+imageFile+" /tmp/time; date -s @$((now - 86400)) >/dev/null; "+put(mark, imageFile, s.offset, "")+
				"; touch -r /tmp/time "+imageFile+"; date -s @$((now + 1)) >/dev/null")
			return mark
		}},
	{name: "rolled back to an older copy", always: true, disk: "xvdb", reason: "written", says: "the guest was down",
		change: func(t *testing.T, s *scene, mark string) string {
			old := s.dom0(t, fmt.Sprintf("dd if=/srv/older.raw bs=4096 skip=%d count=1 2>/dev/null | head -c %d | od -An -c | tr -d ' \\n'", s.offset, len(mark)))
			s.dom0(t, "cp --sparse=always /srv/older.raw "+imageFile)
			now := s.dom0(t, fmt.Sprintf("dd if=%s bs=4096 skip=%d count=1 2>/dev/null | head -c %d | od -An -c | tr -d ' \\n'", imageFile, s.offset, len(mark)))
			if old != now {
				t.Fatalf("the copy was not put back")
			}
			return "older"
		}},
	{name: "a hole punched", disk: "xvdb", reason: "written", says: "the guest was down",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, fmt.Sprintf("fallocate -p -o %d -l 4096 %s", s.offset*4096, imageFile))
			return strings.Repeat("0", len(mark))
		}},
	{name: "resized", disk: "xvdb", reason: "identity", says: "was resized",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, "truncate -s +16M "+imageFile)
			return ""
		}},
	{name: "another disk for the vbd", disk: "xvdb", reason: "identity", says: "the image file was replaced", config: "/tmp/swapped.cfg",
		change: func(t *testing.T, s *scene, mark string) string {
			s.dom0(t, "cp --sparse=always /srv/older.raw /srv/another.raw && "+put(mark, "/srv/another.raw", s.offset, "")+
				" && sed 's/img.raw/another.raw/' "+ordinaryConfig+" >/tmp/swapped.cfg")
			return mark
		}},
	{name: "and back", disk: "xvdb", reason: "identity", says: "the image file was replaced",
		change: func(*testing.T, *scene, string) string { return "" }},
	{name: "dd while the agent is dead", always: true, disk: "xvda", reason: "written", says: "were written while the guest was down",
		change: func(t *testing.T, s *scene, mark string) string {
			// It has seen the guest let go of the disk, and noted the counters.
			s.dom0(t, "kill -9 $(pidof warmrebootd); "+putDirect(mark, "/dev/vdb", s.block))
			if err := s.StartAgent(t.Context()); err != nil {
				t.Fatal(err)
			}
			return mark
		}},
}

// TestDiskChangedBehind: whatever is done to a disk while the guest is away, that
// disk comes back cold, for a reason that is told; the guest reads what the disk
// has now, and the other disk is warm.
func TestDiskChangedBehind(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i, c := range behinds {
		if !c.always && !*all {
			t.Logf("left out without -all: %s", c.name)
			continue
		}
		complete := false
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			start := time.Now()
			if c.policy != "" {
				s.dom0(t, "warmreboot enable "+c.policy+" domU-web")
			}
			s.load(t)
			times := s.status(t).refused(c.disk, c.reason)
			s.destroy(t)
			want := c.change(t, s, fmt.Sprintf("mark of case %02d", i))
			config := c.config
			if config == "" {
				config = ordinaryConfig
			}
			r := s.comeBack(t, config)
			s.refusedFor(t, r, c, times)
			file := map[string]string{"xvda": fileOnExt4, "xvdb": fileOnXFS}[c.disk]
			if want == "older" {
				s.sameAsOlder(t)
			} else {
				s.begins(t, file, 0, want)
			}
			s.check(t)
			if c.undo != "" {
				s.dom0(t, c.undo)
			}
			t.Logf("%.0f s: %+v", time.Since(start).Seconds(), r.vbd(t, c.disk))
			complete = true
		})
		if t.Failed() && !complete {
			return // what comes next would start from something unknown
		}
	}
}

// sameAsOlder asserts that the guest reads the file of the older copy.
func (s *scene) sameAsOlder(t *testing.T) {
	t.Helper()
	want := s.dom0(t, fmt.Sprintf("dd if=/srv/older.raw bs=4096 skip=%d count=1 2>/dev/null | sha256sum", s.offset))
	if got := s.domU(t, "dd if="+fileOnXFS+" bs=4096 count=1 2>/dev/null | busybox sha256sum"); got != want {
		t.Errorf("the guest reads %s, want %s", got, want)
	}
}

// refusedFor asserts that the changed disk, and only that, was refused, and that
// the account, the status and the journal say why.
func (s *scene) refusedFor(t *testing.T, r *rebooted, c behind, times int) {
	t.Helper()
	v := r.vbd(t, c.disk)
	if v.Verdict != "refused" || !strings.Contains(v.Reason, c.says) || len(v.Refusals) == 0 ||
		v.Refusals[0].Reason != c.reason || v.Refusals[0].Pages == 0 || v.Refusals[0].Example == "" {
		t.Errorf("the changed disk: %+v, want it refused as %q, saying %q", v, c.reason, c.says)
	}
	other := r.vbd(t, map[string]string{"xvda": "xvdb", "xvdb": "xvda"}[c.disk])
	if other.Verdict != "approved" || other.Held == 0 || other.Mismatches != 0 || c.other != nil && !c.other(other) {
		t.Errorf("the disk that was not changed: %+v", other)
	}
	if r.Outcome != "warm" || r.PagesRestored == 0 || r.PagesRestored > other.Held {
		t.Errorf("%d pages were restored of %d approved", r.PagesRestored, other.Held)
	}
	if now := s.status(t).refused(c.disk, c.reason); now != times+1 {
		t.Errorf("status counts %d refusals of %s as %s, want %d", now, c.disk, c.reason, times+1)
	}
	if text := s.dom0(t, "warmreboot status domU-web"); !strings.Contains(text, c.reason+": ") || !strings.Contains(text, c.says) {
		t.Errorf("status does not say %q and %q:\n%s", c.reason, c.says, text)
	}
	if entry := s.dom0(t, "warmreboot history domU-web --limit 1 -o json"); !strings.Contains(entry, `"reason": "`+c.reason+`"`) {
		t.Errorf("the history does not name %q: %s", c.reason, entry)
	}
	if log := s.dom0(t, "grep verdict /var/log/warmrebootd.log | tail -n 2"); !strings.Contains(log, "why="+c.reason) {
		t.Errorf("the log does not name %q: %s", c.reason, log)
	}
}
