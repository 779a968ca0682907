package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
	"github.com/warmreboot/warmreboot/tests/lab"
)

// The neighbour is a small domU, whose disk is an image file on the same disk as
// the first domU's image file. dom0 does not cache it.
const (
	neighbourName    = "domU-neighbour"
	neighbourAddress = "10.0.5.3"
	neighbourScript  = `set -e
root=$(mktemp -d /tmp/neighbour.XXXXXX)
mkdir $root/bin $root/dev $root/proc $root/sys $root/root
cp /bin/busybox /usr/local/sbin/labagent $root/bin/
cp /root/benchhand $root/root/
for applet in sh mount ip head sleep; do ln -s busybox $root/bin/$applet; done
cat >$root/init <<END
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
ip link set lo up
ip link set eth0 up
ip addr add 10.0.5.3 peer 10.0.5.1/32 dev eth0
exec /bin/labagent serve
END
chmod 755 $root/init
# Without holes, which would cost no reads.
busybox dd if=/dev/urandom of=/srv/neighbour.raw bs=1M count=64 2>/dev/null
mke2fs -q -t ext4 -O ^has_journal -E nodiscard -d $root -F /srv/neighbour.raw
rm -rf $root
sync
sed s/10.0.5.2/10.0.5.3/ /etc/xen/scripts/vif-lab >/etc/xen/scripts/vif-neighbour
chmod 755 /etc/xen/scripts/vif-neighbour
cat >/root/neighbour.cfg <<END
name = "domU-neighbour"
type = "pvh"
kernel = "/boot/guest-kernel"
cmdline = "root=/dev/xvda rootfstype=ext4 ro init=/init console=hvc0 panic=1 net.ifnames=0"
memory = 128
vcpus = 1
disk = [ "file:/srv/neighbour.raw,xvda,r" ]
vif = [ "script=vif-neighbour,mac=00:16:3e:00:00:03" ]
END
xl create /root/neighbour.cfg
for dir in /sys/block/loop*/loop; do
	[ "$(cat $dir/backing_file)" != /srv/neighbour.raw ] || /root/benchhand loop-direct /dev/$(basename $(dirname $dir))
done
`
)

// crash has the domU panic. Before an orderly reboot the guest unmounts the image,
// and its pages are gone; that is seen in the group of the recovery.
func (b *bench) crash(ctx context.Context) error {
	sequence, err := b.sequence(ctx)
	if err != nil {
		return err
	}
	if _, err := b.domU.Shell(ctx, "sync"); err != nil {
		return err
	}
	dying, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, _ = b.domU.Shell(dying, "echo c >/proc/sysrq-trigger") // the answer never comes
	reboot, err := b.awaitReboot(ctx, sequence)
	if err == nil && reboot.Outcome != "warm" {
		err = fmt.Errorf("the reboot was not a warm one: %s", reboot.Reason)
	}
	return err
}

// neighbour measures what another domU gets of a disk while the first one comes
// back, and reads its file in an image that dom0 has not cached.
func (b *bench) neighbour(ctx context.Context) error {
	if !b.has(Neighbour) {
		return nil
	}
	if _, err := b.dom0.Shell(ctx, neighbourScript); err != nil {
		return err
	}
	other := b.machine.At(neighbourAddress)
	waiting, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := other.Await(waiting); err != nil {
		return err
	}
	if _, err := inHand[hand.Result](ctx, b.domU, "pass", imageRoot, image); err != nil {
		return err
	}
	for repetition := range b.Repetitions {
		for _, variant := range rotated(variantsOf[Neighbour], repetition) {
			err := b.round(Neighbour, variant, repetition, func(r *Round) error { return b.share(ctx, r, other) })
			if err != nil {
				return err
			}
		}
	}
	_, err := b.dom0.Shell(ctx, "xl destroy "+neighbourName)
	return err
}

// share reboots the first domU, and has both read.
func (b *bench) share(ctx context.Context, r *Round, other *lab.Client) error {
	if r.Variant == Normal {
		if _, err := b.product.Reboot(ctx, "--cold"); err != nil {
			return err
		}
	} else if err := b.crash(ctx); err != nil {
		return err
	}
	if err := b.await(ctx); err != nil {
		return err
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	if _, err := inHand[hand.Result](ctx, b.domU, "pass", "/etc/nginx", phy); err != nil {
		return err
	}
	if _, err := b.dom0.Shell(ctx, "sync; echo 1 >/proc/sys/vm/drop_caches"); err != nil {
		return err
	}
	stream := func() (hand.Result, error) {
		return inHand[hand.Result](ctx, other, "stream", "/dev/xvda", int(1000*b.Sizes.Stream))
	}
	alone, err := stream()
	if err != nil {
		return err
	}
	var with hand.Result
	var streamErr error
	var group sync.WaitGroup
	group.Add(1)
	go func() {
		defer group.Done()
		with, streamErr = stream()
	}()
	own, err := inHand[hand.Result](ctx, b.domU, "pass", imageRoot, image)
	group.Wait()
	if err != nil || streamErr != nil {
		return fmt.Errorf("read side by side: %v, %v", err, streamErr)
	}
	r.take("own", own)
	rate := func(s hand.Result) float64 { return float64(s.Bytes) / s.Seconds / (1 << 20) }
	r.Values["neighbour_alone_mib_per_second"] = rate(alone)
	r.Values["neighbour_beside_mib_per_second"] = rate(with)
	r.Values["neighbour_share"] = rate(with) / rate(alone)
	return nil
}
