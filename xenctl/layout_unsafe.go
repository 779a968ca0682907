package xenctl

import (
	"unsafe"

	"github.com/warmreboot/warmreboot/cachemap"
	"github.com/warmreboot/warmreboot/xenctl/internal/abi"
)

// warmcacheStatusSize is the size in bytes of struct xen_warmcache_status.
const warmcacheStatusSize = uint32(unsafe.Sizeof(abi.WarmcacheStatus{}))

// The table is handed out as []cachemap.Entry: the two types must have the
// same layout. Each line fails to compile if they have not.
const (
	_ = -(unsafe.Sizeof(cachemap.Entry{}) - unsafe.Sizeof(abi.WarmcacheEntry{}))
	_ = -(unsafe.Sizeof(abi.WarmcacheEntry{}) - unsafe.Sizeof(cachemap.Entry{}))
	_ = -(unsafe.Offsetof(cachemap.Entry{}.Sector) ^ unsafe.Offsetof(abi.WarmcacheEntry{}.Sector))
	_ = -(unsafe.Offsetof(cachemap.Entry{}.Cookie) ^ unsafe.Offsetof(abi.WarmcacheEntry{}.Cookie))
	_ = -(unsafe.Offsetof(cachemap.Entry{}.VBD) ^ unsafe.Offsetof(abi.WarmcacheEntry{}.VBD))
)
