package model

// Rules is a set of checks that are made.
type Rules uint64

// A Rule is one check or hook, in Xen, in the guest's kernel or in dom0, without
// which something stale could come back, or something leak.
const (
	FaultHook Rules = 1 << iota
	P2MTypeHook
	P2MRemoveHook
	XenWriteHook
	ForeignHook
	GrantHook
	RegisterFlush
	RegisterRef
	RegisterReplacesPFN
	RegisterReplacesSector
	AnnouncedWriteDrops
	CommitSeen
	CommitRef
	CommitPending
	DropClearsHeld
	Unregister
	PreserveCommitted
	PreserveFrame
	PreserveRef
	PreserveAttached
	PreserveSuspended
	PreserveReplaces
	ImageUUID
	ImageOnce
	ImageScrub
	AdoptProtects
	AdoptOnlyHoles
	HoldResetsVerdict
	ApprovalNeeded
	RefusalDrops
	RefusalLasts
	ResetDisables
	EnableDrops
	KernelAnnouncesFirst
	KernelCommitsSuccess
	KernelComparesSector
	KernelAsksAgain
	AgentCustody
	AgentComparesAll
	AgentDropsOnBreach
	AdoptDropsIneligible // by the agent: dropUnadopted

	// What the code lacked until the model missed it.
	DropPending
	PreserveDecidesOnce
	AdoptScrubsFailed
	ImageFlush
	HandleWhileAdopted
	RegisterSettled
	GrantAnnounced
	KernelBegins
	AttachForgets

	allRules = 1<<iota - 1
)

// missing are the rules that the code does not have: findings. With all rules,
// the invariants hold; without any of these, a schedule breaks them.
// There are none today.
const missing Rules = 0

func (r Rules) has(x Rules) bool { return r&x != 0 }

// removal is a mutation: rules that are taken away together.
type removal struct {
	rules Rules
	where string // function of Xen, of Linux or of the agent
	what  string // what is not done any more
	// unseen says why nothing can go wrong without it alone, "" if something does.
	unseen string
}

var removals = []removal{
	{rules: FaultHook | P2MTypeHook, where: "hvm_hap_nested_page_fault, p2m_set_entry", what: "a write fault drops the page"},
	{rules: FaultHook, where: "paging_mark_pfn_dirty in hvm_hap_nested_page_fault", what: "a write fault drops the page before the P2M entry changes",
		unseen: "p2m_set_entry, called next, ends in warmcache_p2m_changing"},
	{rules: P2MTypeHook, where: "p2m_set_entry, same frame", what: "a change of type drops the page",
		unseen: "the write fault has called paging_mark_pfn_dirty before; the model has no other way to change the type"},
	{rules: P2MRemoveHook, where: "p2m_set_entry, other or no frame", what: "ballooning drops the page"},
	{rules: XenWriteHook, where: "paging_mark_pfn_dirty in __hvm_copy", what: "a write by Xen drops the page"},
	{rules: ForeignHook, where: "get_page_from_l1e, p2m_add_foreign", what: "a writable foreign mapping drops the page"},
	{rules: GrantHook, where: "wc_page_granted", what: "a second writable grant mapping drops the page"},
	{rules: RegisterFlush, where: "wc_register", what: "TLBs are flushed before the page is pending"},
	{rules: RegisterRef, where: "wc_register", what: "a page that somebody has mapped is not tracked"},
	{rules: RegisterReplacesPFN, where: "wc_protect", what: "what was known of the PFN is dropped"},
	{rules: RegisterReplacesSector, where: "wc_protect", what: "what was known of the sector is dropped",
		unseen: "both pages equal the block, and a write announced for it drops both"},
	{rules: AnnouncedWriteDrops, where: "wc_drop_range", what: "an announced write drops what is known of its sectors"},
	{rules: CommitSeen, where: "wc_commit_batch", what: "the backend's access must have been seen",
		unseen: "a kernel that commits only what the backend has answered has had it; another one harms itself"},
	{rules: CommitRef, where: "wc_commit_batch", what: "nobody else may have the page mapped"},
	{rules: CommitPending, where: "wc_commit_batch", what: "only a page that is pending is committed"},
	{rules: DropClearsHeld, where: "wc_drop", what: "the held bit goes with the reuse bit"},
	{rules: Unregister, where: "wc_commit_batch", what: "UNREGISTER drops",
		unseen: "what left the page cache still equals its block; a page whose I/O failed is never committed, and all else Xen sees by itself"},
	{rules: PreserveCommitted, where: "wc_preserve_page", what: "only committed pages are kept"},
	{rules: PreserveFrame, where: "wc_preserve_page", what: "the frame must be the one that was committed",
		unseen: "warmcache_p2m_changing has dropped the entry when the frame was exchanged"},
	{rules: PreserveFrame | P2MRemoveHook, where: "wc_preserve_page, p2m_set_entry", what: "neither looks at the frame"},
	{rules: PreserveRef, where: "wc_preserve_page", what: "pages that somebody has mapped are not kept"},
	{rules: PreserveAttached, where: "warmcache_preserve", what: "nothing is kept of a kernel that never attached"},
	{rules: PreserveSuspended, where: "warmcache_preserve", what: "nothing is kept of a suspended domain"},
	{rules: PreserveReplaces, where: "warmcache_preserve", what: "a new image replaces the old one",
		unseen: "with AdoptDropsIneligible no second image of a UUID can be left; see the next one"},
	{rules: PreserveReplaces | AdoptDropsIneligible, where: "warmcache_preserve, dropUnadopted", what: "an old image is left behind"},
	{rules: ImageUUID, where: "wc_image_find", what: "only the image of the UUID is adopted"},
	{rules: ImageOnce, where: "warmcache_adopt", what: "an image that is adopted is on no list"},
	{rules: ImageScrub, where: "free_domheap_pages in wc_image_shrink", what: "pages of an image are scrubbed"},
	{rules: AdoptProtects, where: "wc_adopt_page", what: "adopted pages are write-protected"},
	{rules: AdoptOnlyHoles, where: "wc_adopt_page", what: "a page is placed only where there is none",
		unseen: "the image is bound before the domain has its first page"},
	{rules: HoldResetsVerdict, where: "wc_hold", what: "a verdict is about the pages held when it was given"},
	{rules: ApprovalNeeded, where: "wc_get_approved", what: "there must be a verdict"},
	{rules: RefusalDrops | RefusalLasts, where: "wc_approve, wc_get_approved", what: "a refusal is heeded"},
	{rules: RefusalDrops, where: "wc_approve", what: "a refusal drops the held pages"},
	{rules: RefusalLasts, where: "wc_get_approved, wc_approve", what: "a refusal is final",
		unseen: "the refusal has dropped the pages"},
	{rules: ResetDisables, where: "warmcache_reset", what: "a soft reset turns the warm cache off"},
	{rules: EnableDrops, where: "wc_enable", what: "enabling again drops what was known"},
	{rules: KernelAnnouncesFirst, where: "Linux: blkif_queue_rq", what: "a write is announced before it is queued"},
	{rules: KernelCommitsSuccess, where: "Linux: __xen_warmcache_complete", what: "only I/O that succeeded is committed"},
	{rules: KernelComparesSector, where: "Linux: warmcache_sector_matches", what: "the file must have its block at the page's sector"},
	{rules: KernelAsksAgain, where: "Linux: warmcache_validate", what: "Xen is asked again with the page locked"},
	{rules: AgentCustody, where: "agent: custody", what: "a disk written to while no guest had it is refused"},
	{rules: AgentComparesAll, where: "agent: judge", what: "every page is compared if custody is uncertain"},
	{rules: AgentDropsOnBreach, where: "agent: readAccounts", what: "a disk written to behind a running guest is dropped"},

	{rules: DropPending, where: "wc_drop_all", what: "dom0's DROP covers pending pages"},
	{rules: PreserveDecidesOnce, where: "warmcache_preserve", what: "a preempted preservation goes on"},
	{rules: AdoptScrubsFailed, where: "wc_adopt_page", what: "a page that could not be placed is scrubbed"},
	{rules: AdoptDropsIneligible, where: "agent: dropUnadopted", what: "a domain that cannot adopt its image ends it"},
	{rules: ImageFlush, where: "wc_preserve_page", what: "TLBs are flushed before a page of an image changes hands"},
	{rules: HandleWhileAdopted, where: "XEN_DOMCTL_setdomainhandle", what: "a domain with adopted pages keeps its UUID until it has run"},
	{rules: RegisterSettled, where: "wc_settled", what: "a page is not tracked while another write to its sector is under way"},
	{rules: GrantAnnounced, where: "wc_expected", what: "the backend's access comes through the grant that was announced",
		unseen: "a kernel that keeps a page while its I/O is under way has no other I/O of it; another one harms itself"},
	{rules: KernelBegins, where: "warmcache_kernel_begins", what: "another kernel is not attached because the one before it was"},
	{rules: AttachForgets, where: "wc_attach", what: "a kernel that attaches begins with nothing if another one had been attached"},
}
