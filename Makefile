# `make` alone lists the targets; `make demo` is the place to start.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# GRAPHPATCH_PYTHON names an interpreter that has the packages of tests/requirements.txt; without it .venv is made.
PYTHON := $(or $(GRAPHPATCH_PYTHON),.venv/bin/python)
JOBS ?= $(shell nproc)
# Unoptimized on purpose: the work is all inside libtorch, and compiling its headers takes half as long this way.
CXXFLAGS ?= -O0 -Wall -Wextra
CFLAGS ?= -O1 -g -Wall -Wextra

GRAPHPATCH := target/release/graphpatch
# Host programs that know nothing of libgraphpatch, and those that use its C ABI in process.
PLAIN_PROGRAMS := build/infer build/runner build/endings build/plugin.so build/late
ABI_PROGRAMS := build/sweep build/stress build/table build/grads build/layouts build/sets
C_PROGRAMS := build/c_session build/c_patches build/c_host
# The C program that needs no libtorch.
ALONE_PROGRAMS := build/c_alone
PROGRAMS := $(PLAIN_PROGRAMS) $(ABI_PROGRAMS) $(C_PROGRAMS) $(ALONE_PROGRAMS)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: venv build build/infer ## see inside a real sentence encoder in a finished program, and patch it
	@PYTHON=$(PYTHON) GRAPHPATCH=$(GRAPHPATCH) tests/demo/demo.sh

.PHONY: test
test: test-rust test-torch test-python test-view ## everything that must hold: cargo tests, real processes with libtorch, the Python package, pages

.PHONY: test-rust
test-rust: venv build ## the Rust tests alone
	cargo test --release --quiet

.PHONY: test-torch
test-torch: programs ## the process tests alone; T='-k tuple' passes arguments to pytest
	$(PYTHON) -m pytest -p no:cacheprovider tests/torch -q $(T)

.PHONY: test-python
test-python: venv build ## the tests of the Python package alone; T='-k generate' passes arguments to pytest
	$(PYTHON) -m pytest -p no:cacheprovider tests/python -q $(T)

# GRAPHPATCH_NEEDS_BROWSER=1 fails where no Chromium is found, instead of saying that the pages were not tested.
.PHONY: test-view
test-view: venv build build/infer build/view-tests/installed.txt ## the tests of `graphpatch view` alone, in a headless Chromium; T='-k search'
	$(PYTHON) -m pytest -p no:cacheprovider -W ignore::DeprecationWarning tests/view -q $(T)

build/view-tests/installed.txt: tests/view/requirements.txt | venv
	@echo "view: installing what its tests need into build/view-tests (55 MB to load)" >&2
	@rm -rf build/view-tests && $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-compile \
	    --target build/view-tests -r $<
	@cp $< $@

.PHONY: agreement
agreement: venv build ## how far paths agree with the package graphpatch: bindings/python/agreement.md
	$(PYTHON) tests/python/agreement.py --markdown bindings/python/agreement.md

# The version that the record of graphpatch's paths in tests/python/reference was made with.
test-python agreement: build/transformers-4.45.2
build/transformers-4.45.2: | venv
	@echo "agreement: installing transformers 4.45.2 into $@ (13 MB to load)" >&2
	@rm -rf $@.part && $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-compile \
	    --target $@.part transformers==4.45.2 tokenizers==0.20.3
	@mv $@.part $@

.PHONY: build
build: ## the command and the library, in target/release
	cargo build --release --quiet

.PHONY: venv
venv: ## the Python of demo and tests (.venv, or GRAPHPATCH_PYTHON)
	@tests/setup/venv.sh

.PHONY: programs
programs: venv build ## the C++ programs of demo and tests, in build/
	@$(MAKE) --no-print-directory -j$(JOBS) $(PROGRAMS)

.PHONY: fmt
fmt: ## format the Rust code
	cargo fmt

.PHONY: lint
lint: ## what CI checks beside the tests: format and clippy
	cargo fmt --check
	cargo clippy --release --all-targets --quiet -- -D warnings

.PHONY: generate
generate: ## rebuild the committed generated files (C header, seam bindings, the kernels' PTX)
	.ci/generate
	.ci/kernels

.PHONY: generate-check
generate-check: ## fail when a committed generated file is stale
	.ci/generate --check
	.ci/kernels --check

.PHONY: bench
bench: venv build build/bench/cost build/bench/patch ## what recording and patching cost, as ratios to the bare program
	PYTHON=$(PYTHON) benches/run.sh

.PHONY: bench-python
bench-python: venv build ## the same for eager Python, next to hooks and to the libraries that GRAPHPATCH_PEERS has
	$(PYTHON) benches/python.py --rounds $(or $(ROUNDS),40)

# Needs no Rust and no .venv: target/release/libgraphpatch.so is carried there (and, without a C++ compiler, the adapter
# that `graphpatch doctor --build` made, in GRAPHPATCH_ADAPTER_DIR).
.PHONY: gpu-check
gpu-check: ## on a machine with a card: everything there against PyTorch, the sanitizer, then timings
	$(or $(GRAPHPATCH_PYTHON),python3) tests/gpu/check.py

.PHONY: clean
clean: ## remove build products (not .venv)
	rm -rf build
	cargo clean --quiet

# --- host programs -------------------------------------------------------------------------------------------------

# The flags of the interpreter's libtorch. Rewritten only when they change, so that a new libtorch rebuilds the programs.
build/torch.mk: tests/setup/torch_flags.py FORCE | venv
	@mkdir -p build
	@$(PYTHON) $< $@

.PHONY: FORCE
FORCE:

# Included only for goals that compile programs: making the fragment needs the Python environment.
ifneq ($(filter demo bench test test-view build/%,$(MAKECMDGOALS)),)
include build/torch.mk
endif

build/infer build/runner build/endings: build/%: tests/programs/%.cpp tests/programs/host.h build/torch.mk
	@echo "programs: compiling $*" >&2
	@$(CXX) $(CXXFLAGS) $(TORCH_CXXFLAGS) $< -o $@ $(TORCH_LDFLAGS)

build/plugin.so: tests/programs/plugin.cpp tests/programs/host.h build/torch.mk
	@echo "programs: compiling plugin" >&2
	@$(CXX) $(CXXFLAGS) $(TORCH_CXXFLAGS) -shared -fPIC $< -o $@ $(TORCH_LDFLAGS)

build/late: tests/programs/late.c
	@mkdir -p build
	@$(CC) $(CFLAGS) $< -o $@ '-Wl,--enable-new-dtags,-rpath,$$ORIGIN' -ldl

$(ABI_PROGRAMS): build/%: tests/programs/%.cpp tests/programs/host.h tests/programs/abi.h tests/programs/specs.h \
    include/graphpatch.h build/torch.mk
	@echo "programs: compiling $*" >&2
	@$(CXX) $(CXXFLAGS) $(TORCH_CXXFLAGS) -Iinclude $< -o $@ \
	    -Ltarget/release -lgraphpatch -Wl,-rpath,$(abspath target/release) $(TORCH_LDFLAGS)

# A model behind C functions, for programs that cannot call libtorch themselves.
build/libmodel.so: tests/programs/model.cpp tests/programs/model.h build/torch.mk
	@echo "programs: compiling libmodel" >&2
	@$(CXX) $(CXXFLAGS) $(TORCH_CXXFLAGS) -shared -fPIC $< -o $@ $(TORCH_LDFLAGS)

# The header promises C99 without a warning.
C_HEADERS := tests/c/check.h tests/c/dlpack.h include/graphpatch.h

$(C_PROGRAMS): build/c_%: tests/c/%.c $(C_HEADERS) build/libmodel.so
	@echo "programs: compiling c_$*" >&2
	@$(CC) -std=c99 -pedantic -Werror $(CFLAGS) -Iinclude -Itests/programs $< -o $@ build/libmodel.so -pthread \
	    -Ltarget/release -lgraphpatch -Wl,-rpath,$(abspath target/release) -Wl,-rpath,$(abspath build) \
	    $(filter -Wl$(comma)-rpath-link%,$(TORCH_LDFLAGS))

$(ALONE_PROGRAMS): build/c_%: tests/c/%.c $(C_HEADERS)
	@mkdir -p build
	@echo "programs: compiling c_$*" >&2
	@$(CC) -std=c99 -pedantic -Werror $(CFLAGS) -Iinclude $< -o $@ \
	    -Ltarget/release -lgraphpatch -Wl,-rpath,$(abspath target/release)

comma := ,

build/bench/cost build/bench/patch: build/bench/%: benches/%.cpp include/graphpatch.h build/torch.mk
	@mkdir -p build/bench
	@echo "bench: compiling $*" >&2
	@$(CXX) -O2 -Wall $(TORCH_CXXFLAGS) -Iinclude $< -o $@ \
	    -Ltarget/release -lgraphpatch -Wl,-rpath,$(abspath target/release) $(TORCH_LDFLAGS)
