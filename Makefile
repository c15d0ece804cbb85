# `make` alone lists the targets; `make demo` is the place to start.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# GRAPHPATCH_PYTHON names an interpreter that has the packages of tests/requirements.txt. Without it, .venv is made and used.
PYTHON := $(or $(GRAPHPATCH_PYTHON),.venv/bin/python)
JOBS ?= $(shell nproc)
# As many processes as cores. Tests that share a costly fixture run in one process (tests/conftest.py). A test that hangs fails after
# ten minutes and shows where; HANG=0 waits for ever, as long runs need.
PYTEST = $(PYTHON) -m pytest -n $(JOBS) --dist loadgroup --timeout $(or $(HANG),600)
# Installs the packages that only one suite needs into a folder, so that they are not part of the Python environment.
INSTALL_INTO = $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-compile --target
# Unoptimized on purpose: compiling libtorch's headers takes half as long, and the programs spend their time inside libtorch.
CXXFLAGS ?= -O0 -Wall -Wextra
CFLAGS ?= -O1 -g -Wall -Wextra

GRAPHPATCH := target/release/graphpatch
# Host programs that know nothing of libgraphpatch, and those that use its C ABI in process.
PLAIN_PROGRAMS := build/infer build/runner build/served build/steady build/endings build/flat build/regions build/packaged build/plugin.so build/late build/load build/dynamics build/square_op.so build/gpt build/gpt_stripped build/gpt.so
ABI_PROGRAMS := build/sweep build/stress build/table build/grads build/layouts build/sets build/tuple
C_PROGRAMS := build/c_session build/c_patches build/c_host
# The C programs that need no libtorch.
ALONE_PROGRAMS := build/c_alone build/c_handles
# The programs that use the C++ binding; the first one needs no libtorch.
CPP_PROGRAMS := build/cpp_alone build/cpp_modules build/cpp_functions build/cpp_reused build/cpp_shared build/cpp_calls build/cpp_copies build/cpp_fibers build/cpp_meanwhile build/cpp_methods build/cpp_transformer build/card/card
# Those that take longest to compile come first.
PROGRAMS := build/cpp_scopes build/gpt $(PLAIN_PROGRAMS) $(ABI_PROGRAMS) $(C_PROGRAMS) $(ALONE_PROGRAMS) $(CPP_PROGRAMS)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: ## see inside a real sentence encoder in a finished program, and switch parts of it off
	@cargo build --release
	@GRAPHPATCH=$(GRAPHPATCH) tests/demo/demo.sh

# --keep-going below runs all suites even if one fails; `make test` then fails at the end.
SUITES := test-rust test-abi test-torch test-python test-hosts test-languages test-formats test-docs test-view

.PHONY: test
test: ## everything that must hold: cargo tests, the C ABI, real processes with libtorch, Python, other languages, pages
	@$(MAKE) --no-print-directory --keep-going $(SUITES)

.PHONY: check
check: lint test-rust ## the quick part: formats, lints and the Rust tests

.PHONY: test-rust
test-rust: venv build ## the Rust tests alone
	cargo test --release --quiet --no-fail-fast

.PHONY: test-torch
test-torch: programs ## the process tests alone; T='-k tuple' passes arguments to pytest
	$(PYTEST) tests/torch -q $(T)

.PHONY: test-abi
test-abi: venv build build/libclang-18.1.1 ## the C ABI against the kept ones: tests/abi/README.md
	$(PYTEST) tests/abi -q $(T)

.PHONY: abi-baseline
abi-baseline: venv build/libclang-18.1.1 ## keep today's C ABI; RELEASE=1 also keeps the header and a client of it
	@folder=tests/abi/$$(sed -n 's/^version = "\([0-9]*\.[0-9]*\).*/\1/p' Cargo.toml) && mkdir -p $$folder && \
	    if [[ -n "$(RELEASE)" ]]; then \
	        mkdir -p $$folder/client && cp include/graphpatch.h $$folder && cp $(ABI_CLIENT) $$folder/client && \
	        cp tests/fuzz/seeds/graph-tuple.json $$folder/client/graph.json; \
	    fi && \
	    $(PYTHON) tests/abi/helpers/reader.py include/graphpatch.h > $$folder/abi.json && echo "kept in $$folder" >&2

# The client that a release keeps.
ABI_CLIENT := tests/programs/c/alone.c $(addprefix tests/programs/c/include/,check.h dlpack.h)

build/libclang-18.1.1: | venv
	@rm -rf $@.part && $(INSTALL_INTO) $@.part libclang==18.1.1
	@mv $@.part $@

.PHONY: test-python
test-python: venv build ## the tests of the Python package alone; T='-k generate' passes arguments to pytest
	$(PYTEST) tests/python tests/peers -q $(T)

.PHONY: test-languages
test-languages: venv build ## programs in other languages that use the C ABI: Rust (tch), bare ctypes (tests/languages)
	@$(MAKE) --no-print-directory build/languages/rust/debug/tch-session
	$(PYTEST) tests/languages -q $(T)

# Not part of `make test`: the three versions are about 2 GB to load, 4.4 GB on disk, and take 10 minutes of two busy cores.
# `.ci/run` tries the oldest.
VERSIONS ?= 2.4.1 2.7.1 2.15.0

.PHONY: test-versions
test-versions: venv build ## programs with other versions of libtorch; VERSIONS='2.6.0 2.10.0', by default the oldest, one between and a new one
	@for version in $(VERSIONS); do folder=build/torch-$$version; \
	    $(PYTHON) tests/versions/fetch.py $$version $$folder && $(PYTHON) tests/setup/torch_flags.py $$folder/torch.mk $$folder && \
	    $(MAKE) --no-print-directory -j$(JOBS) -f tests/versions/programs.mk FOLDER=$$folder CXXFLAGS='$(CXXFLAGS)' || exit 1; done
	VERSIONS='$(VERSIONS)' $(PYTEST) tests/versions -q $(T)

# Needs a nightly compiler with Miri (`rustup +nightly component add miri rust-src`), which compiles the standard library itself.
# On musl the library has no hooks, which Miri could not run. Leaks are ignored in the first part, whose tests leak on purpose.
.PHONY: miri
miri: ## the table of C's objects, and the writing of values, under Miri: undefined behaviour and races
	MIRIFLAGS='-Zmiri-disable-isolation -Zmiri-ignore-leaks' CARGO_TARGET_DIR=target/miri \
	    cargo +nightly miri test --target x86_64-unknown-linux-musl -p libgraphpatch --lib -- ffi::slots ffi::handle
	MIRIFLAGS='-Zmiri-disable-isolation' CARGO_TARGET_DIR=target/miri \
	    cargo +nightly miri test --target x86_64-unknown-linux-musl -p graphpatch-apply --lib

# Needs a nightly compiler, which brings the sanitizer's runtime. The crates with `unsafe` whose tests need no libtorch.
SANITIZED ?= -p graphpatch-apply -p graphpatch-locks
.PHONY: sanitize-rust
sanitize-rust: ## Rust code under the address sanitizer; SANITIZED='-p graphpatch-objects'
	RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/asan \
	    cargo +nightly test --quiet --target x86_64-unknown-linux-gnu --lib $(SANITIZED)

# Only the C programs are compiled with sanitizers, not the library. The first program asks for more memory than any machine has,
# so the allocator must return NULL.
SANITIZE = $(CC) -std=c99 -pedantic -Werror $(CFLAGS) -Iinclude $(C_INCLUDE)
SANITIZE_LINK = -pthread -Ltarget/release -lgraphpatch -Wl,-rpath,$(abspath target/release)
.PHONY: sanitize
sanitize: build ## the C programs that need no libtorch, under the address, undefined-behaviour and thread sanitizers
	@mkdir -p build/sanitize/files
	@for kind in address undefined thread; do for program in alone handles; do \
	    $(SANITIZE) -fsanitize=$$kind tests/programs/c/$$program.c -o build/sanitize/$$program-$$kind $(SANITIZE_LINK) && \
	    echo "sanitize: $$program, $$kind" >&2 && \
	    ASAN_OPTIONS=allocator_may_return_null=1 TSAN_OPTIONS=allocator_may_return_null=1:ignore_noninstrumented_modules=1 \
	    UBSAN_OPTIONS=halt_on_error=1 build/sanitize/$$program-$$kind tests/fuzz/seeds/graph-tuple.json build/sanitize/files || exit 1; \
	    done; done

# C and C++ programs that run libtorch. Neither libtorch nor the library is compiled with a sanitizer: what they allocate and free is
# seen, and what they do to the programs' memory by functions of the C library. valgrind looks at all code (tests/torch/test_c.py).
SANITIZE_WITH_TORCH = ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=0 \
    TSAN_OPTIONS=allocator_may_return_null=1:ignore_noninstrumented_modules=1
.PHONY: sanitize-torch
sanitize-torch: venv build build/libmodel.so ## C and C++ programs that run libtorch, under the address and thread sanitizers
	@mkdir -p build/sanitize/files
	@PYTHONPATH=tests/helpers $(PYTHON) -W ignore -c 'import torch, models; torch.jit.script(models.TupleOutputModule()).save("build/sanitize/tuple.pt")'
	@for kind in address thread; do \
	    for program in session patches host; do \
	        $(SANITIZE) -fsanitize=$$kind tests/programs/c/$$program.c -o build/sanitize/$$program-$$kind build/libmodel.so $(SANITIZE_LINK) \
	            -Wl,-rpath,$(abspath build) $(filter -Wl$(comma)-rpath-link%,$(TORCH_LDFLAGS)) || exit 1; done; \
	    $(CXX) $(CXXFLAGS) -g1 $(TORCH_CXXFLAGS) $(CPP_USE) -fsanitize=$$kind tests/programs/cpp/modules.cpp \
	        -o build/sanitize/modules-$$kind $(CPP_LINK) $(TORCH_LDFLAGS) || exit 1; \
	    export $(SANITIZE_WITH_TORCH); \
	    echo "sanitize-torch: C, $$kind" >&2; \
	    build/sanitize/session-$$kind build/sanitize/tuple.pt > /dev/null && \
	    build/sanitize/patches-$$kind build/sanitize/tuple.pt build/sanitize/files > /dev/null && \
	    build/sanitize/host-$$kind build/sanitize/files > /dev/null || exit 1; \
	    for case in $$(build/sanitize/modules-$$kind); do echo "sanitize-torch: C++, $$kind, $$case" >&2; \
	        build/sanitize/modules-$$kind $$case > /dev/null || exit 1; done; done

.PHONY: stress
stress: venv build build/libmodel.so ## 64 threads that record, patch, fork and end sessions, in C and in Python: five minutes each, or SECONDS_OF_STRESS
	SECONDS_OF_STRESS=$(or $(SECONDS_OF_STRESS),300) $(PYTHON) -m pytest tests/hosts/test_crowds.py -q -s $(T)

.PHONY: stress-attach
stress-attach: venv build build/steady build/served ## 100 attaches each to programs that compute and serve, or ATTACHES; prints how long each took
	ATTACHES=$(or $(ATTACHES),100) $(PYTHON) -m pytest tests/torch/test_attach.py -q -s $(T)

# Inputs that fail are written to build/fuzz. Add such an input to tests/fuzz/seeds, which tests/damaged.rs reads on every run.
# MALLOC_PERTURB_ overwrites freed memory, so that a use after free shows.
FUZZ = MALLOC_PERTURB_=165 TMPDIR=$(firstword $(wildcard /dev/shm) /tmp)
FUZZ_OPTIONS = -artifact_prefix=build/fuzz/ -max_total_time=$(or $(SECONDS_OF_FUZZ),60) -runs=$(or $(RUNS_OF_FUZZ),-1) \
    -timeout=10 -rss_limit_mb=1024 -print_final_stats=1
# Each reader by its name, which its seeds begin with, and the longest input that it is given: twice its longest seed.
FUZZED ?= graph:10240 patches:1024 npy:512 safetensors:512 texts:512 options:1024 report:8192 package:4096 beside:1024 program:8192 calls:400
FUZZ_PROGRAMS = build/fuzz/x86_64-unknown-linux-gnu/release

.PHONY: fuzz
fuzz: ## feed damaged files to everything that reads one, and call the C ABI in every wrong way: each for SECONDS_OF_FUZZ (60), or RUNS_OF_FUZZ; FUZZED='npy:512' tries some
	@cd tests/fuzz && cargo build --release --locked --quiet
	@for one in $(FUZZED); do name=$${one%:*}; corpus=build/fuzz/corpora/$$name; mkdir -p $$corpus; \
	    case $$name in calls) program=calls;; *) program=loaders; cp tests/fuzz/seeds/$$name-* $$corpus;; esac; \
	    echo "fuzz: $$name" >&2; \
	    $(FUZZ) READER=$$name $(FUZZ_PROGRAMS)/$$program $$corpus $(FUZZ_OPTIONS) -max_len=$${one#*:} || exit 1; done

# GRAPHPATCH_NEEDS_BROWSER=1 fails where no Chromium is found, instead of saying that the pages were not tested.
.PHONY: test-view
test-view: venv build build/infer build/flat build/cpp_scopes build/view-tests/installed.txt ## the tests of `graphpatch view` alone, in a headless Chromium; T='-k search'
	$(PYTEST) -W ignore::DeprecationWarning tests/view -q $(T)

build/view-tests/installed.txt: tests/view/requirements.txt | venv
	@echo "view: installing what its tests need into build/view-tests (55 MB to load)" >&2
	@rm -rf build/view-tests && $(INSTALL_INTO) build/view-tests -r $<
	@cp $< $@

.PHONY: test-formats
test-formats: venv build build/formats-tests/installed.txt ## the files that other programs write and read, each opened with their own reader
	$(PYTEST) tests/formats -q $(T)

build/formats-tests/installed.txt: tests/formats/requirements.txt | venv
	@echo "formats: installing the readers into build/formats-tests (60 MB to load)" >&2
	@rm -rf build/formats-tests && $(INSTALL_INTO) build/formats-tests -r $<
	@cp $< $@

# 143 MB on disk; MODELS='ctrl mamba' tries some.
.PHONY: test-zoo
test-zoo: venv build build/zoo/installed.txt ## forty architectures of transformers, timm, torchvision, diffusers and peft, node by node (tests/zoo)
	$(PYTEST) tests/zoo -q $(T)

build/zoo/installed.txt: tests/zoo/requirements.txt | venv
	@echo "zoo: installing its packages into build/zoo (40 MB to load)" >&2
	@rm -rf build/zoo && $(INSTALL_INTO) build/zoo -r $<
	@cp $< $@

# All of it takes some minutes of two cores, most of them in Inductor. CI runs a part: MODELS='BERT LSTM' FORMS='compiled exported'
# COMPILER=aot_eager.
.PHONY: test-forms
test-forms: venv build build/cpp_transformer ## six models in TorchScript, compiled, exported, AOTInductor and C++ form, node by node (tests/forms)
	$(PYTHON) -m pytest -W ignore::UserWarning tests/forms -q $(T)

.PHONY: forms
forms: venv build build/cpp_transformer ## how many of eager's operations each form has: docs/reference/forms.md
	$(PYTHON) -W ignore::UserWarning tests/forms/page.py

# Not part of CI: vLLM is 0.3 GB to load, and each start of its engine takes half a minute of two cores.
.PHONY: test-vllm
test-vllm: venv build build/vllm-tests/installed.txt ## requests with patches in the batches of a real vLLM, offline and as a server (tests/vllm)
	$(PYTHON) -m pytest tests/vllm -q $(T)

build/vllm-tests/installed.txt: tests/vllm/requirements.txt | venv
	@echo "vllm: installing vLLM for CPUs into build/vllm-tests" >&2
	@rm -rf build/vllm-tests && $(INSTALL_INTO) build/vllm-tests -r $<
	@cp $< $@

# CI runs one family in three hosts. All of them take some minutes: FAMILIES='ViT BERT' HOSTS='eager command'.
.PHONY: test-matrix
test-matrix: venv build build/cpp_methods ## seven methods x four families of models x every host, against plain PyTorch (tests/matrix)
	$(PYTEST) -W ignore::UserWarning tests/matrix -q $(T)

.PHONY: matrix
matrix: venv build build/cpp_methods ## what equals plain PyTorch: docs/matrix.md
	$(PYTHON) -W ignore::UserWarning tests/matrix/page.py

# CI runs a part of the host programs in a minute or two. All of them, each bare and instrumented, take half an hour of two cores.
.PHONY: hosts
hosts: HANG = 0
hosts: venv build build/libmodel.so ## every host program bare and under `graphpatch run`; T='-k ends' passes arguments to pytest
	HOSTS=all $(PYTEST) tests/hosts -q $(T)

.PHONY: test-hosts
test-hosts: venv build build/libmodel.so ## a part of them
	$(PYTEST) tests/hosts -q $(T)

# What depends on the version of Python: its bytecode, its counts of references, its frames. 1.2 GB on disk, in build/python-3.14.
TESTS_OF_PYTHONS := ownership patchable_graph copies code errors exchanged filled_containers freed_addresses handed_parameters methods \
    own_backward raised reentry_handlers threads changes_meanwhile unregistered
.PHONY: test-pythons
test-pythons: venv build ## the Python package with the newest Python that torch has wheels for (tests/pythons)
	@$(PYTHON) tests/pythons/fetch.py build/python-3.14
	PYTHONPATH=$(CURDIR)/build/python-3.14/site build/python-3.14/usr/bin/python3.14 -m pytest -q -W ignore::DeprecationWarning \
	    $(TESTS_OF_PYTHONS:%=tests/python/test_%.py) $(T)

# Each is installed without what it needs, and then what it needs beside what the environment has. 250 MB on disk.
PEERS := nnsight==0.8.1 transformer-lens==2.18.0 pyvene==0.1.8 torchlens==2.36.1
PEERS_NEED := jaxtyping beartype fancy_einsum einops better-abc pandas rich typeguard wadler-lindig astor cloudpickle httpx pydantic \
    pydantic-core annotated-types typing-inspection accelerate psutil msgspec sentencepiece anyio httpcore h11 sniffio zstandard greenlet \
    websocket-client datasets==3.6.0 dill xxhash multiprocess pyarrow aiohttp aiosignal frozenlist multidict yarl propcache attrs \
    aiohappyeyeballs graphviz wandb gitpython sentry-sdk platformdirs click markdown-it-py mdurl protobuf python-socketio \
    python-engineio bidict toml ipython idna
.PHONY: peers
peers: venv build build/peers ## the interventions as other packages spell them, run in these packages, against plain PyTorch
	GRAPHPATCH_PEERS=$(CURDIR)/build/peers $(PYTHON) -m pytest -q -W ignore tests/peers/test_real_peers.py $(T)

build/peers: | venv
	@echo "peers: installing the packages into $@" >&2
	@rm -rf $@.part && $(INSTALL_INTO) $@.part $(PEERS) $(PEERS_NEED)
	@mv $@.part $@

.PHONY: agreement
agreement: venv build ## how far paths agree with the package graphpatch: docs/agreement.md
	$(PYTHON) tests/python/helpers/agreement.py --markdown docs/agreement.md

# Packages with 8-bit and 4-bit layers, for tests/python/test_quantized.py.
test-python: build/quantized-bitsandbytes-0.50.2-torchao-0.18.0
build/quantized-bitsandbytes-0.50.2-torchao-0.18.0: | venv
	@echo "python: installing bitsandbytes and torchao into $@ (45 MB to load)" >&2
	@rm -rf $@.part && $(INSTALL_INTO) $@.part bitsandbytes==0.50.2 torchao==0.18.0
	@mv $@.part $@

# The version of transformers with which graphpatch's paths in tests/python/reference were recorded.
test-python agreement: build/transformers-4.45.2
build/transformers-4.45.2: | venv
	@echo "agreement: installing transformers 4.45.2 into $@ (13 MB to load)" >&2
	@rm -rf $@.part && $(INSTALL_INTO) $@.part transformers==4.45.2 tokenizers==0.20.3
	@mv $@.part $@

# SMALL=1 builds, and installs, the small library of the profile `installed` in Cargo.toml, in target/installed.
PROFILE := $(if $(SMALL),installed,release)

.PHONY: build
build: ## the command and the library, in target/release
	cargo build --profile $(PROFILE) --quiet

# The GNU variables. Installed files refer to each other by relative paths, so the whole tree can be moved later.
prefix = $(or $(PREFIX),/usr/local)
exec_prefix = $(prefix)
bindir = $(exec_prefix)/bin
libdir = $(exec_prefix)/lib
includedir = $(prefix)/include
install uninstall: export prefix := $(prefix)
install uninstall: export bindir := $(bindir)
install uninstall: export libdir := $(libdir)
install uninstall: export includedir := $(includedir)
install uninstall: export DESTDIR := $(DESTDIR)

.PHONY: install
# Where cargo is not in the PATH (`sudo make install`), this installs what `make build` has built. `graphpatch --version` names
# the commit.
install: export BUILT := target/$(PROFILE)
install: export GRAPHPATCH_COMMIT := $(shell git rev-parse --short HEAD 2>/dev/null)
install: $(if $(shell command -v cargo),build) ## library, headers, command, manual, completions, pkg-config file, CMake package: PREFIX=/usr/local, DESTDIR=
	@packaging/install.sh

.PHONY: uninstall
uninstall: ## take away what `make install` with the same variables has put there
	@packaging/install.sh --uninstall

# Release products name their commit, and run with glibc 2.28 (manylinux_2_28): rustc calls the linker as `cc`, and finds the one
# that older_glibc.sh makes. cargo does not know of that, so they are built in a folder of their own: what is in target/release is
# linked for this machine, whatever was made before.
# The wheel contains the adapter for the interpreter's libtorch, and all others that are in build/dist/adapters:
# `graphpatch doctor --build --torch DIR --into build/dist/adapters`, with CXX=build/older-glibc/c++.
# RELEASE= leaves the commit out.
RELEASE ?= 1
ifneq ($(RELEASE),)
wheel dist: export GRAPHPATCH_COMMIT := $(shell git rev-parse --short HEAD 2>/dev/null)
endif
OLDER := $(abspath build/older-glibc)
FOR_OLDER := target/older-glibc
WHERE_ADAPTERS_ARE_MADE := build/dist/made

# Only linking differs: crates that are compiled already are copied, all but the two that are linked.
$(FOR_OLDER)/release:
	@rm -rf $@.part && mkdir -p $@.part
	@if [[ -d target/release/deps ]]; then \
	    cd target/release && cp -a --parents .fingerprint build $$(find deps -name '*.rlib' -o -name '*.rmeta' -o -name '*.so') $(abspath $@.part); fi
	@mv $@.part $@
	@CARGO_TARGET_DIR=$(FOR_OLDER) cargo clean --quiet --release -p graphpatch -p libgraphpatch

.PHONY: for-older-glibc
for-older-glibc: | $(FOR_OLDER)/release
	@PYTHON=$(or $(GRAPHPATCH_PYTHON),python3) packaging/older_glibc.sh $(OLDER)
	PATH=$(OLDER):$$PATH CARGO_TARGET_DIR=$(FOR_OLDER) cargo build --release --quiet

.PHONY: wheel
wheel: venv for-older-glibc ## build/dist/libgraphpatch-*.whl: library, command, package, headers, manual, an adapter; needs no compiler where it is used
	@mkdir -p build/dist/adapters $(WHERE_ADAPTERS_ARE_MADE)
	CXX=$(OLDER)/c++ GRAPHPATCH_CACHE=$(abspath $(WHERE_ADAPTERS_ARE_MADE)) \
	    $(FOR_OLDER)/release/graphpatch doctor --build --into build/dist/adapters --torch \
	    "$$($(PYTHON) -c 'import importlib.util; print(importlib.util.find_spec("torch").submodule_search_locations[0])')"
	@rm -f build/dist/*.whl
	$(PYTHON) packaging/wheel.py build/dist/adapters build/dist 2.28

.PHONY: dist
dist: for-older-glibc ## build/dist/libgraphpatch-*.tar.gz: what `make install` installs, with checksums and a bill of materials
	@packaging/dist.sh

# Not part of CI: no registry of packages has a glibc 2.28. OLDER_GLIBC names a folder with its files (tests/older_glibc).
.PHONY: test-older-glibc
test-older-glibc: ## the products under a real glibc 2.28, whose loader and libraries lie in OLDER_GLIBC: command, library, a model
	@[[ -n "$(OLDER_GLIBC)" ]] || { echo "OLDER_GLIBC names no folder with the files of a glibc 2.28" >&2; exit 1; }
	@$(MAKE) --no-print-directory wheel dist build/older-glibc/libmodel.so
	OLDER_GLIBC=$(OLDER_GLIBC) $(PYTHON) -m pytest tests/older_glibc -q $(T)

.PHONY: venv
venv: ## the Python of demo and tests (.venv, or GRAPHPATCH_PYTHON)
	@tests/setup/venv.sh

.PHONY: programs
programs: venv build ## the C++ programs of demo and tests, in build/
	@$(MAKE) --no-print-directory -j$(JOBS) $(PROGRAMS)

PYTHON_TOOLS := target/tools/python
PYTHON_TOOLS_READY := $(PYTHON_TOOLS)/ruff-0.17.6-mypy-2.4.1-pyright-1.40.2
CLANG_FORMAT := target/tools/clang-format-22.1.5

.PHONY: fmt
fmt: $(PYTHON_TOOLS_READY) $(CLANG_FORMAT) ## lay out all code: Rust, Python, C, C++, CUDA
	cargo fmt
	$(PYTHON_TOOLS)/bin/ruff check --quiet --fix --select=I $(PYTHON_FOLDERS)
	$(PYTHON_TOOLS)/bin/ruff format --quiet $(PYTHON_FOLDERS)
	@$(CLANG_FORMAT)/clang_format/data/bin/clang-format -i $(CLANG_FORMATTED)

.PHONY: lint
lint: lint-python lint-cpp ## what CI checks beside the tests: formats, clippy, ruff, mypy
	cargo fmt --check
	cargo clippy --release --all-targets --quiet -- -D warnings

# C, C++ and CUDA, laid out by clang-format as the nearest .clang-format says. Generated files are left out.
CLANG_FORMATTED = $(shell git ls-files '*.c' '*.cpp' '*.h' '*.hpp' '*.cu' '*.cuh' ':!include')

.PHONY: lint-cpp
lint-cpp: $(CLANG_FORMAT) ## the C, C++ and CUDA code: its layout by clang-format
	@$(CLANG_FORMAT)/clang_format/data/bin/clang-format --dry-run -Werror $(CLANG_FORMATTED)

$(CLANG_FORMAT):
	@echo "lint-cpp: installing clang-format into $@ (once)" >&2
	@rm -rf $@.part && $(or $(GRAPHPATCH_PYTHON),python3) -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
	    --no-compile --target $@.part clang-format==$(@:target/tools/clang-format-%=%)
	@mv $@.part $@

# Needs no torch: nothing is run.
PYTHON_FOLDERS := .ci benches bindings docs packaging tests

.PHONY: lint-python
lint-python: $(PYTHON_TOOLS_READY) ## the Python code: format and lint by ruff, and the package's types by mypy --strict and pyright
	$(PYTHON_TOOLS)/bin/ruff check --quiet --output-format=concise $(PYTHON_FOLDERS)
	$(PYTHON_TOOLS)/bin/ruff format --quiet --check $(PYTHON_FOLDERS)
	cd bindings/python && ../../$(PYTHON_TOOLS)/bin/mypy --no-error-summary --cache-dir=../../target/mypy
	cd bindings/python && ../../$(PYTHON_TOOLS)/bin/basedpyright --pythonpath ../../$(PYTHON_TOOLS)/bin/python >&2

$(PYTHON_TOOLS_READY):
	@echo "lint-python: installing ruff, mypy and pyright into $(PYTHON_TOOLS) (once)" >&2
	@rm -rf $(PYTHON_TOOLS) && $(or $(GRAPHPATCH_PYTHON),python3) -m venv $(PYTHON_TOOLS) && \
	    $(PYTHON_TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --no-input ruff==0.17.6 mypy==2.4.1 basedpyright==1.40.2
	@touch $@

MDBOOK := target/tools/mdbook-0.5.4

.PHONY: docs
docs: $(MDBOOK)/bin/mdbook ## the documentation as a site with a search: build/book/index.html
	$(MDBOOK)/bin/mdbook build docs
	@echo "open build/book/index.html" >&2

# Unoptimized: it compiles in half the time, and the site is made in seconds.
$(MDBOOK)/bin/mdbook:
	@echo "docs: installing mdBook into $(MDBOOK) (a few minutes, once)" >&2
	CARGO_PROFILE_DEV_DEBUG=0 cargo install --debug mdbook --version $(MDBOOK:target/tools/mdbook-%=%) --locked --no-default-features --features search --root $(MDBOOK)

# `.ci/run` calls it while the code is compiled.
.PHONY: installs
installs: build/libclang-18.1.1 build/quantized-bitsandbytes-0.50.2-torchao-0.18.0 build/transformers-4.45.2 build/zoo/installed.txt \
    build/formats-tests/installed.txt build/view-tests/installed.txt $(MDBOOK)/bin/mdbook ## what the suites of CI install, beside the Python environment
	@$(PYTHON) tests/pythons/fetch.py build/python-3.14
	@$(PYTHON) tests/versions/fetch.py $(firstword $(VERSIONS)) build/torch-$(firstword $(VERSIONS))

# The pictures in README. A Chromium (CHROMIUM=/path) takes them of the demo's output and of the page that the demo makes.
.PHONY: screenshots
screenshots: demo ## docs/images, from the demo's own output
	$(or $(GRAPHPATCH_PYTHON),python3) docs/images/take.py

.PHONY: test-docs
test-docs: venv ## README and docs: every command and program in them is run, and links are checked; the wheel; T='-k start'
	@$(MAKE) --no-print-directory wheel RELEASE=
	$(PYTEST) tests/docs -q $(T)

.PHONY: generate
generate: ## rebuild the committed generated files (C header, seam bindings, pages of the reference, the kernels' PTX)
	.ci/generate
	.ci/kernels

.PHONY: generate-check
generate-check: ## fail when a committed generated file is stale
	.ci/generate --check
	.ci/kernels --check

.PHONY: bench
bench: venv build build/gpt build/bench/cost build/bench/patch build/bench/modules build/bench/flat ## what recording and patching cost, as ratios to the bare program
	PYTHON=$(PYTHON) benches/run.sh
	$(PYTHON) benches/scopes.py
	$(PYTHON) benches/python.py --rounds $(or $(ROUNDS),40)
	PYTHONPATH=bindings/python $(PYTHON) benches/compiled.py --rounds $(or $(ROUNDS),400)
	PYTHONPATH=bindings/python $(PYTHON) benches/packages.py --rounds $(or $(ROUNDS),400)
	PYTHONPATH=bindings/python $(PYTHON) benches/sweep.py

.PHONY: bench-python
bench-python: venv build ## the same for eager Python, next to hooks and to the libraries that GRAPHPATCH_PEERS has
	$(PYTHON) benches/python.py --rounds $(or $(ROUNDS),40)

.PHONY: bench-vllm
bench-vllm: venv build build/vllm-tests/installed.txt ## what a steered request of vLLM's costs, next to a forward hook
	@rm -rf build/vllm-bench && GRAPHPATCH_LIBRARY=$(CURDIR)/target/release/libgraphpatch.so $(INSTALL_INTO) build/vllm-bench ./bindings/python
	PYTHONPATH=build/vllm-bench:build/vllm-tests OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind \
	    VLLM_LOGGING_LEVEL=ERROR VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1 VLLM_ALLOW_INSECURE_SERIALIZATION=1 $(PYTHON) benches/vllm_requests.py --rounds $(or $(ROUNDS),30)

.PHONY: bench-attach
bench-attach: venv build build/steady ## what attaching to a running program costs it
	$(PYTHON) benches/attach.py --rounds $(or $(ROUNDS),10)

# Needs no Rust and no .venv: copy target/release/libgraphpatch.so to the machine with the card. If it has no C++ compiler, copy an
# adapter from `graphpatch doctor --build` too, and name its folder in GRAPHPATCH_ADAPTER_DIR.
.PHONY: gpu-check
gpu-check: ## on a machine with a card: everything there against PyTorch, the sanitizer, then timings
	$(or $(GRAPHPATCH_PYTHON),python3) tests/gpu/check.py

.PHONY: clean
clean: ## remove build products (not .venv)
	rm -rf build
	cargo clean --quiet

# --- host programs -------------------------------------------------------------------------------------------------

# The headers that the programs of one language share; C++ programs also include model.h of the C programs.
C_INCLUDE := -Itests/programs/c/include
CPP_INCLUDE := -Itests/programs/cpp/include $(C_INCLUDE)

# The flags of the interpreter's libtorch. Rewritten only when they change, so that a new libtorch rebuilds the programs.
build/torch.mk: tests/setup/torch_flags.py FORCE | venv
	@mkdir -p build
	@$(PYTHON) $< $@

.PHONY: FORCE
FORCE:

# Included only for goals that compile programs: making the fragment needs the Python environment.
ifneq ($(filter bench test test-view test-hosts test-forms forms hosts stress sanitize-torch build/%,$(MAKECMDGOALS)),)
include build/torch.mk
endif

# libtorch's headers, compiled once for all programs with these flags (0.7 GB). Tests look for source lines (-g1), and some programs
# are shared objects (-fPIC).
HOST_CXX = $(CXX) $(CXXFLAGS) -g1 -fPIC $(TORCH_CXXFLAGS) $(CPP_INCLUDE)
WITH_TORCH := -include build/libtorch.hpp

build/libtorch.hpp.gch: build/torch.mk
	@echo "programs: compiling libtorch's headers" >&2
	@printf '#include <torch/%s.h>\n' script torch > build/libtorch.hpp
	@$(HOST_CXX) -x c++-header build/libtorch.hpp -o $@

build/infer build/runner build/served build/steady build/endings build/flat build/packaged build/dynamics: build/%: tests/programs/cpp/%.cpp tests/programs/cpp/include/host.h \
    build/libtorch.hpp.gch
	@echo "programs: compiling $*" >&2
	@$(HOST_CXX) $(WITH_TORCH) $< -o $@ $(TORCH_LDFLAGS)

build/region.o: tests/programs/cpp/region.cpp tests/programs/cpp/include/region.h build/torch.mk
	@$(CXX) $(CXXFLAGS) -fopenmp -fPIC $(TORCH_CXXFLAGS) $(CPP_INCLUDE) -c $< -o $@

build/regions: tests/programs/cpp/regions.cpp $(addprefix tests/programs/cpp/include/,host.h region.h) build/region.o \
    build/libtorch.hpp.gch
	@echo "programs: compiling regions" >&2
	@$(HOST_CXX) $(WITH_TORCH) -c $< -o build/regions.o
	@$(CXX) build/regions.o build/region.o -o $@ -fopenmp $(TORCH_LDFLAGS)

build/plugin.so build/square_op.so: build/%.so: tests/programs/cpp/%.cpp $(addprefix tests/programs/cpp/include/,host.h square.hpp) \
    build/libtorch.hpp.gch
	@echo "programs: compiling $*" >&2
	@$(HOST_CXX) $(WITH_TORCH) -shared $< -o $@ $(TORCH_LDFLAGS)

# A program as it is delivered: optimized, so that some functions are put into their callers.
build/gpt.o: tests/programs/cpp/gpt.cpp build/torch.mk
	@echo "programs: compiling gpt" >&2
	@$(CXX) $(CXXFLAGS) -O2 -fPIC $(TORCH_CXXFLAGS) -c $< -o $@

build/gpt: build/gpt.o
	@$(CXX) $< -o $@ $(TORCH_LDFLAGS)

build/gpt.so: build/gpt.o
	@$(CXX) -shared $< -o $@ $(TORCH_LDFLAGS)

build/gpt_stripped: build/gpt
	@strip -s $< -o $@

build/late build/load: build/%: tests/programs/c/%.c
	@mkdir -p build
	@$(CC) $(CFLAGS) $< -o $@ '-Wl,--enable-new-dtags,-rpath,$$ORIGIN' -ldl

$(ABI_PROGRAMS): build/%: tests/programs/cpp/%.cpp $(addprefix tests/programs/cpp/include/,host.h abi.h specs.h) \
    include/graphpatch.h build/libtorch.hpp.gch
	@echo "programs: compiling $*" >&2
	@$(HOST_CXX) $(WITH_TORCH) -Iinclude $< -o $@ \
	    -Ltarget/release -lgraphpatch -Wl,-rpath,$(abspath target/release) $(TORCH_LDFLAGS)

# A model behind C functions, for programs that cannot call libtorch themselves.
build/libmodel.so: tests/programs/cpp/model.cpp tests/programs/c/include/model.h build/libtorch.hpp.gch
	@echo "programs: compiling libmodel" >&2
	@$(HOST_CXX) $(WITH_TORCH) -shared $< -o $@ $(TORCH_LDFLAGS)

build/older-glibc/libmodel.so: tests/programs/cpp/model.cpp tests/programs/c/include/model.h build/libtorch.hpp.gch | for-older-glibc
	@echo "programs: compiling libmodel for an older glibc" >&2
	@$(OLDER)/c++ $(filter-out $(firstword $(HOST_CXX)),$(HOST_CXX)) $(WITH_TORCH) -shared $< -o $@ $(TORCH_LDFLAGS)

# The header promises C99 without a warning.
C_HEADERS := $(addprefix tests/programs/c/include/,check.h dlpack.h) include/graphpatch.h

$(C_PROGRAMS): build/c_%: tests/programs/c/%.c $(C_HEADERS) build/libmodel.so
	@echo "programs: compiling c_$*" >&2
	@$(CC) -std=c99 -pedantic -Werror $(CFLAGS) -Iinclude $(C_INCLUDE) $< -o $@ build/libmodel.so -pthread \
	    -Ltarget/release -lgraphpatch -Wl,-rpath,$(abspath target/release) -Wl,-rpath,$(abspath build) \
	    $(filter -Wl$(comma)-rpath-link%,$(TORCH_LDFLAGS))

$(ALONE_PROGRAMS): build/c_%: tests/programs/c/%.c $(C_HEADERS)
	@mkdir -p build
	@echo "programs: compiling c_$*" >&2
	@$(CC) -std=c99 -pedantic -Werror $(CFLAGS) -Iinclude $(C_INCLUDE) $< -o $@ -pthread \
	    -Ltarget/release -lgraphpatch -Wl,-rpath,$(abspath target/release)

# The first time takes a minute of two cores, for libtorch's headers and the 21,000 lines of C++ in tch, which all programs share.
# FORCE leaves it to cargo to decide what has to be compiled again.
RUST_FOR_TORCH = LIBTORCH=$(TORCH_FOLDER) LIBTORCH_CXX11_ABI=$(TORCH_CXX11_ABI) CXXFLAGS=-O0

build/languages/rust/debug/tch-session: FORCE build/torch.mk
	@echo "programs: compiling tch-session (about a minute the first time)" >&2
	@cd tests/programs/rust && cargo fmt --check && \
	    $(RUST_FOR_TORCH) GRAPHPATCH_LIB=$(abspath target/release) cargo build --locked --quiet

# Against an installed libgraphpatch, as pkg-config finds it.
.PHONY: build/languages/rust/examples
build/languages/rust/examples: build/torch.mk
	@echo "programs: compiling the examples of bindings/rust" >&2
	@cd bindings/rust && cargo fmt --check && \
	    $(RUST_FOR_TORCH) CARGO_TARGET_DIR=$(abspath build/languages/rust) cargo build --locked --quiet --examples

CPP_HEADERS := bindings/cpp/graphpatch.hpp $(wildcard bindings/cpp/graphpatch/*.hpp) include/graphpatch.h
CPP_USE := -Wpedantic -Iinclude -Ibindings/cpp $(CPP_INCLUDE)
CPP_LINK := -Ltarget/release -lgraphpatch -Wl,-rpath,$(abspath target/release)

build/cpp_alone: tests/programs/cpp/alone.cpp tests/programs/cpp/include/check.hpp $(CPP_HEADERS)
	@mkdir -p build
	@echo "programs: compiling cpp_alone" >&2
	@$(CXX) -std=c++17 $(CXXFLAGS) $(CPP_USE) $< -o $@ $(CPP_LINK)

build/cpp_modules build/cpp_functions build/cpp_reused build/cpp_shared build/cpp_calls build/cpp_copies build/cpp_fibers build/cpp_meanwhile: build/cpp_%: tests/programs/cpp/%.cpp $(addprefix tests/programs/cpp/include/,check.hpp square.hpp) \
    $(CPP_HEADERS) build/libtorch.hpp.gch
	@echo "programs: compiling cpp_$*" >&2
	@$(HOST_CXX) $(WITH_TORCH) $(CPP_USE) $< -o $@ $(CPP_LINK) $(TORCH_LDFLAGS)

# A stand-in for a card: CUDA's driver, and libtorch's library for CUDA streams, in a folder that the loader searches first.
CARD := tests/gpu/stand_in

build/card/libcuda.so.1: $(CARD)/driver.cpp $(CARD)/driver.h $(wildcard kernels/*.cu kernels/*.cuh kernels/*.h)
	@mkdir -p build/card
	@echo "programs: compiling the stand-in of a card" >&2
	@$(CXX) -std=c++17 -O1 -g -fPIC -Wall -Wextra -Wno-unknown-pragmas -shared -Wl,-soname,libcuda.so.1 $< -o $@

build/card/libc10_cuda.so: $(CARD)/streams.cpp build/card/libcuda.so.1 build/torch.mk
	@$(CXX) $(CXXFLAGS) -fPIC $(TORCH_CXXFLAGS) -shared -Wl,-soname,libc10_cuda.so $< -o $@ build/card/libcuda.so.1

build/card/card: tests/programs/cpp/card.cpp $(CARD)/device.h tests/programs/cpp/include/check.hpp $(CPP_HEADERS) \
    build/card/libc10_cuda.so build/libtorch.hpp.gch
	@echo "programs: compiling card" >&2
	@$(HOST_CXX) $(WITH_TORCH) $(CPP_USE) $< -o $@ -Wl,-rpath,'$$ORIGIN' $(CPP_LINK) $(TORCH_LDFLAGS) \
	    -Wl,--no-as-needed build/card/libc10_cuda.so build/card/libcuda.so.1

TRANSFORMER := bindings/cpp/examples/transformer

build/cpp_methods: tests/programs/cpp/methods.cpp tests/programs/cpp/include/host.h $(CPP_HEADERS) build/libtorch.hpp.gch
	@echo "programs: compiling cpp_methods" >&2
	@$(HOST_CXX) $(WITH_TORCH) $(CPP_USE) $< -o $@ $(CPP_LINK) $(TORCH_LDFLAGS)

build/cpp_transformer: $(wildcard $(TRANSFORMER)/*) $(CPP_HEADERS) build/libtorch.hpp.gch
	@echo "programs: compiling cpp_transformer" >&2
	@$(HOST_CXX) $(WITH_TORCH) $(CPP_USE) $(TRANSFORMER)/transformer.cpp -o $@ $(CPP_LINK) $(TORCH_LDFLAGS)

# Optimized, so that the binding and libtorch's headers are inlined: a test checks that source lines are still found.
build/cpp_scopes: tests/programs/cpp/scopes.cpp $(wildcard $(TRANSFORMER)/*) $(CPP_HEADERS) build/torch.mk
	@echo "programs: compiling cpp_scopes" >&2
	@$(CXX) -O2 -g $(TORCH_CXXFLAGS) $(CPP_USE) -I$(TRANSFORMER) $< -o $@ $(CPP_LINK) $(TORCH_LDFLAGS)

comma := ,

build/bench/cost build/bench/patch: build/bench/%: benches/%.cpp benches/quantile.hpp include/graphpatch.h \
    $(addprefix tests/programs/cpp/include/,abi.h host.h) build/torch.mk
	@mkdir -p build/bench
	@echo "bench: compiling $*" >&2
	@$(CXX) -O2 -Wall $(TORCH_CXXFLAGS) -Iinclude $(CPP_INCLUDE) $< -o $@ \
	    -Ltarget/release -lgraphpatch -Wl,-rpath,$(abspath target/release) $(TORCH_LDFLAGS)

build/bench/modules: benches/modules.cpp benches/quantile.hpp $(wildcard $(TRANSFORMER)/*) $(CPP_HEADERS) build/torch.mk
	@mkdir -p build/bench
	@echo "bench: compiling modules" >&2
	@$(CXX) -O2 -Wall $(TORCH_CXXFLAGS) $(CPP_USE) -I$(TRANSFORMER) $< -o $@ $(CPP_LINK) $(TORCH_LDFLAGS)

build/bench/flat: benches/flat.cpp build/torch.mk
	@mkdir -p build/bench
	@echo "bench: compiling flat" >&2
	@$(CXX) -O2 -Wall $(TORCH_CXXFLAGS) $< -o $@ $(TORCH_LDFLAGS)
