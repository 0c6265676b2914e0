# Targets for people and for CI. `make` alone builds the command.
#
#   make demo     a layered attestation on software TPMs, and attacks on it
#   make test     vet and all tests, those on real software TPMs included
#   make e2e      real boots under QEMU: host and guest, tampered and not (10 minutes)
#   make e2e-quick   a few of them
#   make openstack  this program on real OpenStack services and a real guest: root,
#                   Debian, about five minutes
#   make lint     format, static analysis, this module's own rules, stale files
#   make docs     write CHECKS.md and docs/deepattest.1 again
#   make soundness   evidence of honest sessions in every mixture: none but their own is trusted (half an hour)
#   make recorded DIR=...   real clouds' evidence in a folder of your own, verified and,
#                 with mutations of it, compared with other verifiers (3 minutes)
#   make fuzz     every fuzz target for FUZZTIME (default 60s)
#   make mutate   conditions of quote, verify and policy that no test would miss;
#                 an hour; minutes with FILES='verify/link.go policy/section.go:40',
#                 one with MUTATE=-reach, which only looks what no test decides both ways

GO       ?= go
BIN      ?= bin/deepattest
FUZZTIME ?= 60s
BENCH    ?= .
BENCHTIME ?= 1s

CMD = ./cmd/deepattest

.PHONY: build demo test race soundness recorded e2e e2e-quick openstack lint bench fuzz mutate docs vuln clean need

# One static program; cmd/deepattest/size_test.go keeps it fit for an initramfs.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags="-s -w" -o $(BIN) $(CMD)

need:
	@scripts/need.sh

demo: need
	$(GO) run $(CMD) demo

test: need
	@scripts/need-browser.sh
	$(GO) vet ./...
	DEEPATTEST_NEED_SWTPM=1 $(GO) test -timeout 9m ./...

race: need
	DEEPATTEST_NEED_SWTPM=1 $(GO) test -race -timeout 20m ./...

# What make test draws a sample of, in full.
soundness:
	DEEPATTEST_SOUNDNESS=all $(GO) test -count 1 -timeout 60m -v ./internal/testlab/mix ./verify/cloud

ifdef DIR
recorded:
	dir="$$(cd '$(DIR)' && pwd)" && DEEPATTEST_RECORDED="$$dir" $(GO) test -count 1 -v -run '^Test(Recorded|Differential)' ./verify/silicon ./verify/cloud
else
recorded:
	@echo "recorded: skipped: DIR names no folder with recorded evidence of real clouds, of which this project holds none"
endif

e2e:
	@scripts/need-e2e.sh >/dev/null
	$(GO) test -tags e2e -count 1 -timeout 40m -v ./e2e

e2e-quick:
	@scripts/need-e2e.sh >/dev/null
	$(GO) test -tags e2e -count 1 -timeout 15m -v -short ./e2e

openstack:
	@scripts/openstack/run.sh

lint:
	@scripts/lint.sh

bench:
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem ./...

fuzz:
	@FUZZTIME=$(FUZZTIME) scripts/fuzz.sh

mutate:
	$(GO) run ./internal/testlab/mutate $(MUTATE) $(FILES)

docs:
	@scripts/docs.sh .

vuln:
	@scripts/vuln.sh

clean:
	rm -rf bin
	$(GO) clean -testcache
