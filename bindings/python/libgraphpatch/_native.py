"""Loads the extension module through which calls of modules go. It lies in the library itself. Without it,
``_module_call`` does the same in Python.

It is not used without a GIL, by interpreters other than CPython, and if the environment has ``GRAPHPATCH_CTYPES=1``.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
from typing import Any

from ._library import lib

# The extension must have the version that src/library/python/mod.rs has.
_VERSION = 9


def _load() -> Any:
    if os.environ.get("GRAPHPATCH_CTYPES") == "1":
        return None
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return None
    name = f"{__package__}._native"
    loader = importlib.machinery.ExtensionFileLoader(name, lib._name)
    spec = importlib.util.spec_from_file_location(name, lib._name, loader=loader)
    if spec is None:
        return None
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except (ImportError, SystemError):  # another library, or an interpreter that lacks something
        return None
    return module if module.VERSION == _VERSION else None


# The extension, or None.
native: Any = _load()


def sheltered(function: Any) -> Any:
    """A function for C code to call. What a signal handler of the program raises in it is raised again in the program,
    where the extension is there; without it, ctypes prints and drops it."""
    return function if native is None else functools.partial(native.sheltered, function)


def persisted(function: Any) -> Any:
    """The same for a function that has to come to its end. It is called again where it was ended, so it must be one
    that may be called again."""
    return function if native is None else functools.partial(native.persisted, function)


def method(function: Any) -> Any:
    """A function of the extension's as a method of a class."""
    make = ctypes.pythonapi.PyInstanceMethod_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.py_object]
    return make(function)
