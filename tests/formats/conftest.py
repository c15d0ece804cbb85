"""What the tests of formats share: the readers of other projects, which `make test-formats` puts into build/formats-tests."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Behind everything else: numpy and what else torch uses stay those of the environment.
sys.path.append(str(ROOT / "build/formats-tests"))
