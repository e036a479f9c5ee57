# One command each. CI (.ci/run) runs the same lines.

GO          ?= go
ALL         := ./... ./cmd/kvtool/... ./kv/kvotel/... ./tests/device/... ./tests/processes/...
STATICCHECK ?= $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
CROSS       := linux/arm64 darwin/arm64 freebsd/amd64 linux/386
FUZZTIME    ?= 500x
LABORATORY  := Catch
N           ?= 10

# The benchmarks bring in the peers, which nothing else here is to be built with: so
# they are not in go.work.
in_bench    := cd tests/bench && GOWORK=off

.PHONY: build test plain race invariants test386 lint cross modules fuzz crash bench bench-quick bench-go demo

build:
	$(GO) build $(ALL)
	$(in_bench) $(GO) build -o /dev/null .

# All tests: as users build it, and under the race detector with the invariants
# checked. As root they also mount small file systems; elsewhere those tests skip
# and say so.
test: plain race

plain:
	$(GO) test $(ALL)
	$(in_bench) $(GO) test .

# What only tests the laboratory, and not the product, the plain pass runs alone. Else
# each process that the tests start would wait for a second when it ends.
race: export GORACE ?= atexit_sleep_ms=10
race:
	$(GO) test -race -tags invariants -skip $(LABORATORY) -timeout 30m $(ALL)

# The invariants without the race detector, which is faster.
invariants:
	$(GO) test -tags invariants -skip $(LABORATORY) $(ALL)

# The alignment of 64-bit atomics shows on a 32-bit machine, or a 64-bit one that runs
# such programs; some virtual ones do not. What draws at random for long runs elsewhere.
test386:
	@out=$$(GOARCH=386 $(GO) test -run '^$$' ./crc 2>&1) || case "$$out" in \
		*"exec format error"*) echo "SKIPPED: this machine runs no 32-bit programs, so that nothing is known of them but that they build"; exit 0;; \
		*) echo "$$out"; exit 1;; esac; \
	GOARCH=386 $(GO) test -skip '$(LABORATORY)|PowerCut$$|Failures$$|SegmentDamage$$|SalvageBetweenClaims|CheckpointDamage' ./crc ./codec ./mmapfile ./kv

lint:
	@out=$$(gofmt -l . | grep -v '\.pb\.go$$'); test -z "$$out" || { echo "gofmt would change:"; echo "$$out"; exit 1; }
	$(GO) vet $(ALL)
	$(STATICCHECK) $(ALL)
	$(in_bench) $(STATICCHECK) .

# What is supported, tests included; and elsewhere the module still compiles, to say
# that it is not. Unoptimised, and without the two analyses that go through all
# dependencies first, it takes three fifths of the time; lint has these.
cross: export GOFLAGS += '-gcflags=all=-N -l'
cross:
	@for t in $(CROSS); do echo "build and vet $$t"; \
		GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) build $(ALL) && \
		GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) vet -printf=false -lostcancel=false $(ALL) || exit 1; done
	GOOS=windows GOARCH=amd64 $(GO) build $(ALL)

# Each module builds by itself too, as its importers see it.
modules:
	GOWORK=off $(GO) build ./... && GOWORK=off $(GO) mod verify
	cd cmd/kvtool && GOWORK=off $(GO) vet ./... && GOWORK=off $(GO) mod tidy -diff
	cd kv/kvotel && GOWORK=off $(GO) vet ./... && GOWORK=off $(GO) mod tidy -diff
	cd tests/device && GOWORK=off $(GO) vet ./... && GOWORK=off $(GO) mod tidy -diff
	cd tests/processes && GOWORK=off $(GO) vet ./... && GOWORK=off $(GO) mod tidy -diff
	$(in_bench) $(GO) vet . && GOWORK=off $(GO) mod tidy -diff
	GOWORK=off $(GO) mod tidy -diff

# Every fuzz target for FUZZTIME: so many executions, or a time (10m). CI counts, for
# at the end of a time go test may fail without a finding (go.dev/issue/75804). Each package
# is built once.
fuzz:
	@set -e; built=$$(mktemp -d); trap 'rm -rf $$built' EXIT; \
	for p in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n 1 dirname | sort -u); do \
		$(GO) test -c -fuzz . -o $$built/test $$p; \
		for f in $$(grep -ho '^func Fuzz[A-Za-z0-9]*' $$p/*_test.go | sed 's/func //'); do \
			echo "fuzz $$p $$f"; (cd $$p && $$built/test -test.run '^$$' -test.fuzz "^$$f\$$" -test.fuzztime $(FUZZTIME) \
				-test.fuzzminimizetime 20x -test.fuzzcachedir "$$($(GO) env GOCACHE)/fuzz/$$(basename $$p)"); done; done

# The crash tests, at N times their usual length.
crash:
	$(GO) test ./kv -run 'TestPowerCut$$' -count 1 -timeout 0 -cuts $$((1000 * $(N))) -v
	$(GO) test ./kv -run 'TestFailures$$' -count 1 -timeout 0 -faults $$((500 * $(N))) -v
	$(GO) test ./tests -run 'Kill|Model|Damage|Truncat|Flip|Older|Forge|Salvage|Torn|Claims|Full|Accident|Beneath|Stray' -count 1 -timeout 0 \
		-scale $(N) -kills $$((100 * $(N))) -accidents $$((200 * $(N))) -v
	$(GO) test ./tests/device -count 1 -timeout 0 -cuts $$((100 * $(N))) -v
	$(GO) test ./tests/processes -count 1 -timeout 0 -rounds $$((20 * $(N))) -v

# Every store, every workload, every size, and cost as work grows, into docs/: many
# hours, in which the machine should do nothing else. After an interruption,
# `make bench BENCH=-resume` goes on.
bench:
	mkdir -p docs
	$(in_bench) $(GO) run . -out ../../docs $(BENCH)
	$(in_bench) $(GO) run . -scale -out ../../docs -resume

# The same with 100 000 keys and one run, to stdout: some minutes.
bench-quick:
	$(in_bench) $(GO) run . -quick $(BENCH)

# The benchmarks in Go's own form, for benchstat.
bench-go:
	$(GO) test ./kv -run '^$$' -bench . -count 5

demo:
	$(GO) run ./cmd/kvtool demo
