# Every target installs the Debian packages that it needs (tools/install-packages) and works as root or through sudo.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo build test coverage bench fuzz format lint clean distclean

JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 30
CTEST_FLAGS ?=
BENCH_FLAGS ?=

# Tests and benchmarks use the model below unless BRICK_MODEL names another one; the demo always does. Tests that need the data sets in
# BRICK_DATA skip where that folder is absent.
ifndef BRICK_MODEL
  fetch_model = tools/fetch-model >/dev/null
else
  fetch_model = :
endif
BRICK_MODEL ?= $(CURDIR)/model/SmolLM2-135M-Instruct.Q4_1.gguf
BRICK_DATA ?= $(abspath ../shared/data)
export BRICK_MODEL BRICK_DATA

sources = find src tests -name '*.h' -o -name '*.cc'

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## four offices tune one model together; ends with the page to open
	@tools/install-packages model
	@tools/fetch-model >/dev/null
	@tools/demo

build: ## the command, build/brick
	@tools/install-packages build test
	@cmake --preset release
	@cmake --build build --parallel $(JOBS) --target brick

test: ## all tests
	@tools/install-packages build test model
	@cmake --preset release
	@cmake --build build --parallel $(JOBS)
	@$(fetch_model)
	@ctest --test-dir build --output-on-failure $(CTEST_FLAGS)

coverage: ## line coverage of the tests, in build/coverage/html/index.html
	@tools/install-packages build test model coverage
	@cmake --preset coverage
	@cmake --build build/coverage --parallel $(JOBS)
	@$(fetch_model)
	@find build/coverage -name '*.gcda' -delete
	@ctest --test-dir build/coverage --output-on-failure $(CTEST_FLAGS)
	@mkdir -p build/coverage/html
	@gcovr --root . --filter 'src/brick/' -j $(JOBS) --print-summary \
	  --txt build/coverage/summary.txt --html-details build/coverage/html/index.html build/coverage
	@echo "page: build/coverage/html/index.html, table: build/coverage/summary.txt"

bench: build ## comparisons with PEFT, torch and llama.cpp, hours; BENCH_FLAGS='--only decode'
	@tools/install-packages model peers
	@$(fetch_model)
	@python3 bench/run.py "$$BRICK_MODEL" --brick build/brick $(BENCH_FLAGS)

fuzz: ## each fuzzer for FUZZ_SECONDS (30)
	@tools/install-packages build fuzz
	@cmake --preset fuzz
	@cmake --build build/fuzz --parallel $(JOBS) --target fuzzers
	@tools/run-fuzzers build/fuzz/tests/fuzz $(FUZZ_SECONDS)

format: ## clang-format over the sources, in place
	@tools/install-packages lint
	@$(sources) | xargs clang-format -i

lint: ## clang-format, the folders' rules and clang-tidy, changing nothing
	@tools/install-packages build test lint
	@$(sources) | xargs clang-format --dry-run -Werror
	@tools/check_layers.py
	@cmake --preset release >/dev/null
	@find src -name '*.cc' | sort | xargs -P $(JOBS) -n 1 clang-tidy -p build --quiet

clean: ## removes build/ and run/
	rm -rf build run

distclean: clean ## removes the model too
	rm -rf model
