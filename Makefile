# SPDX-License-Identifier: Apache-2.0
# The front door over CMake and Ninja.  ./run COMMAND installs missing packages first, then comes here.
#
# Variables: JOBS (compile jobs), CC, PREFIX and DESTDIR (install), PORT NP MODEL DETACH (demo), RUNS STEP_TIMEOUT
# (fault), TESTS (a ctest -R pattern), CMAKE_ARGS.

BUILD      ?= build
PREFIX     ?= /usr/local
NINJA      := ninja $(if $(JOBS),-j$(JOBS))
CMAKE_ARGS ?=
CONFIGURE   = cmake -G Ninja -S . -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_ARGS)
SANITIZED   = -DCMAKE_BUILD_TYPE=Debug -DTPSERVE_SANITIZE
LOG         = --log-level=WARNING

.PHONY: all help build tests-build demo stop test lint bench bench-llama bench-spec fire fault fuzz fuzz-coverage asan tsan \
	gpu-build test-gpu bench-gpu install clean

all: build

help:
	@sed -n 's/^## \([^ ]*\) */\1\t/p' Makefile | expand -t 15

## build     the server, into build/
build:
	@$(CONFIGURE) $(LOG) -B $(BUILD) -DCMAKE_BUILD_TYPE=Release $(if $(wildcard $(BUILD)/CMakeCache.txt),,-DTPSERVE_TESTS=OFF)
	@$(NINJA) -C $(BUILD) tpserve

## demo      build, serve models/demo until Ctrl-C (DETACH=1: in the background)
demo: build
	@PORT='$(PORT)' NP='$(NP)' MODEL='$(MODEL)' DETACH='$(DETACH)' sh scripts/demo.sh start $(BUILD)/tpserve

## stop      end a detached demo
stop:
	@sh scripts/demo.sh stop

tests-build:
	@$(CONFIGURE) $(LOG) -B $(BUILD) -DCMAKE_BUILD_TYPE=Release -DTPSERVE_TESTS=ON
	@$(NINJA) -C $(BUILD)

## test      everything that needs no GPU: C tests (also with sanitizers), end-to-end tests, lint
test:
	@JOBS='$(JOBS)' TESTS='$(TESTS)' CMAKE_ARGS='$(CMAKE_ARGS)' sh scripts/test.sh

## lint      layers, names, banned functions, sizes, format
lint: tests-build
	@python3 tests/lint/lint.py --build $(BUILD)

## bench     kernels and, when the demo model is there, the server
bench: tests-build
	@sh scripts/bench.sh $(BUILD)

## fuzz      fuzz targets under libFuzzer (clang), FUZZ_SECONDS=60 each; FUZZ="json plan" for some of them
fuzz:
	@JOBS='$(JOBS)' CMAKE_ARGS='$(CMAKE_ARGS)' FUZZ_SECONDS='$(FUZZ_SECONDS)' sh tests/fuzz/fuzz.sh run $(FUZZ)

## fuzz-coverage  lines of the parsers that the corpora reach
fuzz-coverage:
	@JOBS='$(JOBS)' CMAKE_ARGS='$(CMAKE_ARGS)' sh tests/fuzz/fuzz.sh coverage

## fault     ranks killed, stopped, cut off: how long until clients are told and the job is gone; clock jumps, weak links, restarts (RUNS=3, STEP_TIMEOUT=10)
fault: build
	@python3 tests/fault/fault_table.py --runs $(or $(RUNS),3) --step-timeout $(or $(STEP_TIMEOUT),10)
	@python3 tests/fault/endure.py --step-timeout $(or $(STEP_TIMEOUT),10)

## bench-llama  speed of this CPU build beside llama.cpp, fetched from PyPI and built: docs/cpu-results.md (ROUNDS=3 SHAPE=0.5b)
bench-llama: tests-build
	@nice -n $(if $(filter 0,$(shell id -u)),-15,0) python3 tests/bench/bench_llama.py --build $(BUILD) \
		--rounds $(or $(ROUNDS),3) --shape $(or $(SHAPE),0.5b) --json $(BUILD)/bench-llama.json

## bench-spec  speculative decoding on and off, on texts that repeat and that do not (ROUNDS=3 SHAPE=0.5b)
bench-spec: build
	@python3 tests/bench/bench_speculation.py --tpserve $(BUILD)/tpserve --rounds $(or $(ROUNDS),3) \
		--shape $(or $(SHAPE),0.5b)

## fire      clients that leave, are slow, are many, ask too much: measured against bounds (FIRE: which; FIRE_NICE)
fire: build
	@cmp -s tests/requirements.txt .venv/requirements.stamp || { python3 -m venv .venv && \
		.venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt && \
		cp tests/requirements.txt .venv/requirements.stamp; }
	@TPSERVE_BIN=$(CURDIR)/$(BUILD)/tpserve .venv/bin/python tests/fire/run.py

## test-gpu  what needs a real GPU: the hardware's answers to single instructions, kernels, sanitizer
test-gpu: gpu-build
	@BUILD=$(BUILD) sh tests/gpu/run.sh --test-only

## bench-gpu single operations at the shapes of 70B shards, beside the limits of the GPU (docs/gpu-results.md)
bench-gpu: gpu-build
	@BUILD=$(BUILD) sh tests/gpu/run.sh --bench-only

gpu-build:
	@$(CONFIGURE) $(LOG) -B $(BUILD) -DCMAKE_BUILD_TYPE=Release -DTPSERVE_TESTS=ON -DTPSERVE_CUDA=on -DTPSERVE_GPU_TESTS=ON
	@$(NINJA) -C $(BUILD)

## asan      build with AddressSanitizer and UBSan, into build-asan/
asan:
	@$(CONFIGURE) $(LOG) -B build-asan $(SANITIZED)=address,undefined -DTPSERVE_TESTS=ON
	@$(NINJA) -C build-asan

## tsan      build with ThreadSanitizer, into build-tsan/
tsan:
	@$(CONFIGURE) $(LOG) -B build-tsan $(SANITIZED)=thread -DTPSERVE_TESTS=ON
	@$(NINJA) -C build-tsan

## install   binary, manual page, shell completion, demo model, under PREFIX
install: build
	@cmake --install $(BUILD) --prefix $(PREFIX) $(if $(VERBOSE),,>/dev/null)
	@mkdir -p $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	@$(BUILD)/tpserve --generate-man >$(DESTDIR)$(PREFIX)/share/man/man1/tpserve.1
	@$(BUILD)/tpserve --generate-completion bash \
		>$(DESTDIR)$(PREFIX)/share/bash-completion/completions/tpserve
	@echo "installed under $(DESTDIR)$(PREFIX)"

## clean     remove what was built
clean:
	@rm -rf build build-asan build-tsan build-fuzz build-cov .venv
