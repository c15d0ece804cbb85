"""A module that calls a model which is no module of Python's."""

from typing import Any

from torch import Tensor, nn


class Holder(nn.Module):
    """Calls a model that is no plain module."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model(x)
