package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/warmreboot/warmreboot/tests/bench/hand"
)

// The neighbour is a small domU, whose disk is an image file on the same disk as
// the first domU's image file. dom0 does not cache it.
const (
	neighbourName    = "domU-neighbour"
	neighbourAddress = "10.0.5.3"
	neighbourScript  = `set -e
if xl domid domU-neighbour >/dev/null 2>&1; then xl unpause domU-neighbour; exit; fi
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
tsc_mode = "native"
disk = [ "file:/srv/neighbour.raw,xvda,r" ]
vif = [ "script=vif-neighbour,mac=00:16:3e:00:00:03" ]
END
xl create /root/neighbour.cfg
for dir in /sys/block/loop*/loop; do
	[ "$(cat $dir/backing_file)" != /srv/neighbour.raw ] || /root/benchhand loop-direct /dev/$(basename $(dirname $dir))
done
`
)

// startNeighbour makes it. It runs only while it is measured.
func (b *bench) startNeighbour(ctx context.Context) error {
	if b.neighbour != nil {
		return nil
	}
	if _, err := b.dom0.Shell(ctx, neighbourScript); err != nil {
		return err
	}
	if err := b.awaitAddress(ctx, neighbourAddress); err != nil {
		return err
	}
	b.neighbour = b.machine.At(neighbourAddress)
	if err := b.serve(ctx, b.neighbour); err != nil {
		return err
	}
	_, err := b.dom0.Shell(ctx, "xl pause "+neighbourName)
	return err
}

// share measures what another domU gets of a disk from when the first one begins
// to read, for the first time since it was rebooted, a file in an image that dom0
// does not cache.
func (b *bench) share(ctx context.Context, r *Round) error {
	if _, err := b.dom0.Shell(ctx, "xl unpause "+neighbourName+"; sync; echo 1 >/proc/sys/vm/drop_caches"); err != nil {
		return err
	}
	stream := hand.Step{At: neighbourAddress, Args: []string{"stream", "/dev/xvda", fmt.Sprint(int(1000 * b.Sizes.Stream))}}
	first := step(true, "pass", besideRoot, 1, image)
	first.Beside = &stream
	outcomes, err := b.steps(ctx, 0, stream, first)
	if err != nil {
		return err
	}
	var alone, own, with hand.Result
	err = errors.Join(json.Unmarshal(outcomes[0].Value, &alone), json.Unmarshal(outcomes[1].Value, &own), json.Unmarshal(outcomes[1].Beside, &with))
	if err != nil {
		return err
	}
	r.take("beside", own, outcomes[1])
	rate := func(s hand.Result) float64 { return float64(s.Bytes) / s.Seconds / (1 << 20) }
	r.Values["neighbour_alone_mib_per_second"] = rate(alone)
	r.Values["neighbour_beside_mib_per_second"] = rate(with)
	r.Values["neighbour_share"] = rate(with) / rate(alone)
	if _, err := b.dom0.Shell(ctx, "xl pause "+neighbourName); err != nil {
		return err
	}
	// And dom0 is to have all of the image cached, as the read of the large file in
	// it is to find it. It is the domU that reads, for the agent would make no
	// difference between dom0's reading the image and writing to it.
	_, err = b.domU.Shell(ctx, "dd if=/dev/"+image+" of=/dev/null bs=1M iflag=direct")
	return err
}
