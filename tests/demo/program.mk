# The demo's program, with the flags of build/demo/torch.mk; and `cpp.flags`, which lets `c++ FILE.cpp @cpp.flags` in build/demo use
# libtorch and the C++ binding. Both are written beside and renamed: another demo in the same checkout may run the program now.

SHELL := bash
.DELETE_ON_ERROR:

all: build/demo/bin/infer build/demo/cpp.flags

include build/demo/torch.mk

build/demo/bin/infer: tests/programs/cpp/infer.cpp build/demo/torch.mk
	@mkdir -p $(@D)
	@echo "demo: compiling the program (half a minute)" >&2
	@$(CXX) -O0 $(TORCH_CXXFLAGS) $< -o $@.$$$$.part $(TORCH_LDFLAGS) && mv -f $@.$$$$.part $@

build/demo/cpp.flags: tests/demo/program.mk build/demo/torch.mk
	@printf '%s\n' '$(TORCH_CXXFLAGS) -I$(CURDIR)/include -I$(CURDIR)/bindings/cpp' \
	    '-L$(CURDIR)/target/release -Wl,-rpath,$(CURDIR)/target/release -lgraphpatch $(TORCH_LDFLAGS)' > $@.$$$$.part && mv -f $@.$$$$.part $@
