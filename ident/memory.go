package ident

// PFN is the number of a page in a domain's memory.
type PFN uint64
