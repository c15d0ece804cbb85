# `graphpatch attach` has a thread of libgraphpatch's run this file in a Python program that runs already, in variables of its
# own: `__file__`; `library`, the path of libgraphpatch.so; and `sockets`, the folder of the sockets of live control. From then on calls of
# torch's modules are seen. `said` is why they are not, or "later" while torch is being imported.

import os
import sys


def _begin():
    torch = sys.modules.get("torch")
    if torch is None:
        return "its Python has not imported torch"
    if getattr(torch.__spec__, "_initializing", False):
        return "later"
    is_ours = "libgraphpatch" not in sys.modules  # else the program's own, which uses the same library
    try:
        if is_ours:
            from importlib import util

            folder = os.path.join(os.path.dirname(os.path.dirname(__file__)), "libgraphpatch")
            spec = util.spec_from_file_location(
                "libgraphpatch", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])
            sys.modules["libgraphpatch"] = package = util.module_from_spec(spec)
            package.LIBRARY = library  # noqa: F821
            spec.loader.exec_module(package)
        from libgraphpatch import _outermost, _prefix_cache

        _outermost.install()
        _prefix_cache.install(sockets)  # noqa: F821
    except Exception as error:
        if is_ours:
            for name in [name for name in sys.modules if name.split(".")[0] == "libgraphpatch"]:
                del sys.modules[name]
        return "%s: %s" % (type(error).__name__, error)
    return ""


said = _begin()
