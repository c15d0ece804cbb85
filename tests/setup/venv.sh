#!/usr/bin/env bash
# Makes the Python that the demo and the tests use: .venv with the pinned packages of tests/requirements.txt, or the
# interpreter that GRAPHPATCH_PYTHON names, which is only checked. Does nothing when .venv already matches the list.
set -euo pipefail
cd "$(dirname "$0")/../.."

requirements=tests/requirements.txt
# A copy of the list as installed: comparing contents, not times, survives a fresh checkout beside an old .venv.
stamp=.venv/installed-requirements.txt

if [[ -n "${GRAPHPATCH_PYTHON:-}" ]]; then
    exec "$GRAPHPATCH_PYTHON" tests/setup/check_modules.py "set by GRAPHPATCH_PYTHON"
fi
if cmp -s "$requirements" "$stamp" && [[ -x .venv/bin/python ]]; then
    exit 0
fi

if ! command -v python3 >/dev/null; then
    echo "error: python3 was not found; install Python 3.11 or newer, or name one in GRAPHPATCH_PYTHON" >&2
    exit 1
fi
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: $(command -v python3) is $(python3 -V), but the pinned packages need 3.11 or newer;" \
        "name a newer one's environment in GRAPHPATCH_PYTHON" >&2
    exit 1
fi
if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    echo "error: $(command -v python3) has no venv module; on Debian and Ubuntu it comes with the package" \
        "python3-venv (or name an interpreter that has torch in GRAPHPATCH_PYTHON)" >&2
    exit 1
fi

if [[ ! -x .venv/bin/python ]]; then
    free_kb=$(df -Pk . | awk 'NR == 2 { print $4 }')
    if ((free_kb < 8 * 1024 * 1024)); then
        echo "error: .venv needs about 5 GB (8 GB while installing), $((free_kb / 1024 / 1024)) GB are free here" >&2
        exit 1
    fi
    echo "venv: creating .venv" >&2
    python3 -m venv .venv
fi
echo "venv: installing torch and the other packages of $requirements (about 5 GB, one to three minutes the first time)" >&2
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps -r "$requirements"
.venv/bin/python tests/setup/check_modules.py "just installed"
cp "$requirements" "$stamp"
echo "venv: ready" >&2
