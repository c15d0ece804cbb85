"""The models of the zoo, by name: each is made with random weights, tiny, beside the inputs of one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.nn import Module

import models_audio
import models_diffusion
import models_mixed
import models_text
import models_vision

Make = Callable[[], tuple[Module, dict[str, Any]]]

MODELS: dict[str, Make] = {
    **models_text.MODELS,
    **models_audio.MODELS,
    **models_mixed.MODELS,
    **models_vision.MODELS,
    **models_diffusion.MODELS,
}
