package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/warmreboot/warmreboot/tests/lab"
)

const (
	grubDir     = "/boot/grub"
	grubEnv     = grubDir + "/grubenv"
	grubConfig  = "/tmp/grub.cfg"
	grubProgram = "/root/grub.bin"
)

// boots is what GRUB counts, in its environment block: it has no arithmetic.
var boots = []string{"first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"}

// grubMenu counts the boots, writes the number down, as distributions' menus do
// with recordfail, boot_success or saved_entry, and boots the kernel.
func grubMenu() string {
	menu := "load_env -f " + grubEnv + "\nif [ -z \"$boot\" ]; then boot=" + boots[0] + "\n"
	for i, last := range boots[:len(boots)-1] {
		menu += fmt.Sprintf("elif [ \"$boot\" = %s ]; then boot=%s\n", last, boots[i+1])
	}
	return menu + "fi\nsave_env -f " + grubEnv + " boot\n" +
		"linux /boot/guest-kernel root=/dev/xvda rootfstype=ext4 rw console=hvc0 panic=1 oops=panic net.ifnames=0\nboot\n"
}

// TestBootLoader boots the guest through a boot loader of its own, on its own disk,
// which writes to the disk each time, before the guest's kernel has attached: nobody
// announces that. The guest has the block in its page cache before each reboot, and
// must not find the old one there after it; what comes back otherwise is all but what
// the boot loader has taken for itself.
func TestBootLoader(t *testing.T) {
	t.Parallel()
	b := boot(t, lab.Variant{Unthrottled: true})
	cache, _, _, _ := patchedXen(t)
	grub, err := cache.BootLoader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Machine.Dom0().Put(t.Context(), grub, grubProgram, 0o644); err != nil {
		t.Fatal(err)
	}
	// The block has a fixed size and is written in place.
	b.dom0(t, "mount -t ext4 /dev/vdb /mnt && mkdir -p /mnt"+grubDir+" && cp /boot/guest-kernel /mnt/boot/ && cat >/mnt"+grubDir+"/grub.cfg <<'END'\n"+grubMenu()+"END\n"+
		"{ echo '# GRUB Environment Block'; head -c 999 /dev/zero | tr '\\0' '#'; } >/mnt"+grubEnv+" && umount /mnt")
	b.dom0(t, "sed -e 's|^kernel.*|kernel = \""+grubProgram+"\"|' -e /^cmdline/d "+ordinaryConfig+" >"+grubConfig)
	b.createEnabled(t, grubConfig)
	b.counted(t, 0)
	early := uint64(0)
	triggers := []string{"graceful", "force", "panic"}
	// GRUB takes up to a quarter of the memory, not the same each time. If the page has
	// been there in all three reboots, nothing is left of it, and there are more.
	for i := 0; i < len(triggers) || early == 0 && i < len(boots)-1; i++ {
		trigger := triggers[i%len(triggers)]
		b.domU(t, "cat /srv/www/0[0-3]/* >/dev/null; sync")
		b.counted(t, i) // so that it is in the page cache, and known
		before := b.dom0(t, "xl domid domU-web")
		switch trigger {
		case "panic":
			panicGuest(t, b.DomU())
		case "force":
			b.dom0(t, "warmreboot --force domU-web")
		default:
			b.dom0(t, "warmreboot domU-web")
		}
		if err := b.AwaitNewDomid(t.Context(), before); err != nil {
			t.Fatal(err)
		}
		b.awaitDomU(t)
		last := b.status(t, "--wait", "--timeout", "9m").Last
		if last == nil || last.Outcome != "warm" {
			t.Fatalf("%s: %+v", trigger, last)
		}
		d := last.vbd(t, "xvda")
		t.Logf("%s: %d of %d pages restored; %+v", trigger, last.PagesRestored, last.PagesPreserved, d)
		if float64(last.PagesRestored) < 0.6*float64(last.PagesPreserved) {
			t.Errorf("%s: %d of %d pages restored", trigger, last.PagesRestored, last.PagesPreserved)
		}
		b.counted(t, i+1)
		b.check(t)
		early += d.early()
	}
	if early == 0 {
		t.Error("no page was refused for a write before the kernel attached: the test has not seen what it is about")
	}
	b.verify(t)
}

// early is how many pages of the disk were refused since their block was written
// before the kernel attached.
func (v verdictOf) early() (pages uint64) {
	for _, r := range v.Refusals {
		if r.Reason == "early_io" {
			pages += r.Pages
		}
	}
	return pages
}

// counted asserts that the guest sees what its boot loader has written at the last
// of its boots, in its page cache and on the disk.
func (b *bed) counted(t *testing.T, boot int) {
	t.Helper()
	want := "boot=" + boots[boot]
	cached := b.domU(t, "grep ^boot= "+grubEnv)
	onDisk := b.domU(t, "dd if="+grubEnv+" iflag=direct bs=4096 count=1 2>/dev/null | grep ^boot=")
	if cached != want || strings.TrimSpace(onDisk) != want {
		t.Errorf("boot %d: the guest reads %q, and past its page cache %q; want %q", boot, cached, onDisk, want)
	}
}
