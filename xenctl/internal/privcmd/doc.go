// Package privcmd is dom0's door to Xen: /dev/xen/privcmd for hypercalls and
// for mapping other domains' frames, /dev/xen/hypercall for memory that a
// hypercall may be given the address of.
//
// It owns every raw pointer of this module. It knows no command of Xen: what
// the bytes mean is the caller's business.
package privcmd
