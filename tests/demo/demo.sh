#!/usr/bin/env bash
# Shows libgraphpatch on a finished program: a sentence encoder that a small C++ program runs from a TorchScript file.
# `make demo` calls this with PYTHON and GRAPHPATCH set, once the command and the program are built.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON:-.venv/bin/python}
graphpatch=${GRAPHPATCH:-target/release/graphpatch}
folder=build/demo
model=$folder/encoder.pt
program=(build/infer "$model" "$folder/tokens.txt")
# The attention weights of the last layer: one operation inside a model that nobody prepared for this.
node=bert.encoder.layer_5.attention.self.softmax

bold='' plain=''
if [[ -t 1 ]]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }

if [[ ! -e $model || tests/demo/export_encoder.py -nt $model ]]; then
    echo "demo: exporting the sentence encoder to TorchScript (half a minute, once)" >&2
    "$python" tests/demo/export_encoder.py "$folder"
fi

say "1. The program as it is: ${program[*]}"
nl -s ' ' -w 1 "$folder/sentences.txt"
echo
"${program[@]}" | tee "$folder/bare.txt"

say "2. The same program under \`graphpatch run --tree\`: every tensor operation has a name"
echo "(the first start on a machine compiles the adapter for this libtorch; that takes some seconds)"
"$graphpatch" run --tree --graph "$folder/graph.json" -- "${program[@]}" >"$folder/recorded.txt" 2>"$folder/tree.txt"
head -n 24 "$folder/tree.txt"
echo "... ($(wc -l <"$folder/tree.txt") lines, all of them in $folder/tree.txt)"
echo
cat "$folder/recorded.txt"
if ! cmp "$folder/bare.txt" "$folder/recorded.txt"; then
    echo "error: recording changed the program's output" >&2
    exit 1
fi
echo "The output is byte for byte the one of step 1."

say "3. One part of that tree: graphpatch show $folder/graph.json ${node%.*}"
"$graphpatch" show "$folder/graph.json" "${node%.*}"

say "4. The program with that attention switched off: --patch '$node=zero'"
"$graphpatch" run --patch "$node=zero" --summary -- "${program[@]}" | tee "$folder/patched.txt"
if cmp -s "$folder/bare.txt" "$folder/patched.txt"; then
    echo "error: the patch changed nothing" >&2
    exit 1
fi
echo "The similarities are others now; the model file and the program are as they were."

say "5. Which part matters? Each attention's and each MLP's output zeroed in turn, in 12 runs: graphpatch sweep"
"$graphpatch" sweep --nodes 'bert.encoder.layer_*{,.attention}.output_1.dense.output' -o "$folder/sweep.csv" \
    --heat-map "$folder/sweep.svg" --metric 'similarity=regex:1 and 2: similarity (\S+)' --metric mean-distance:output -- "${program[@]}"
echo "(as a table in $folder/sweep.csv, as a picture in $folder/sweep.svg)"
