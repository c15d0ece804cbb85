"""The plugin that vLLM finds. It is a module of its own so that a vLLM that is not to be patched imports nothing of
libgraphpatch, and so that one that is to be patched does not start without it: vLLM goes on without a plugin that
cannot be imported.
"""

import importlib
import os


def register() -> None:
    """The entry point of the group ``vllm.general_plugins``. Does nothing unless ``GRAPHPATCH_VLLM`` names a folder."""
    if os.environ.get("GRAPHPATCH_VLLM") and os.environ.get("GRAPHPATCH_DISABLE", "0") in ("", "0"):
        importlib.import_module("libgraphpatch.vllm.install").install()
