# `graphpatch run` puts the folder of this file in front of PYTHONPATH. Once torch is imported, this module has
# libgraphpatch watch calls of modules. It also runs the program's own sitecustomize, if there is one. The program sees
# neither this folder on sys.path nor this module.

import os
import sys


def _note(error):
    try:
        text = " ".join(str(error).split())
        text = "".join(c if c.isprintable() else "\\u%04x" % ord(c) for c in text)
        sys.stderr.write("graphpatch: modules called by Python are not seen: %s: %s\n" % (type(error).__name__, text))
        sys.stderr.flush()
    except Exception:
        pass


def _is_mapped(library):
    # LD_PRELOAD is not reliable here: the constructor of another library may have removed it from the environment.
    library = os.fsencode(os.path.realpath(library))
    with open("/proc/self/maps", "rb") as maps:
        return any(line.rstrip().endswith(library) for line in maps)


def _is_wanted():
    library = os.environ.get("GRAPHPATCH_LIBRARY")
    return (
        sys.version_info >= (3, 8)
        and os.environ.get("GRAPHPATCH_DISABLE", "0") in ("", "0")
        and library
        and _is_mapped(library)
        # A child may outlive `graphpatch run`, which removes this file.
        and os.path.exists(os.environ.get("GRAPHPATCH_OPTIONS", ""))
    )


def _look():
    """Called when torch has been imported: from now on calls of its modules are seen."""
    is_ours = "libgraphpatch" not in sys.modules  # else the program's own, which uses the same library
    try:
        if is_ours:
            from importlib import util

            folder = os.path.join(os.path.dirname(_folder), "libgraphpatch")
            spec = util.spec_from_file_location(
                "libgraphpatch", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])
            sys.modules["libgraphpatch"] = package = util.module_from_spec(spec)
            spec.loader.exec_module(package)
        from libgraphpatch import _outermost

        _outermost.install()
    except Exception as error:
        if is_ours:
            for name in [name for name in sys.modules if name.split(".")[0] == "libgraphpatch"]:
                del sys.modules[name]
        _note(error)


class _Finder:
    """Finds torch as the other finders do, and acts when it has been imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find and find(name, path, target)
            if spec is not None:
                self.wait_for(spec.loader)
                return spec
        return None

    def wait_for(self, loader):
        try:
            execute = loader.exec_module

            def exec_module(module):
                del loader.exec_module
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                    _look()

            # Python leaves frames of the import system out of tracebacks. By this file name it leaves ours out, too.
            exec_module.__code__ = exec_module.__code__.replace(co_filename="<frozen importlib._bootstrap_external>")
            loader.exec_module = exec_module
        except Exception as error:
            _note(error)


_folder = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if entry != _folder]
sys.path_importer_cache.pop(_folder, None)
try:
    if _is_wanted():
        if "torch" in sys.modules:  # a .pth file was earlier
            _look()
        else:
            sys.meta_path.insert(0, _Finder())
except Exception as error:
    _note(error)

# Imports the program's own sitecustomize. If there is none, the ImportError tells Python so, as it would without us.
del sys.modules["sitecustomize"]
import sitecustomize  # noqa: E402, F401
