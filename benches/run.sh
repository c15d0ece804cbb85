#!/usr/bin/env bash
# Runs the C++ benchmarks that `make bench` has compiled; it also sets PYTHON. ROUNDS=N is the number of rounds.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/bench
[ -e build/bench/gpt.pt ] || "$PYTHON" benches/export.py build/bench/gpt.pt
echo "machine: $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)"
build/bench/cost build/bench/gpt.pt "${ROUNDS:-40}"
echo
# The median over seven processes of the time for one operation: early, while it is recorded, and late, after that.
flat() {
  local label=$1
  shift
  # Exit code 3 says that a patch never matched, as intended here.
  for _ in $(seq 7); do "$@" 2>/dev/null || [[ $? -eq 3 ]]; done | sort -n | awk -v label="$label" '
    { early[NR] = $1; late[NR] = $2 }
    END { mid = int((NR + 1) / 2); printf "%-44s %6d ns %6d ns\n", label, early[mid], late[mid] }'
}
graphpatch=target/release/graphpatch
export OMP_NUM_THREADS=1
echo "one operation of a plain C++ program: early, late"
flat "bare" build/bench/flat
flat "--tree" "$graphpatch" run --tree -- build/bench/flat
flat "--patch, counted on" "$graphpatch" run --patch 'relu_99999999=zero' -- build/bench/flat
flat "--patch, another operation" "$graphpatch" run --patch 'sigmoid=zero' -- build/bench/flat
flat "--tree --run-at add" "$graphpatch" run --tree --run-at add -- build/bench/flat
echo
build/bench/patch "${ROUNDS:-40}"
echo
exec build/bench/modules "${ROUNDS:-40}"
