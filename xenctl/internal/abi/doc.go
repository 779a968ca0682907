// Package abi holds the facts of the hypercall interface: numbers, flags and
// the memory layout of the structures that Xen and dom0 exchange. It has no
// behaviour.
//
// Names follow the C headers (xen/include/public). Padding is explicit, so
// that a structure can be copied into a hypercall buffer byte for byte. The
// layout is checked against the C headers by the tests of this package:
// testdata/layout.txt is printed by testdata/layout.c, built against the
// headers of the patched tree.
package abi
