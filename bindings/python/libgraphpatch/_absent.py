"""Parameters and buffers without values: they lie on the meta device. Those that accelerate offloads lie there between
calls."""

from __future__ import annotations

from ._modules import held_tensor, note
from ._root import Root


def note_absent_parameters(root: Root) -> None:
    """Notes the first parameter or buffer without values, and how many there are. A hook that loads their values during
    the call puts other tensors in their place, and the library cannot know which parameters these are."""
    absent = [
        path
        for path, (owner, name) in root.tree.parameters
        if (tensor := held_tensor(owner(), name)) is not None and tensor.is_meta
    ]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        note(
            root.session,
            f"{absent[0]}{more}: on the meta device, without values: a tensor that takes its place while its module is"
            " called, as accelerate's offloading has it, is no node; patch the operation that uses it",
        )
