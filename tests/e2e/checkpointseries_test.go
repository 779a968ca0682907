package e2e

import (
	"flag"
	"fmt"
	"testing"
)

var inSeries = flag.Int("checkpoints", 6, "TestCheckpointSeries: how many checkpoints are made under each load")

// TestCheckpointSeries: what a series of checkpoints of a domU with 256 MiB takes, under
// different loads, and after each other in one store. Little of it is bounded: the
// figures are what it is for.
func TestCheckpointSeries(t *testing.T) {
	t.Parallel()
	const memory, wait = 256, 2
	b := bootCheckpoints(t, memory, "sqlite3")
	const inSegments = "du -cb /mnt/s/store/*/seg-*.log | tail -n 1 | cut -f 1"
	images := 0
	for _, load := range []struct{ name, line string }{
		{"idle", ":"},
		// A hundred thousand values of some 300 bytes, of which 1000 a second are given
		// another number and time; a tenth of them gets nine tenths of that.
		{"values", `perl -e '$h{$_}=sprintf("{\"id\":%d,\"name\":\"%s\",\"seen\":%010d,\"count\":%08d}",$_,"name-$_ "x30,0,0) for 0..99999; open F,">","/dev/shm/ready"; for(;;){ for(1..50){ $k=int(rand(10)<9?rand(10000):rand(100000)); $n++; substr($h{$k},-9,8)=sprintf("%08d",$n); substr($h{$k},-28,10)=sprintf("%010d",time) } select undef,undef,undef,0.05 }' & until [ -e /dev/shm/ready ]; do sleep 0.1; done`},
		// A database with a write-ahead log, on the domU's disk: 50 rows in each
		// transaction, some ten a second.
		{"SQLite", `rm -rf /var/tmp/s && mkdir /var/tmp/s && cd /var/tmp/s && sqlite3 db "PRAGMA journal_mode=WAL; CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price INTEGER, note TEXT); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<50000) INSERT INTO item SELECT i, 'item '||i, i*7, 'what there is to say about item '||i||' of the fifty thousand' FROM n;" && { while :; do echo "UPDATE item SET price=price+1 WHERE id IN (SELECT abs(random())%50000 FROM item LIMIT 50);"; sleep 0.1; done | sqlite3 db & }`},
	} {
		b.domU(t, "mkdir -p "+kept+"; { "+load.line+"; } >/dev/null 2>&1 </dev/null")
		changed, meta := 0.0, 0.0
		var begin int64 // of what is stored after the first one, which has the load's beginning in it
		for n := range *inSeries + 1 {
			b.domU(t, fmt.Sprintf("sleep %d", wait))
			said := b.take(t)
			var id string
			var pages int
			var c, mib, kib float64
			if _, err := fmt.Sscanf(said, "%s %d pages, %f changed, %f MiB stored, %f KiB", &id, &pages, &c, &mib, &kib); err != nil {
				t.Fatalf("%q: %v", said, err)
			}
			t.Log(load.name, said)
			images++
			if n == 0 {
				begin = b.number(t, inSegments)
			} else {
				changed, meta = changed+c, meta+kib
			}
		}
		stored := float64(b.number(t, inSegments)-begin) / (1 << 20)
		t.Logf("%s: %d checkpoints, %.0f pages changed in each, %.2f MiB stored, %.1f %% of the changed bytes; %.1f KiB not pages", load.name, *inSeries,
			changed/float64(*inSeries), stored/float64(*inSeries), 100*stored/(changed/256), meta/float64(*inSeries))
		b.domU(t, "/bin/busybox pkill perl; :")
		if mean := meta / float64(*inSeries); mean > 60 {
			t.Errorf("%s: %.1f KiB of a checkpoint are not pages", load.name, mean)
		}
	}
	all := float64(b.number(t, inSegments)) / (1 << 20)
	t.Logf("all %d: %.0f MiB stored, %.1f %% of as many images", images, all, 100*all/float64(images*memory))
	t.Log(b.timed(t, "verify", "warmcheckpoint verify"))
}
