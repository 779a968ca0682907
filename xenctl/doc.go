// Package xenctl is the only package of this module that touches Xen: typed
// hypercalls, resources and foreign mappings of a dom0.
//
// It decides nothing. Every error names the operation and its arguments and
// wraps the errno, so that errors.Is holds for the errno as well as for the
// sentinels of this package.
package xenctl
