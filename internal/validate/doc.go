// Package validate decides, page by page, whether what Xen remembers of a
// domain's memory can be true: the structure of the table, and the bytes of
// pages against the bytes of their sectors. It changes nothing; whether a disk
// is the one it was is internal/custody's matter.
package validate
