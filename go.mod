module github.com/warmreboot/warmreboot

go 1.24

require (
	github.com/adhocore/gronx v1.20.4
	github.com/bits-and-blooms/bitset v1.24.0
	github.com/fsnotify/fsnotify v1.9.0
	github.com/urfave/cli/v2 v2.27.7
	go.etcd.io/bbolt v1.4.3
	golang.org/x/sys v0.35.0
)

require (
	github.com/cpuguy83/go-md2man/v2 v2.0.7 // indirect
	github.com/russross/blackfriday/v2 v2.1.0 // indirect
	github.com/xrash/smetrics v0.0.0-20240521201337-686a1a2994c1 // indirect
)

// Only files built with the tag xenlight import it. The Xen tree's
// tools/golang/xenlight is copied to build/xenlight for them; nothing else
// needs that folder to exist.
require github.com/xen-project/xen/tools/golang/xenlight v0.0.0

replace github.com/xen-project/xen/tools/golang/xenlight => ./build/xenlight
