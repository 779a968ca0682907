package model

// random is splitmix64: a seed is a schedule, on every machine and for good.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// deck has each operation as often as its weight.
var deck = func() (d []uint8) {
	for i, o := range operations {
		for range o.weight {
			d = append(d, uint8(i))
		}
	}
	return d
}()

// steps is the length of a random schedule.
const steps = 64

// dealer deals the steps of a random schedule. Each schedule leaves out some
// operations, and some the variety of arguments: what is left meets more often.
type dealer struct {
	random
	enabled     [len(operations)]bool
	focus       [4]uint8 // operations that come more often
	a, b, c     uint8    // masks
	uuids       uint8    // how many
	kind, kinds uint8    // kinds[kind : kind+kinds]
	story       []Step   // what is left of a scenario
}

func deal(seed uint64) dealer {
	d := dealer{random: random(seed), a: 0xff, b: 0xff, c: 0xff, uuids: nUUIDs, kinds: uint8(len(kinds))}
	x := d.next()
	some, more := d.next(), d.next()
	for i, o := range operations {
		d.enabled[i] = x&1 != 0 || o.weight >= always || (some>>(i%64)|more>>(i/2))&1 != 0
		if o.subject == aFine && x&2 != 0 {
			d.enabled[i] = false
		}
	}
	for i := range d.focus {
		d.focus[i] = uint8(d.next() % uint64(len(operations)))
	}
	switch x >> 2 & 3 {
	case 0:
		d.b, d.c = 0x11, 0xf1
	case 1:
		d.b, d.c = 0x10, 0xf1
	}
	if x>>4&7 != 0 {
		d.a, d.uuids = 3, 1
	}
	switch x >> 7 & 7 {
	case 0, 1, 2:
		d.kinds = 1
	case 3:
		d.kind, d.kinds = 4, 1
	case 4:
		d.kinds = 6
	}
	if y := x >> 16; y&1 != 0 {
		d.story = scenarios[(y>>1&0xffff)*uint64(len(scenarios))>>16].steps
	}
	return d
}

// always is the weight from which on an operation is in each schedule.
const always = 8

func (d *dealer) step() Step {
	if len(d.story) > 0 && d.next()&7 != 0 {
		s := d.story[0]
		d.story = d.story[1:]
		return s
	}
	for {
		x := d.next()
		s := Step{Op: deck[(x&0xffff)*uint64(len(deck))>>16], A: uint8(x>>32) & d.a, B: uint8(x>>40) & d.b, C: uint8(x>>48) & d.c}
		if y := x >> 16; y&3 == 0 {
			s.Op = d.focus[y>>2&3]
		} else if !d.enabled[s.Op] {
			continue
		}
		switch operations[s.Op].subject {
		case aUUID:
			s.A %= d.uuids
		case aKind:
			s.A %= d.uuids
			s.B = d.kind + uint8(x>>56)%d.kinds
		}
		return s
	}
}

// Run takes a random schedule, until something is wrong or it is over.
func (w *World) Run(rules Rules, seed uint64) (failure string) {
	w.Reset(rules)
	d := deal(seed)
	for range steps {
		w.Apply(d.step())
		if w.bad != "" {
			return w.bad
		}
	}
	w.finish()
	return w.bad
}

// Schedule is the random schedule of a seed.
func Schedule(seed uint64) []Step {
	d := deal(seed)
	s := make([]Step, steps)
	for i := range s {
		s[i] = d.step()
	}
	return s
}

// Replay takes a schedule, and returns what went wrong.
func (w *World) Replay(rules Rules, schedule []Step) string {
	w.Reset(rules)
	for _, s := range schedule {
		w.Apply(s)
		if w.bad != "" {
			return w.bad
		}
	}
	w.finish()
	return w.bad
}

// Shrink makes a schedule that fails smaller for as long as it still fails in the
// same way: parts are left out, then arguments made small.
func Shrink(rules Rules, schedule []Step) []Step {
	var w World
	failure := w.Replay(rules, schedule)
	fails := func(s []Step) bool { return w.Replay(rules, s) == failure }
	for again := true; again; {
		again = false
		for n := len(schedule); n >= 1; n /= 2 {
			for i := 0; i+n <= len(schedule); {
				shorter := append(append([]Step{}, schedule[:i]...), schedule[i+n:]...)
				if fails(shorter) {
					schedule, again = shorter, true
				} else {
					i++
				}
			}
		}
		for i := range schedule {
			for _, arg := range []*uint8{&schedule[i].A, &schedule[i].B, &schedule[i].C} {
				was := *arg
				for *arg = 0; *arg < was && !fails(schedule); *arg++ {
				}
				again = again || *arg != was
			}
		}
	}
	return schedule
}
