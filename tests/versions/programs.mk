# The programs of tests/versions, for the libtorch in FOLDER: `make test-versions`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

include $(FOLDER)/torch.mk

.PHONY: all
all: $(FOLDER)/runner $(FOLDER)/flat $(FOLDER)/by_hand

$(FOLDER)/runner $(FOLDER)/flat: $(FOLDER)/%: tests/programs/cpp/%.cpp
$(FOLDER)/by_hand: tests/programs/cpp/by_hand.cpp

$(FOLDER)/runner $(FOLDER)/flat $(FOLDER)/by_hand: tests/programs/cpp/include/host.h $(FOLDER)/torch.mk
	@echo "versions: compiling $@" >&2
	@$(CXX) $(CXXFLAGS) $(TORCH_CXXFLAGS) -Itests/programs/cpp/include $(filter %.cpp,$^) -o $@ $(TORCH_LDFLAGS)
