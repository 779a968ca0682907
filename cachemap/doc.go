// Package cachemap gives meaning to the cache-mapping table: which block of
// which disk, and which page of which file, a page of a domain's memory equals.
//
// It works on slices that somebody else has mapped, copies no entry, and
// knows neither Xen nor the disks. It needs no unsafe.
package cachemap
