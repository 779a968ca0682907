// Package hypercall runs the warm cache's own sources, as the series leaves
// them, in user space: under sanitizers, on a stand-in of the rest of Xen, with
// CPUs that come between each other wherever the input says so. It needs root,
// for a private root with the compiler, and the flag -lab; without the flag
// nothing is run, and that is said.
package hypercall

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/warmreboot/warmreboot/tests/lab/build"
)

var (
	onLab    = flag.Bool("lab", false, "run the tests, which need root and the cache of the lab")
	patch    = flag.String("patch", "", "apply this to the patched Xen first, to try a change")
	fuzzTime = flag.Duration("fuzz-time", 0, "let libFuzzer look for new inputs for so long")
	runs     = flag.Int("runs", 5000, "inputs made from seeds")
)

//go:embed harness
var harness embed.FS

func TestMain(m *testing.M) {
	flag.Parse()
	if !*onLab {
		fmt.Println("the lab is off: no test of this package was run; `make test-handlers` runs them")
		return
	}
	os.Exit(m.Run())
}

// sources are the files of Xen that are compiled as they are: the handlers, and
// the headers that are theirs or need nothing else.
var sources = []string{
	"xen/arch/x86/mm/warmcache.c", "xen/arch/x86/mm/warmcache-image.c", "xen/arch/x86/mm/warmcache.h",
	"xen/arch/x86/include/asm/warmcache.h", "xen/include/xen/warmcache.h",
	"xen/include/xen/list.h", "xen/include/xen/guest_access.h", "xen/include/xen/kconfig.h",
}

// standIns are the headers in whose place comes standin.h.
var standIns = []string{
	"xen/domain_page", "xen/event", "xen/hypercall", "xen/iommu", "xen/nospec", "xen/sched", "xen/xvmalloc", "xen/mm", "xen/types",
	"xen/spinlock", "xen/bug", "xen/timer", "asm/altp2m", "asm/hap", "asm/paging", "compat/warmcache", "asm/hvm/nestedhvm", "asm/mem_sharing", "asm/p2m",
	"asm/system", "xen/grant_table", "asm/guest_access", "asm/flushtlb", "xsm/xsm", "mm-locks", "generated/autoconf", "xen/param", "xen/string",
}

const sanitizers = "address,undefined"

var compilerFlags = []string{
	"-g", "-O1", "-std=gnu11", "-D__XEN__", "-D__XEN_TOOLS__", "-DCONFIG_WARMCACHE", "-Wall", "-Werror",
	"-Wno-unused", "-Wno-address-of-packed-member", "-fno-strict-aliasing", "-ftrivial-auto-var-init=pattern",
	"-fsanitize=fuzzer-no-link," + sanitizers, "-fno-sanitize-recover=all", "-fno-sanitize=pointer-overflow",
	"-fprofile-instr-generate", "-fcoverage-mapping",
	"-Iharness", "-Iinclude", "-I.", "-Ixen/include", "-Ixen/arch/x86/include", "-Ixen/arch/x86/mm",
}

// bench is the place where the programs are made and run.
type bench struct {
	cache *build.Cache
	tools build.Root
	xen   build.Series
	key   build.Key
}

func newBench(t *testing.T) bench {
	t.Helper()
	cache, checkout, err := build.Open()
	if err != nil {
		t.Fatal(err)
	}
	xen, err := checkout.Hypervisor(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	tools, err := cache.Sanitizers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	series, err := xen.Key()
	if err != nil {
		t.Fatal(err)
	}
	own, err := build.KeyOfTree(harness)
	if err != nil {
		t.Fatal(err)
	}
	var change []byte
	if *patch != "" {
		if change, err = os.ReadFile(*patch); err != nil {
			t.Fatal(err)
		}
	}
	return bench{cache, tools, xen, build.KeyOf("handlers 2", tools.Key, series, own, compilerFlags, sources, standIns, change)}
}

// program returns the folder with the programs "handlers" and "fuzz", made from
// the series as it is.
func (b bench) program(t *testing.T) string {
	t.Helper()
	dir, err := b.cache.Entry(t.Context(), "handlers", b.key, func(ctx context.Context, dir string) error {
		if err := b.prepare(ctx, dir); err != nil {
			return err
		}
		if err := b.compile(ctx, dir, nil, "handlers", "cpu", "memory", "operations", "scenario", "cases", "standalone", "main"); err != nil {
			return err
		}
		return b.link(ctx, dir, "fuzz", "-fsanitize=fuzzer,"+sanitizers, "main.o")
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (b bench) prepare(ctx context.Context, dir string) error {
	pristine, err := b.cache.Pristine(ctx, b.xen.Upstream)
	if err != nil {
		return err
	}
	public := "xen/include/public"
	if err := os.CopyFS(filepath.Join(dir, public), os.DirFS(filepath.Join(pristine, public))); err != nil {
		return err
	}
	files := append([]string{public + "/warmcache.h", public + "/domctl.h", public + "/memory.h"}, sources...)
	if err := b.cache.Patched(ctx, b.xen, dir, append(files, heap)...); err != nil {
		return err
	}
	if *patch != "" {
		path, err := filepath.Abs(*patch)
		if err != nil {
			return err
		}
		output, err := exec.CommandContext(ctx, "patch", "-p1", "--batch", "-d", dir, "-i", path).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, output)
		}
	}
	for _, header := range standIns {
		path := filepath.Join(dir, "include", header+".h")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte("#include \"standin.h\"\n"), 0o644); err != nil {
			return err
		}
	}
	if err := os.CopyFS(dir, harness); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, heap))
	if err != nil {
		return err
	}
	claims, err := between(string(text), "static long outstanding_claims;", "void get_outstanding_claims(")
	if err != nil {
		return fmt.Errorf("%s: %w", heap, err)
	}
	return os.WriteFile(filepath.Join(dir, claimsFile), []byte(claims), 0o644)
}

// claimsFile is that part of it, which the harness includes.
const claimsFile = "harness/claims.inc"

// heap is where Xen accounts for what domains have claimed and images keep.
// The allocator itself is played by the harness.
const heap = "xen/common/page_alloc.c"

// between is the part of a text from where one string begins to where another does.
func between(text, from, to string) (string, error) {
	_, rest, ok := strings.Cut(text, from)
	part, _, end := strings.Cut(rest, to)
	if !ok || !end {
		return "", fmt.Errorf("no part from %q to %q", from, to)
	}
	return from + part, nil
}

// compile compiles the named files of the harness, with more flags, and links
// the program "handlers".
func (b bench) compile(ctx context.Context, dir string, flags []string, names ...string) error {
	for _, name := range names {
		args := slices.Concat([]string{"clang-19"}, compilerFlags, flags, []string{"-c", "harness/" + name + ".c", "-o", name + ".o"})
		if err := b.tools.Run(ctx, dir, args...); err != nil {
			return err
		}
	}
	return b.link(ctx, dir, "handlers", append(flags, "-fsanitize=fuzzer-no-link,"+sanitizers, "standalone.o")...)
}

func (b bench) link(ctx context.Context, dir, program string, args ...string) error {
	command := []string{"clang-19", "-fprofile-instr-generate", "-o", program,
		"handlers.o", "cpu.o", "memory.o", "operations.o", "scenario.o", "cases.o"}
	return b.tools.Run(ctx, dir, append(command, args...)...)
}

// run runs a program in dir and returns what it printed. It leaves a profile, if
// it is given a name for that.
func (b bench) run(ctx context.Context, dir, profile string, args ...string) (string, error) {
	command := b.tools.Command(ctx, dir, args...)
	command.Env = append(command.Env, "ASAN_OPTIONS=detect_leaks=0", // leaks are counted by the harness
		"LLVM_PROFILE_FILE="+cmp.Or(profile, "/dev/null"))
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	err := command.Run()
	return output.String(), err
}

func (b bench) mustRun(t *testing.T, dir, profile string, args ...string) string {
	t.Helper()
	output, err := b.run(t.Context(), dir, profile, args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, output)
	}
	return output
}

// covered is how much of each of the two files has to be run, in lines. What is
// not are the ends of impossible cases.
const covered = 98.0

// TestHandlers runs the handlers as they are: in a domain's life and its next,
// with every allocation and every copy failing in turn, and preempted wherever
// Xen looks for that; in calls whose answers are known; with inputs made from
// seeds, and with those that TestFuzz has found something with. Then it looks which
// lines were not run.
func TestHandlers(t *testing.T) {
	b := newBench(t)
	dir := b.program(t)
	profiles, err := os.MkdirTemp(b.cache.Dir, "profiles-*") // where the root sees it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(profiles) })
	all := []string{"llvm-profdata-19", "merge", "-o", filepath.Join(profiles, "all")}
	found, err := fs.Glob(harness, "harness/inputs/*")
	if err != nil {
		t.Fatal(err)
	}
	ways := map[string][]string{
		"scenario": {"scenarios"}, "cases": {"cases"}, "seeds": {"random", "1", strconv.Itoa(*runs), "0"},
		"found": append([]string{"files"}, found...),
	}
	for name, args := range ways {
		t.Run(name, func(t *testing.T) {
			profile := filepath.Join(profiles, name)
			t.Log(b.mustRun(t, dir, profile, append([]string{"./handlers"}, args...)...))
			all = append(all, profile)
		})
	}
	if t.Failed() || len(all) < 4+len(ways) { // not all of them were asked for
		return
	}
	b.mustRun(t, dir, "", all...)
	missed := b.missed(t, dir, filepath.Join(profiles, "all"))
	for _, file := range sources[:2] {
		lines := missed[file]
		share := 100 - 100*float64(len(lines.missed))/float64(lines.all)
		t.Logf("%s: %.1f %% of %d lines were run, not\n%s", filepath.Base(file), share, lines.all, strings.Join(lines.missed, "\n"))
		if share < covered || lines.all < 200 {
			t.Errorf("%s: that is too little", file)
		}
	}
}

// coverage is of a file: its lines with code, and those that were not run.
type coverage struct {
	all    int
	missed []string
}

// missed reads a merged profile.
func (b bench) missed(t *testing.T, dir, profile string) map[string]coverage {
	t.Helper()
	report := b.mustRun(t, dir, "", "llvm-cov-19", "export", "-format=lcov", "-instr-profile="+profile, "handlers")
	files := map[string]coverage{}
	var file string // one of ours, or none
	var text []string
	for line := range strings.Lines(report) {
		kind, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch kind {
		case "SF":
			file = ""
			for _, source := range sources[:2] {
				if strings.HasSuffix(value, "/"+source) {
					file = source
				}
			}
			if file == "" {
				continue
			}
			content, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			text = strings.Split(string(content), "\n")
		case "DA":
			if file == "" {
				continue
			}
			var number, count int
			if _, err := fmt.Sscanf(value, "%d,%d", &number, &count); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			c := files[file]
			c.all++
			if count == 0 {
				c.missed = append(c.missed, fmt.Sprintf("%d: %s", number, text[number-1]))
			}
			files[file] = c
		}
	}
	return files
}

// TestFuzz lets libFuzzer look for inputs. What it finds stays in the cache.
func TestFuzz(t *testing.T) {
	if *fuzzTime == 0 {
		return // the other tests have run what is the same each time
	}
	b := newBench(t)
	dir := b.program(t)
	corpus := filepath.Join(b.cache.Dir, "corpus", "hypercall")
	if err := os.MkdirAll(corpus, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Log(b.mustRun(t, dir, "", "./fuzz", "-max_len=3000", "-len_control=0", "-timeout=300", "-print_final_stats=1",
		"-artifact_prefix="+corpus+"-", fmt.Sprintf("-max_total_time=%d", *fuzzTime/time.Second), corpus))
}

// variant is a way in which the handlers could be wrong.
type variant struct {
	name, file, old, new string
	also                 [2]string // another change that belongs to it
	run                  string    // what it is seen by; else by the seeds
}

var variants = []variant{
	{name: "commit with a reference left", file: "warmcache.c",
		old: "                    (pdx_to_page(wc_meta(wc, pfn)->pdx)->count_info &\n                     PGC_count_mask) == 1)) )",
		new: "                    true)) )"},
	{name: "register although somebody has a mapping", file: "warmcache.c",
		old: "((pdx_to_page(meta->pdx)->count_info & PGC_count_mask) != 1 &&", new: "(false &&"},
	{name: "the guest is trusted", file: "warmcache.h",
		old: "IS_ENABLED(CONFIG_WARMCACHE_TRUST_GUEST)", new: "true"},
	{name: "no flush", file: "warmcache.c",
		old: "        guest_flush_tlb_mask(d, d->dirty_cpumask);\n", new: ""},
	{name: "a lock is not released", file: "warmcache.c",
		old: "    wc->st.report = report;\n    spin_unlock(&wc->lock);\n", new: "    wc->st.report = report;\n", run: "scenarios"},
	{name: "an array is a page too short", file: "warmcache.c",
		old: "a->pages = xvzalloc_array(void *, DIV_ROUND_UP(nr, 1UL << a->shift));",
		new: "a->pages = xvzalloc_array(void *, (nr >> a->shift) ?: 1);"},
	{name: "an old entry of the sector stays", file: "warmcache.c",
		old: "    if ( old )\n    {\n        wc_drop(wc, old);\n        wc->st.replaced++;\n    }\n", new: ""},
	{name: "a write by the guest is not noticed", file: "warmcache.c",
		old: "             (!order && cache && meta->pdx == mfn_to_pdx(mfn)) )", new: "             !order )"},
	{name: "a foreign mapping is not noticed", file: "warmcache.c",
		old: "    if ( wc_state(wc, gfn) != WC_NONE )\n    {\n        wc_drop(wc, gfn);\n        wc->st.foreign_writes++;\n    }\n", new: ""},
	{name: "preserved with a reference left", file: "warmcache-image.c",
		old: "         cmpxchg(&page->count_info, PGC_allocated | 1UL, 0UL) ==\n         (PGC_allocated | 1UL) )",
		new: "         (page->count_info = 0) == 0 )"},
	{name: "the image of another UUID", file: "warmcache-image.c",
		old: "if ( !memcmp(img->handle, handle, sizeof(img->handle)) )", new: "if ( true )",
		also: [2]string{"same = !memcmp(img->handle, d->handle, sizeof(img->handle));", "same = true;"}},
	{name: "an image is leaked when it expires", file: "warmcache-image.c",
		old: "        /* No owner: the page is scrubbed before anyone gets it. */\n        free_domheap_page(page);\n", new: ""},
	{name: "held is not counted down", file: "warmcache.c",
		old: "                vbd->held--;\n", new: "                ;\n"},
	{name: "the guest's own grant is taken for the backend's", file: "warmcache.c",
		old: "wc_meta(wc, gfn)->ref == ref &&\n           d != current->domain;", new: "wc_meta(wc, gfn)->ref == ref;", run: "cases"},
	{name: "any grant is taken for the backend's", file: "warmcache.c",
		old: "wc_meta(wc, gfn)->ref == ref &&", new: "true &&"},
	{name: "a type reference is taken for the access", file: "warmcache.c",
		old: "wc_state(wc, gfn) == WC_READ_TYPING )", new: "wc_state(wc, gfn) == WC_READ_TYPING ||\n         wc_state(wc, gfn) == WC_READ )", run: "cases"},
	{name: "what is written to is tracked", file: "warmcache.c",
		old: "!(settled & (1ULL << i)) ||", new: "", run: "cases"},
	{name: "a write comes to be under way too late", file: "warmcache.c",
		old: "        if ( !op->cursor )\n            wc_begin_write(wc, &io[i]);\n        rc = wc_drop_range(wc, io[i].vbd, io[i].sector, io[i].nr_sectors,\n                           &op->cursor);\n        if ( rc )\n            break;\n",
		new: "        rc = wc_drop_range(wc, io[i].vbd, io[i].sector, io[i].nr_sectors,\n                           &op->cursor);\n        if ( rc )\n            break;\n        wc_begin_write(wc, &io[i]);\n", run: "cases"},
	{name: "it is looked for a write before the page is known", file: "warmcache.c",
		old: "    settled = wc->attached ? wc_settled(wc, io, nr) : 0;\n", new: "", also: [2]string{"    p2m_lock(p2m);\n    p2m->defer_npt_flush = true;\n",
			"    spin_lock(&wc->lock);\n    settled = wc_settled(wc, io, nr);\n    spin_unlock(&wc->lock);\n    p2m_lock(p2m);\n    p2m->defer_npt_flush = true;\n"}, run: "cases"},
	{name: "a write ends another one", file: "warmcache.c",
		old: "wc->writes[i].vbd == vbd && wc->writes[i].id == id", new: "true", run: "cases"},
	{name: "there is always room for a write", file: "warmcache.c",
		old: "    if ( wc->more_writes )\n        return 0;\n", new: "", run: "cases"},
	{name: "who has not attached can commit", file: "warmcache.c",
		old: "    if ( op->cmd == XEN_WARMCACHE_CMD_COMMIT && !wc->attached )\n", new: "    if ( false )\n", run: "cases"},
	{name: "who has attached can commit after the next kernel has begun", file: "warmcache.c",
		old: "    spin_lock(&wc->lock);\n\n    if ( op->cmd == XEN_WARMCACHE_CMD_COMMIT && !wc->attached )\n    {\n        spin_unlock(&wc->lock);\n        return -ENODEV;\n    }\n",
		new: "    if ( op->cmd == XEN_WARMCACHE_CMD_COMMIT && !wc->attached )\n        return -ENODEV;\n\n    spin_lock(&wc->lock);\n", run: "cases"},
	{name: "what is announced is tracked after the next kernel has begun", file: "warmcache.c",
		old: "wc->attached ? wc_settled(wc, io, nr) : 0", new: "wc_settled(wc, io, nr)", run: "cases"},
	{name: "what cannot be tracked stays known", file: "warmcache.c",
		old: "            wc_forget(wc, io[i].pfn);\n", new: "", run: "cases"},
	{name: "of what is said twice of a page the first counts", file: "warmcache.c",
		old: "    for ( i = nr; i--; )\n", new: "    for ( i = 0; i < nr; i++ )\n", run: "cases"},
	{name: "a page is adopted by a domain that runs", file: "warmcache-image.c",
		old: "if ( !d->creation_finished && wc_insert(", new: "if ( wc_insert(", run: "cases"},
	{name: "an image is bound to a domain that runs", file: "warmcache-image.c",
		old: "    if ( !same || d->is_dying || d->creation_finished )\n", new: "    if ( !same || d->is_dying )\n", run: "cases"},
	{name: "a migration does not learn that pages were cleared", file: "warmcache.c",
		old: "                    __set_bit(pfn - first, cleared);\n", new: "", run: "cases"},
	{name: "the next kernel is taken for the one before", file: "warmcache.c",
		old: "    if ( forget )\n", new: "    if ( false )\n", run: "cases"},
	{name: "a second grant is not noticed", file: "warmcache.c",
		old: "        wc_meta(wc, gfn)->state = WC_READ_SEEN;\n    else if ( wc_state(wc, gfn) != WC_NONE )\n", new: "        wc_meta(wc, gfn)->state = WC_READ_SEEN;\n    else if ( false )\n"},
	{name: "a write does not end the batch before it", file: "warmcache.c",
		old: "if ( wc_meets_earlier(io, i + 1) )", new: "if ( false )", run: "cases"},
	{name: "what is read after the kernel attached is taken for a boot loader's", file: "warmcache.c",
		old: "wc->st.held && !wc->attached &&", new: "wc->st.held &&", run: "cases"},
	{name: "what a boot loader does is not noticed", file: "warmcache.c",
		old: "            wc->early_io = true;\n", new: "            ;\n", run: "cases"},
	{name: "what a boot loader did is forgotten with the image", file: "warmcache-image.c",
		old: "    wc->early_io = img->early_io;\n", new: "", run: "cases"},
	{name: "a running domain is given what is kept", file: claimsFile,
		old: "(!d || !d->creation_finished || (memflags & MEMF_no_owner))", new: "true", run: "cases"},
	{name: "a domain that is created is not given what is kept", file: claimsFile,
		old: "(!d || !d->creation_finished || (memflags & MEMF_no_owner))", new: "false", run: "cases"},
	{name: "what is kept cannot be claimed", file: claimsFile,
		old: "total_avail_pages + kept_pages - outstanding_claims", new: "total_avail_pages - outstanding_claims", run: "cases"},
	{name: "all of an image is given up at once", file: "warmcache-image.c",
		old: "        wc_image_shrink(img, &pages, &tables);\n        /* Nothing to wait for", new: "        while ( !wc_image_shrink(img, &pages, &tables) );\n        /* Nothing to wait for", run: "cases"},
	{name: "memory is freed under the lock of the images", file: "warmcache-image.c",
		old: "    spin_unlock(&image_lock);\n\n    wc_free_taken(&pages, &tables);\n    if ( img )", new: "    wc_free_taken(&pages, &tables);\n    spin_unlock(&image_lock);\n    if ( img )", run: "scenarios"},
	{name: "the image of a UUID that is taken stays", file: "warmcache-image.c",
		old: "        img = wc_image_find(handle);\n        if ( img )\n            wc_image_move_to_released(img);\n    }\n", new: "    }\n", run: "cases"},
	{name: "dom0 is told that no image is kept, and then there is one", file: "warmcache-image.c",
		old: "    if ( !wc->enabled || !wc->armed )\n", new: "    if ( !wanted )\n",
		also: [2]string{"    flush_tlb_all();\n\n", "    spin_lock(&wc->lock);\n    bool wanted = wc->enabled && wc->armed;\n    spin_unlock(&wc->lock);\n    flush_tlb_all();\n\n"}, run: "cases"},
	{name: "an image is there for the next attempt although dom0 wants none", file: "warmcache-image.c",
		old: "again = wc->enabled && wc->armed &&", new: "again =", run: "cases"},
	{name: "an image is bound to a domain that has got another UUID", file: "warmcache-image.c",
		old: "same = !memcmp(img->handle, d->handle, sizeof(img->handle));", new: "same = true;", run: "cases"},
	{name: "a domain that has just been given an image gets another UUID", file: "warmcache-image.c",
		old: "if ( !d->creation_finished && wc && wc->st.preserved )", new: "if ( false )", run: "cases"},
	{name: "what comes too late out of an image is not cleared", file: "warmcache-image.c",
		old: "        if ( !tracked )\n            clear_domain_page(mfn);\n", new: "", run: "cases"},
	{name: "what comes too late out of an image is protected", file: "warmcache-image.c",
		old: "tracked ? p2m_ram_cache : p2m_ram_rw", new: "p2m_ram_cache", run: "cases"},
	{name: "an image outlives a domain that runs without it", file: "warmcache-image.c",
		old: "    wc_image_forgo(d->handle);\n\n    if ( d->warmcache )\n        wc_unbind(d->warmcache);\n\n    preserved", new: "    if ( d->warmcache )\n        wc_unbind(d->warmcache);\n\n    preserved", run: "cases"},
	{name: "an image under no UUID", file: "warmcache-image.c",
		old: "           memchr_inv(d->handle, 0, sizeof(d->handle)) &&\n", new: "", run: "cases"},
	{name: "an image that is bound does not expire", file: "warmcache-image.c",
		old: "    next = min(next, wc_expire(&bound, now));\n", new: "", run: "cases"},
	{name: "an attempt to create the domain ends the image", file: "warmcache-image.c",
		old: "again = wc->enabled && wc->armed &&", new: "again = false &&", run: "cases"},
	{name: "the image of a domain that is populated on demand stays", file: "warmcache-image.c",
		old: "    if ( d->warmcache )\n        wc_unbind(d->warmcache);\n", new: "", run: "cases"},
	{name: "no limit for images", file: "warmcache-image.c",
		old: "ok = nr_pages < max_pages;", new: "ok = true;", run: "cases"},
	{name: "refused pages are only forgotten", file: "warmcache.c",
		old: "                if ( scrub )\n", new: "                if ( false )\n", run: "cases"},
	{name: "pages that were approved are cleared", file: "warmcache.c",
		old: "scrub = !vbd->told;", new: "scrub = true;", run: "cases"},
	{name: "an image that cannot be made is leaked", file: "warmcache-image.c",
		old: "        wc_image_destroy(img);\n        return NULL;", new: "        return NULL;"},
	{name: "any version will do", file: "warmcache.c",
		old: "    if ( op.version != XEN_WARMCACHE_VERSION )\n        return -EACCES;\n", new: "", run: "cases"},
	{name: "a caller of 32 bits may name any address", file: "warmcache.c",
		old: "    if ( current->hcall_compat && (op.list >> 32) )\n", new: "    if ( false )\n", run: "cases"},
	{name: "a warm cache that appears in the middle of a call", file: "warmcache.c",
		old: "    wc = ACCESS_ONCE(d->warmcache);\n    if ( !wc || !ACCESS_ONCE(wc->enabled) )\n", new: "    if ( !warmcache_enabled(d) )\n",
		also: [2]string{"    struct warmcache *wc;\n    struct xen_warmcache_op op;", "    struct warmcache *wc = d->warmcache;\n    struct xen_warmcache_op op;"}, run: "cases"},
	{name: "pages are told to a kernel that has not attached", file: "warmcache.c",
		old: "    if ( !wc->attached )\n        /* Its writes", new: "    if ( false )\n        /* Its writes", run: "cases"},
	{name: "a batch may be longer", file: "warmcache.c",
		old: "op.nr > XEN_WARMCACHE_MAX_BATCH", new: "false", run: "cases"},
	{name: "pages are told without a verdict", file: "warmcache.c",
		old: "        rc = -EAGAIN;\n", new: "        rc = 0;\n", run: "cases"},
	{name: "the next range begins where the last one ended", file: "warmcache.c",
		old: "    *done = 0;\n\n    return 0;", new: "    return 0;", run: "cases"},
}

// What the harness, or a sanitizer, says when something is wrong, and with which
// input that was.
var (
	finding = regexp.MustCompile(`(?m)^(VIOLATION|.*ERROR: AddressSanitizer|.*runtime error).*`)
	seed    = regexp.MustCompile(`(?m)^seed \d+$`)
)

// TestVariants: each of a number of mistakes is found.
func TestVariants(t *testing.T) {
	b := newBench(t)
	base := b.program(t)
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			output, err := b.tryVariant(t, base, v)
			if err == nil {
				t.Fatalf("not found:\n%s", output)
			}
			if !finding.MatchString(output) {
				t.Fatalf("%v\n%s", err, output)
			}
			t.Log(finding.FindString(output), seed.FindString(output))
		})
	}
}

func (b bench) tryVariant(t *testing.T, base string, v variant) (string, error) {
	t.Helper()
	dir := filepath.Join(b.cache.Dir, "handlers-variant")
	unlock, err := b.cache.Lock("handlers-variant")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	v.apply(t, dir, base)
	unit := "handlers"
	if v.file == claimsFile {
		unit = "memory"
	}
	if err := b.compile(t.Context(), dir, []string{"-O0"}, unit); err != nil { // it is run for less long than it is compiled
		t.Fatal(err)
	}
	if v.run != "" {
		return b.run(t.Context(), dir, "", "./handlers", v.run)
	}
	return b.run(t.Context(), dir, "", "./handlers", "random", "1", strconv.Itoa(*runs), "0")
}
