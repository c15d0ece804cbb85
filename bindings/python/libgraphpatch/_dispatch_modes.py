"""Which of torch's own dispatch modes is on, as while a program is exported or traced."""

from __future__ import annotations

import torch

_KEYS = {name: getattr(torch._C._TorchDispatchModeKey, name) for name in ("FAKE", "PROXY", "FUNCTIONAL")}
_mode = torch._C._get_dispatch_mode
# The length of the stack of dispatch modes, which includes the modes above. Nearly always it is 0, and asking for it
# costs far less than asking for each mode.
_modes = torch._C._len_torch_dispatch_stack


def mode_on(*names: str) -> str | None:
    """The first of the modes that is on, or None."""
    return next((name for name in names if _mode(_KEYS[name]) is not None), None) if _modes() else None
