// Package disk knows what stands behind a vbd in dom0: which block device or
// file, how large it is, how much was written to it, and what its sectors
// hold. It reads xenstore (nodes that only dom0 can write), sysfs and the
// disks themselves, and writes nothing.
package disk
