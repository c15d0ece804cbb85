"""Imports torch in one of several ways, and prints what is left of the import hook afterwards."""

import importlib
import importlib.util
import sys

before = [type(finder).__name__ for finder in sys.meta_path]
if "probe" in sys.argv:
    print(importlib.util.find_spec("torch").name, "torch" in sys.modules)
if "lazy" in sys.argv:
    spec = importlib.util.find_spec("torch")
    loader = importlib.util.LazyLoader(spec.loader)
    spec.loader = loader
    torch = importlib.util.module_from_spec(spec)
    sys.modules["torch"] = torch
    loader.exec_module(torch)
    print(torch.__name__)
import torch

if "reload" in sys.argv:
    try:
        importlib.reload(torch)
    except Exception as error:
        print(type(error).__name__)
print(
    [getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path if "Finder" in str(finder)],
    "exec_module" in vars(torch.__loader__),
    any("python-" in entry for entry in sys.path),
    "sitecustomize" in sys.modules,
)
from model import bits, pair

print(bits(pair()(torch.ones(2, 4))))
