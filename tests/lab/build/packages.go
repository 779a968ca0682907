package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// packagerPackages is what Debian packages are made and looked at with. They
// are apart from the tools, of which everything else is made.
var packagerPackages = []string{"ca-certificates", "debhelper", "lintian", "systemd", "man-db", "bash-completion", "fish", "zsh",
	"libxen-dev", "libc6-dev", "grub-common", "grub2-common", "linux-base"}

// Packager makes the root in which packages are built and checked.
func (c *Cache) Packager(ctx context.Context, bind ...string) (Root, error) {
	key := KeyOf("packager 1", packagerPackages)
	dir, err := c.Entry(ctx, "packager", key, func(ctx context.Context, dir string) error {
		return c.debootstrap(ctx, dir, packagerPackages)
	})
	return Root{Dir: dir, Key: key, Bind: append([]string{c.Dir}, bind...)}, err
}

// Packages are the Debian packages of a checkout.
type Packages struct {
	Product, Xen, Kernel string // files
	KernelRelease        string // as uname -r prints it
}

// All returns the files.
func (p Packages) All() []string { return []string{p.Product, p.Xen, p.Kernel} }

// ErrVulnerable says that packages would have published vulnerabilities in them.
var ErrVulnerable = errors.New("packages are not built from a base with published vulnerabilities")

// Packages builds the packages from what the lab boots, into build/packages,
// and has lintian look at them. If a base lacks security fixes the error is
// ErrVulnerable, unless vulnerable says that this is known.
func (c *Cache) Packages(ctx context.Context, tools Root, from Checkout, vulnerable bool) (Packages, error) {
	b := packageBuild{Cache: c, from: from, dir: filepath.Join(from.Dir, "build", "packages")}
	if err := b.bases(ctx, vulnerable); err != nil {
		return Packages{}, err
	}
	if err := os.RemoveAll(b.dir); err != nil {
		return Packages{}, err
	}
	b.source = filepath.Join(b.dir, "source")
	if err := b.collect(ctx, tools); err != nil {
		return Packages{}, err
	}
	if err := b.describe(ctx); err != nil {
		return Packages{}, err
	}
	root, err := c.Packager(ctx, from.Dir)
	if err != nil {
		return Packages{}, err
	}
	// Nothing is compiled, so there need be no compiler. Times in the packages are those of the commit: who builds it again gets
	// the same.
	environment := []string{"env", "SOURCE_DATE_EPOCH=" + strconv.FormatInt(b.commit.Unix(), 10)}
	if err := root.Run(ctx, b.source, append(environment, "dpkg-buildpackage", "--build=binary", "--no-sign", "--no-check-builddeps")...); err != nil {
		return Packages{}, err
	}
	built, err := filepath.Glob(filepath.Join(b.dir, "*.deb"))
	if err != nil {
		return Packages{}, err
	}
	slices.Sort(built)
	if len(built) != 3 {
		return Packages{}, fmt.Errorf("want three packages, found %q", built)
	}
	if err := root.Run(ctx, b.dir, append([]string{"lintian", "--fail-on=error,warning", "--allow-root"}, built...)...); err != nil {
		return Packages{}, err
	}
	if err := b.check(ctx, root, built[1]); err != nil {
		return Packages{}, err
	}
	return Packages{Kernel: built[0], Product: built[1], Xen: built[2], KernelRelease: b.release}, os.RemoveAll(b.source)
}

// check has those look at the product's package for whom its parts are made:
// systemd, man and the shells.
func (b *packageBuild) check(ctx context.Context, root Root, file string) error {
	dir := filepath.Join(b.dir, "unpacked")
	defer os.RemoveAll(dir)
	const script = `
dpkg-deb -x "$1" "$2"
cd "$2"
PATH=$2/usr/sbin:$PATH
fail() { echo "$*"; exit 1; }

# The unit names programs by where they will be.
sed "s|=/usr/sbin/|=$2/usr/sbin/|" usr/lib/systemd/system/warmrebootd.service >warmrebootd.service
complaints=$(systemd-analyze verify --man=no ./warmrebootd.service 2>&1) && [ -z "$complaints" ] || fail "unit: $complaints"
systemd-tmpfiles --dry-run --create usr/lib/tmpfiles.d/warmreboot.conf >/dev/null || fail tmpfiles

for page in warmreboot warmrebootd warmcheckpoint; do
	zcat usr/share/man/man8/$page.8.gz >$page.8
	complaints=$(man --warnings -l $page.8 2>&1 >$page.txt)
	[ -z "$complaints" ] || fail "$page(8): $complaints"
	grep -q SYNOPSIS $page.txt || fail "$page(8) is empty"
done

words=$(bash -c '. usr/share/bash-completion/completions/warmreboot; COMP_WORDS=(warmreboot di); COMP_CWORD=1; _warmreboot; echo "${COMPREPLY[@]}"')
[ "$words" = disable ] || fail "bash completes di to '$words'"
words=$(zsh -f -c 'words=(warmreboot di) CURRENT=2; compadd() { shift; print -r -- "$@" }; . usr/share/zsh/vendor-completions/_warmreboot')
[ "$words" = disable ] || fail "zsh completes di to '$words'"
words=$(fish --no-config -c 'source usr/share/fish/vendor_completions.d/warmreboot.fish; complete -C "warmreboot di"')
[ "$words" = disable ] || fail "fish completes di to '$words'"

# In bash, @ may separate words; a program that knows checkpoints stands in.
words=$(bash -c '. usr/share/bash-completion/completions/warmcheckpoint; COMP_LINE="warmcheckpoint di" COMP_POINT=17; _warmcheckpoint; echo "${COMPREPLY[@]}"')
[ "$words" = diff ] || fail "bash completes di of warmcheckpoint to '$words'"
words=$(bash -c '. usr/share/bash-completion/completions/warmcheckpoint; warmcheckpoint() { [ "$1 $2 $3 $4" = "__complete diff web@1 web@1" ] && printf "web@%d\n" 1 12; }
	COMP_LINE="warmcheckpoint diff web@1 web@1" COMP_POINT=31; _warmcheckpoint; echo "${COMPREPLY[@]}"')
[ "$words" = "1 12" ] || fail "bash completes web@1 to '$words'"
words=$(zsh -f -c 'words=(warmcheckpoint di) CURRENT=2; compadd() { shift; print -r -- "$@" }; . usr/share/zsh/vendor-completions/_warmcheckpoint')
[ "$words" = diff ] || fail "zsh completes di of warmcheckpoint to '$words'"
words=$(fish --no-config -c 'source usr/share/fish/vendor_completions.d/warmcheckpoint.fish; complete -C "warmcheckpoint di"')
[ "$words" = diff ] || fail "fish completes di of warmcheckpoint to '$words'"
`
	return root.Run(ctx, "/", "sh", "-e", "-c", script, "check", file, dir)
}

// packageBuild puts together the folder that dpkg-buildpackage works in.
type packageBuild struct {
	*Cache
	from        Checkout
	dir, source string

	commit      time.Time
	what        string // commit that it is built from
	version     string
	xen, kernel Series
	xenRelease  string // as in Debian's names: 4.20
	release     string // of the kernel
}

// bases settles on what Xen and the kernel are built from.
func (b *packageBuild) bases(ctx context.Context, vulnerable bool) error {
	var err error
	if b.xen, err = b.from.Hypervisor(ctx, b.Cache); err != nil {
		return err
	}
	if b.kernel, err = b.from.GuestKernel(ctx, b.Cache); err != nil {
		return err
	}
	if lacks := b.lacks(); len(lacks) > 0 && !vulnerable {
		return fmt.Errorf("%w: %s", ErrVulnerable, strings.Join(lacks, "; "))
	}
	return nil
}

// lacks says which base lacks which published security fixes.
func (b *packageBuild) lacks() []string {
	var lacks []string
	for _, base := range []Upstream{b.xen.Upstream, b.kernel.Upstream} {
		if base.Lacks != "" {
			lacks = append(lacks, fmt.Sprintf("%s %s lacks %s", base.Name, base.Version, base.Lacks))
		}
	}
	return lacks
}

// collect lays out what the packages consist of.
func (b *packageBuild) collect(ctx context.Context, tools Root) error {
	for _, dir := range []string{"programs", "man", "boot", "lib", "docs"} {
		if err := os.MkdirAll(filepath.Join(b.source, dir), 0o755); err != nil {
			return err
		}
	}
	if err := b.programs(ctx, tools); err != nil {
		return err
	}
	if err := b.hypervisor(ctx, tools); err != nil {
		return err
	}
	if err := b.guestKernel(ctx, tools); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(b.source, "completions"), os.DirFS(filepath.Join(b.from.Dir, "packaging", "completions"))); err != nil {
		return err
	}
	for _, dir := range []string{"monitoring", "guest"} {
		if err := os.CopyFS(filepath.Join(b.source, "docs", dir), os.DirFS(filepath.Join(b.from.Dir, "docs", dir))); err != nil {
			return err
		}
	}
	for _, name := range []string{"operations.md", "checkpoints.md"} {
		if err := CopyFile(filepath.Join(b.from.Dir, "docs", name), filepath.Join(b.source, "docs", name)); err != nil {
			return err
		}
	}
	return nil
}

func (b *packageBuild) programs(ctx context.Context, tools Root) error {
	if err := b.Xenlight(ctx, b.from); err != nil {
		return err
	}
	static := []string{"CGO_ENABLED=0", "GOFLAGS=-buildmode=pie"}
	for name, environment := range map[string][]string{"warmreboot": static, "warmcheckpoint": static,
		"warmrebootd": {"CGO_ENABLED=1", "GOFLAGS=-tags=xenlight -buildmode=pie -overlay=" + xenlightOverlay}} {
		// With the root's compilers, also where those of the machine would do:
		// the package is to be the same wherever it is built.
		if err := b.goBuildInRoot(ctx, tools, b.from, filepath.Join(b.source, "programs", name), "./cmd/"+name, environment...); err != nil {
			return err
		}
	}
	generate := filepath.Join(b.dir, "generate")
	if err := b.goBuild(ctx, tools, b.from, generate, "./packaging/generate", "CGO_ENABLED=0"); err != nil {
		return err
	}
	if err := runHost(ctx, generate, filepath.Join(b.source, "man")); err != nil {
		return err
	}
	return os.Remove(generate)
}

func (b *packageBuild) hypervisor(ctx context.Context, tools Root) error {
	parts := strings.SplitN(b.xen.Upstream.Version, ".", 3)
	if len(parts) < 2 {
		return fmt.Errorf("version of Xen is %q", b.xen.Upstream.Version)
	}
	b.xenRelease = parts[0] + "." + parts[1]
	plain, err := b.Xen(ctx, tools, b.xen, Patched)
	if err != nil {
		return err
	}
	target := filepath.Join(b.source, "boot", "xen-"+b.xenRelease+"-warmreboot-amd64")
	if err := CopyFile(plain, target); err != nil {
		return err
	}
	return tools.withBind(b.from.Dir).Run(ctx, "/", "gzip", "-9n", target)
}

func (b *packageBuild) guestKernel(ctx context.Context, tools Root) error {
	kernel, err := b.Kernel(ctx, tools, b.kernel, []string{b.from.GuestConfig()}, Patched)
	if err != nil {
		return err
	}
	modules, err := b.KernelModules(ctx, tools, b.kernel, b.from.GuestConfig(), Patched, kernel)
	if err != nil {
		return err
	}
	found, err := os.ReadDir(filepath.Join(modules, "lib", "modules"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("want one kernel release in %s, found %d: %w", modules, len(found), err)
	}
	b.release = found[0].Name()
	for from, to := range map[string]string{kernel.Image: "vmlinuz", filepath.Join(modules, "config"): "config",
		filepath.Join(modules, "System.map"): "System.map"} {
		if err := CopyFile(from, filepath.Join(b.source, "boot", to+"-"+b.release)); err != nil {
			return err
		}
	}
	return os.CopyFS(filepath.Join(b.source, "lib"), os.DirFS(filepath.Join(modules, "lib")))
}

// describe writes debian/: the files of packaging/debian, with versions filled
// in, also in their names, and a changelog.
func (b *packageBuild) describe(ctx context.Context) error {
	git := func(args ...string) (string, error) {
		output, err := exec.CommandContext(ctx, "git", append([]string{"-C", b.from.Dir}, args...)...).Output()
		return strings.TrimSpace(string(output)), err
	}
	seconds, err := git("log", "-1", "--format=%ct")
	if err != nil {
		return fmt.Errorf("ask git for the commit's time: %w", err)
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return err
	}
	b.commit = time.Unix(n, 0).UTC()
	if b.what, err = git("describe", "--always", "--dirty"); err != nil {
		return err
	}
	version, err := os.ReadFile(filepath.Join(b.from.Dir, "internal", "version", "VERSION"))
	if err != nil {
		return err
	}
	b.version = strings.TrimSpace(string(version))

	base, _, _ := strings.Cut(b.release, "-")
	fill := strings.NewReplacer("@XEN@", b.xenRelease, "@KERNEL@", b.release, "@KERNEL_BASE@", base)
	name := strings.NewReplacer("XEN", b.xenRelease, "KERNEL", b.release)
	target := filepath.Join(b.source, "debian")
	source := os.DirFS(filepath.Join(b.from.Dir, "packaging", "debian"))
	err = fs.WalkDir(source, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(target, path), 0o755)
		}
		text, err := fs.ReadFile(source, path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if bytes.HasPrefix(text, []byte("#!")) {
			mode = 0o755
		}
		return os.WriteFile(filepath.Join(target, name.Replace(path)), []byte(fill.Replace(string(text))), mode)
	})
	if err != nil {
		return err
	}
	changes := change("Built from commit " + b.what + ".")
	for _, lacks := range b.lacks() {
		changes += change("SECURITY: " + lacks + ".")
	}
	changelog := fmt.Sprintf("warmreboot (%s) unstable; urgency=medium\n\n%s\n -- warmreboot <warmreboot@localhost>  %s\n",
		b.version, changes, b.commit.Format(time.RFC1123Z))
	variables := fmt.Sprintf("XEN_PACKAGE = xen-hypervisor-%s-warmreboot-amd64\nXEN_VERSION = %s\nKERNEL_PACKAGE = linux-image-%s\nKERNEL_VERSION = %s\n",
		b.xenRelease, upstreamPart(b.xen.Upstream.Version)+"+warmreboot"+b.version, b.release, upstreamPart(b.kernel.Upstream.Version)+"+warmreboot"+b.version)
	return errors.Join(os.WriteFile(filepath.Join(target, "changelog"), []byte(changelog), 0o644),
		os.WriteFile(filepath.Join(b.source, "packaging.mk"), []byte(variables), 0o644))
}

// change is an entry of a Debian changelog, in lines of at most 80 columns where
// its words allow that.
func change(text string) string {
	entry, column := "  *", len("  *")
	for word := range strings.FieldsSeq(text) {
		if column+1+len(word) > 80 {
			entry, column = entry+"\n   ", len("   ")
		}
		entry, column = entry+" "+word, column+1+len(word)
	}
	return entry + "\n"
}

// upstreamPart is what comes before the first dash of a version: without
// Debian's revision and, in Xen's, the commit.
func upstreamPart(version string) string {
	part, _, _ := strings.Cut(version, "-")
	return part
}
