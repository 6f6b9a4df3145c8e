# Copyright The Weft Authors
# SPDX-License-Identifier: Apache-2.0

GO      ?= go
GOFLAGS ?=
BUILD   := build
# Rows of the benchmark table to run, for instance ROWS=D1,D3. Empty runs all.
ROWS    ?=
# Revisions that a node misses in row C5, for instance MISSED=250000.
MISSED  ?= 36000
# How long one fuzz target runs.
FUZZTIME ?= 30s
# The race detector needs a C compiler; without one the tests run as they are, and say so.
RACE := $(if $(shell command -v gcc clang cc),-race,)

# Packages tested at once. Tests wait for processes and elections as much as they compute: one more
# than there are cores saves a tenth of the time.
ATONCE := $(shell expr $$(nproc) + 1)

.DEFAULT_GOAL := help
.PHONY: help generate build test demo bench soak fuzz lint clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

generate: ## regenerate the BPF objects and the API (needs the pinned clang and protoc)
	$(GO) generate ./...

build: ## build the one binary, build/weft
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BUILD)/weft ./cmd/weft

demo: build ## two clusters on this machine: global service, failover, return (root)
	$(BUILD)/weft lab demo --apiservers 2

test: ## every test, under the race detector (root; without it privileged tests are skipped)
	$(GO) vet ./...
	@$(if $(RACE),,echo "no C compiler: the tests run without the race detector")
# The longest first: the others run beside it.
	$(GO) test $(RACE) -p $(ATONCE) -timeout 11m ./integration ./...

bench: build ## the benchmark table; ROWS=D1,D3 runs some (root)
	$(GO) run ./integration/bench -rows '$(ROWS)' -missed $(MISSED)

soak: ## the long runs: churn, a million questions, restarts and random faults, an hour each (root)
	WEFT_SOAK=1h $(GO) test $(RACE) -timeout 150m -run Soak -v ./apiserver ./operator ./integration/...

fuzz: ## every fuzz target for FUZZTIME each
	@for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
		echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p || exit 1; done; done

lint: ## formatting, vet, and golangci-lint where it is installed
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	@if command -v golangci-lint >/dev/null; then golangci-lint run; \
	else echo "golangci-lint is not installed: only gofmt and vet ran"; fi

clean: ## remove what was built
	rm -rf $(BUILD)
