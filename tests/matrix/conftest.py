"""One family of models, or all, in every host."""

import setting  # noqa: F401, sets the paths of imports
