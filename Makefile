# Everything is built outside the checkout, in $WARMREBOOT_CACHE (by default
# ~/.cache/warmreboot), except for what lies in build/.

SHELL = /bin/bash
CACHE = $(or $(WARMREBOOT_CACHE),$(HOME)/.cache/warmreboot)
# Go of Debian 13's backports, for machines that have none, or an old one: Debian
# 13's own is no longer mended upstream. It is linked statically, so that it runs on
# Debian 12 too.
GO_ROOT = $(CACHE)/go-root-1.26
export PATH := $(PATH):/usr/local/go/bin
GO_IS_NEW = go version 2>/dev/null | grep -Eq 'go1\.(2[6-9]|[3-9][0-9])'
ifneq ($(shell $(GO_IS_NEW) && echo yes),yes)
export PATH := $(GO_ROOT)/usr/lib/go-1.26/bin:$(PATH)
endif
BUILD = build
HOST_PACKAGES = ca-certificates debian-archive-keyring mmdebstrap git patch xz-utils util-linux gcc libc6-dev
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
ERRCHECK = github.com/kisielk/errcheck@v1.30.0

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# KERNEL=7.3: the domU runs that Linux. For demo, test-lab and lab-debug.
KERNEL = 6.12
ifeq ($(filter 6.12 7.3,$(KERNEL)),)
$(error KERNEL is $(KERNEL), there is 6.12 and 7.3)
endif
NEWER_KERNEL = $(if $(filter 7.3,$(KERNEL)),-newer-kernel)

.PHONY: demo
demo: $(BUILD)/labcmd ## the main job: nine steps on real Xen; writes build/demo/report.json
	$(BUILD)/labcmd -name demo demo $(NEWER_KERNEL)

.PHONY: test
test: deps ## lint + unit + page + monitoring + lab + Xen's handlers + the shortest benchmark + some faults
	$(MAKE) -j2 test-host lab-parts
	$(MAKE) test-lab
	$(MAKE) -j2 test-bench test-handlers test-faults

# One after the other, while the lab's parts are built, which leaves a processor
# idle a quarter of the time.
.PHONY: test-host
test-host:
	$(MAKE) -j1 lint
	$(MAKE) -j1 test-unit
	$(MAKE) -j1 test-page
	$(MAKE) -j1 test-monitoring

# The race detector needs a C compiler. The model runs on one goroutine, and takes
# more than ten minutes under it.
.PHONY: test-unit
test-unit: ## tests that need neither root nor the lab, under the race detector; needs gcc
	CGO_ENABLED=1 go test -race $$(go list ./... | grep -v '/tests/model$$')
	CGO_ENABLED=0 go test ./tests/model

.PHONY: test-handlers
test-handlers: deps ## Xen's handlers, in user space and under sanitizers; needs root, and boots nothing
	CGO_ENABLED=0 go test -count=1 -v -timeout 60m ./tests/hypercall -lab

# What `make test` runs of the lab tests: those that have been seen to pass on the
# lab as they are, and that fit into 90 minutes on two processors where all has to
# be built first. test-lab-all runs the others too.
LAB_TESTS = TestDemo TestFiveWarmReboots TestOrderlyShutdown TestNoAgent TestNotEnabled TestGuestSwitchedOff TestXenWithoutPatches TestPVGuest \
	TestABIReference TestHostileCallers TestHostileGuestsOwnIO TestOthersPages TestImagesGiveWay TestDiskChangedWhileRunning \
	TestDiskChangedBehind TestPowerCuts TestBlockErrors TestManyReboots \
	TestRolledBackBelow TestAgentKilled TestAgentAwayAndDisk TestBootLoader TestLeftInTheRing TestMemoryPressure TestMemorySizes TestLargeGuest TestGuestUnharmed TestSchedule TestUpdate TestOperators TestSavedAndMoved TestSeeing TestService TestPackages TestLibvirt

.PHONY: lab-parts
lab-parts: $(BUILD)/labcmd
	$(BUILD)/labcmd -name e2e prepare
	$(BUILD)/labcmd -name e2e prepare -stock-xen
	$(BUILD)/labcmd -name e2e prepare -systemd -no-product
	$(BUILD)/labcmd -name e2e prepare -trusting-xen -no-product

# A lab takes 2.3 GiB, and waits for its own clock for a part of the time: three
# side by side use two processors better than two, where there is memory for them.
SIDE_BY_SIDE = $(shell awk '/^MemTotal/ { print ($$2 > 12000000 ? 3 : 2) }' /proc/meminfo)

.PHONY: test-lab
test-lab: lab-parts ## tests on the lab that `make test` runs, two or three labs side by side; see LAB_TESTS and KERNEL
	CGO_ENABLED=0 go test -count=1 -v -parallel $(SIDE_BY_SIDE) -timeout 80m ./tests/e2e -lab $(NEWER_KERNEL) -run '^($(subst $() $(),|,$(strip $(LAB_TESTS))))$$'

.PHONY: test-lab-all
test-lab-all: lab-parts test-handlers test-faults ## every test on the lab; the handlers in user space; some faults
	CGO_ENABLED=0 go test -count=1 -v -timeout 90m ./tests/bench/lab -lab -run '^TestShortOnLab$$'
	CGO_ENABLED=0 go test -count=1 -v -parallel 2 -timeout 240m ./tests/e2e -lab -all -stress 10m
	$(MAKE) test-lab LAB_TESTS=TestDemo KERNEL=7.3

# RESTORES: how many checkpoints TestCheckpoint makes and restores; KILLS and SEEDS:
# how many writers of a store are killed, and how many stores are made and cut at
# some 750 places each.
RESTORES = 3
KILLS = 1000
SEEDS = 2

.PHONY: test-checkpoint
test-checkpoint: $(BUILD)/labcmd ## stores killed and cut, KILLS=n SEEDS=n; domUs saved and restored on stock Xen, RESTORES=n: 1 min each
	CGO_ENABLED=0 go test -count=1 -v -timeout 60m ./internal/checkpoint/store -run '^Test(Cuts|Killed)$$' -args -kills $(KILLS) -seeds $(SEEDS)
	$(BUILD)/labcmd -name e2e prepare -stock-xen -no-product
	CGO_ENABLED=0 go test -count=1 -v -timeout 240m ./tests/e2e -lab -run '^TestCheckpoint(Series)?$$' -restores $(RESTORES)

# CHECKPOINTS: how many BenchmarkMillion makes; a million take some ten minutes of
# one processor, and 5 GiB.
CHECKPOINTS = 1000000

.PHONY: bench-checkpoint
bench-checkpoint: ## what the store of checkpoints costs, on one processor: CHECKPOINTS=n
	CGO_ENABLED=0 go test -run '^$$' -bench 'Store|Metadata' -benchtime 5x ./internal/checkpoint/store
	CGO_ENABLED=0 go test -run '^$$' -bench Million -benchtime 100x -timeout 120m ./internal/checkpoint/store -args -checkpoints $(CHECKPOINTS)

# How long test-smp goes on.
STRESS = 1h

.PHONY: test-smp
test-smp: deps ## a domU with two vCPUs on two processors, stressed: STRESS=1h; builds a Xen with assertions first
	CGO_ENABLED=0 go test -count=1 -v -timeout 0 ./tests/e2e -lab -run '^TestSMPStress$$' -stress $(STRESS)

.PHONY: lab-debug
lab-debug: deps ## the guest's patches under a kernel with its own checks; builds that kernel first
	CGO_ENABLED=0 go test -count=1 -v -timeout 80m ./tests/e2e -lab $(NEWER_KERNEL) -run '^TestDebugKernel$$'

# What `make faults` does; see docs/consistency.md.
RUNS = 50
TYPES =
SEED = 1
MODE = both
SECONDS = 10
LABS = 1
FLAGS =

.PHONY: faults
faults: deps ## inject faults: RUNS=n TYPES=a,b SEED=s MODE=both|protected|trusting SECONDS=s LABS=n; writes build/faults/
	@mkdir -p $(BUILD)
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o $(BUILD)/faultscmd ./tests/faults/cmd/faults
	$(BUILD)/faultscmd -runs $(RUNS) -types '$(TYPES)' -seed $(SEED) -mode $(MODE) -seconds $(SECONDS) -labs $(LABS) $(FLAGS)

.PHONY: test-faults
test-faults: deps ## a small sample of the fault injection, with and without the protection
	CGO_ENABLED=0 go test -count=1 -v -timeout 30m ./tests/faults -lab

# How long `make fuzz` looks for inputs, with each target; FUZZ selects some.
FUZZTIME = 10s
FUZZ = .

.PHONY: fuzz
fuzz: deps ## fuzz Xen's handlers, in user space, and the decoders in Go: FUZZTIME=10s each, FUZZ=regexp
	@! grep -Eq '$(FUZZ)' <<<hypercall || CGO_ENABLED=0 go test -count=1 -v -timeout 0 ./tests/hypercall -lab -fuzz-time $(FUZZTIME)
	@set -e; git ls-files '*_test.go' | xargs grep -Ho '^func Fuzz[A-Za-z]*' | sed 's|/[^/]*:func | |' | grep -E '$(FUZZ)' | while read dir target; do \
		CGO_ENABLED=0 go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -parallel 1 ./$$dir </dev/null; done

.PHONY: test-page
test-page: ## the status pages and a report in a headless browser (Debian's chromium)
	@command -v chromium >/dev/null || { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core; }
	CGO_ENABLED=0 go test -count=1 -v -timeout 10m ./tests/page -browser

.PHONY: test-monitoring
test-monitoring: ## alert rules and dashboard, read by Debian's promtool
	@mkdir -p $(BUILD); [ -x $(BUILD)/promtool ] || { set -e; dir=$$(mktemp -d); trap "rm -rf $$dir" EXIT; chmod 755 $$dir; \
		(cd $$dir && { apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }; }) && dpkg-deb --fsys-tarfile $$dir/prometheus_*.deb | tar -xO ./usr/bin/promtool > $$dir/promtool; \
		chmod +x $$dir/promtool; mv $$dir/promtool $(BUILD)/promtool; }
	CGO_ENABLED=0 go test -count=1 -v ./tests/monitoring -promtool $(CURDIR)/$(BUILD)/promtool

# What compiles where there is no Xen and no Linux, for those who import the api or
# work on schedules elsewhere.
PORTABLE = ./ident ./api ./internal/schedule ./internal/state ./internal/config ./internal/reboot

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, errcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "not formatted: $$unformatted"; exit 1; }
	CGO_ENABLED=0 go vet ./...
	GOOS=darwin CGO_ENABLED=0 go vet $(PORTABLE)
	CGO_ENABLED=0 go vet -tags xenlight ./xenctl/libxl ./internal/daemon
	CGO_ENABLED=0 go run $(STATICCHECK) ./...
	CGO_ENABLED=0 go run $(ERRCHECK) -ignoretests -exclude .ci/errcheck.txt ./...
	go mod tidy -diff
	go mod verify

# REPS, WORKLOADS and BENCH: see tests/bench/lab; BENCH=-resume goes on with the
# report of a run that was broken off.
REPS = 5
WORKLOADS =
BENCH =

.PHONY: bench
bench: deps ## what a warm reboot is worth and costs: REPS=n WORKLOADS=a,b; writes build/bench/report.json, .html
	@mkdir -p $(BUILD)/bench
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o $(BUILD)/bench/lab ./tests/bench/lab
	$(BUILD)/bench/lab -dir $(BUILD)/bench -reps $(REPS) $(if $(WORKLOADS),-workloads $(WORKLOADS)) $(BENCH)

.PHONY: test-bench
test-bench: deps ## one round of each kind of the benchmark, on little work, to keep it alive
	CGO_ENABLED=0 go test -count=1 -v -timeout 30m ./tests/bench/lab -lab -run '^TestShortestOnLab$$'

# BENCH_AGENT: options of tests/bench/agent, e.g. '-sizes 1000000 -runs 1'.
.PHONY: bench-agent
bench-agent: ## what the agent costs, on tables of up to 5·10⁷ pages; writes build/bench/agent.json
	@mkdir -p $(BUILD)/bench
	CGO_ENABLED=0 go build -trimpath -o $(BUILD)/bench/agent ./tests/bench/agent
	$(BUILD)/bench/agent -dir $(BUILD)/bench $(BENCH_AGENT) > $(BUILD)/bench/agent.json.new
	mv $(BUILD)/bench/agent.json.new $(BUILD)/bench/agent.json

.PHONY: lab
lab: $(BUILD)/labcmd ## boot a lab to play with; see tests/lab/README.md
	$(BUILD)/labcmd boot

# KNOWN_VULNERABILITIES=yes: also if the newest base of Xen or Linux cannot be had
# and the one that is used lacks published security fixes.
KNOWN_VULNERABILITIES =

.PHONY: packages
packages: $(BUILD)/labcmd ## Debian packages of warmreboot, Xen and the guest kernel; in build/packages
	$(BUILD)/labcmd packages $(if $(filter yes,$(KNOWN_VULNERABILITIES)),-known-vulnerabilities)

.PHONY: patches-check
patches-check: $(BUILD)/labcmd ## prove both patch series: apply, build after each patch, export again
	$(BUILD)/labcmd patches check

.PHONY: patches-current
patches-current: $(BUILD)/labcmd ## fail if Debian has a newer Xen or Linux than the series are based on
	$(BUILD)/labcmd patches current

.PHONY: patches-refresh
patches-refresh: $(BUILD)/labcmd ## edit the series: make git trees of them, or export what was committed there
	$(BUILD)/labcmd patches refresh

.PHONY: deps
deps: ## install what the host needs (as root, by apt-get), and Go if it has none
	@missing=; for p in $(HOST_PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"; done; \
	[ -z "$$missing" ] || { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; }
	@$(GO_IS_NEW) || { set -e; \
		mirror=$${WARMREBOOT_MIRROR:-$$(apt-get indextargets --format '$$(LABEL)|$$(REPO_URI)' | sed -n 's/^Debian|//p' | head -n 1)}; \
		[ -n "$$mirror" ] || { echo 'apt knows no Debian mirror: run apt-get update, or set WARMREBOOT_MIRROR' >&2; exit 1; }; \
		mkdir -p $(CACHE); rm -rf $(GO_ROOT).tmp; \
		mmdebstrap --quiet --variant=extract --include=golang-1.26-go,golang-1.26-src trixie $(GO_ROOT).tmp \
			"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $$mirror trixie-backports main"; \
		mv $(GO_ROOT).tmp $(GO_ROOT); }

.PHONY: FORCE
$(BUILD)/labcmd: FORCE deps
	@mkdir -p $(BUILD)
	@CGO_ENABLED=0 go build -trimpath -buildvcs=false -o $@ ./tests/lab/cmd/lab

.PHONY: clean
clean: ## remove build/; the cache stays
	rm -rf $(BUILD)
