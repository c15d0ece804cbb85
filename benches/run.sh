#!/usr/bin/env bash
# Compiles and runs the benchmarks; `make bench` sets PYTHON, CXX and the flags. ROUNDS=N changes how often.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/bench
[ -e build/bench/gpt.pt ] || "$PYTHON" benches/export.py build/bench/gpt.pt
echo "machine: $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)"
build/bench/cost build/bench/gpt.pt "${ROUNDS:-40}"
echo
build/bench/patch "${ROUNDS:-40}"
echo
exec build/bench/modules "${ROUNDS:-40}"
