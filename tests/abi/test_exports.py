"""The library exports the header's calls, the preload's hooks, Python's extension, the entry for `graphpatch attach`, and nothing else."""

import ctypes
import re
import subprocess

from reader import ROOT, read

LIBRARY = ROOT / "target/release/libgraphpatch.so"
HEADER = (ROOT / "include/graphpatch.h").read_text(encoding="utf-8")
# The one list of hooks. They have no symbol version, so that references to any version of libc's function bind to them.
TABLE = (ROOT / "src/library/inside/table.rs").read_text(encoding="utf-8")
LIBC = set(re.findall(r'= c"(\w+)":', TABLE))
MEMBERS = set(re.findall(r'"(_ZN?K?5torch\w+)"', TABLE))
FORWARDS = set(
    re.findall(r' "(_ZN?K?5torch\w+)";', (ROOT / "src/library/inside/forwards.rs").read_text(encoding="utf-8"))
)
HOOKS = LIBC | MEMBERS | FORWARDS
# The entry point by which Python imports the library as an extension module.
EXTENSION = {"PyInit__native"}
# What `graphpatch attach` calls in a process that runs already.
ATTACHED = {"graphpatch_attach_begin"}


def test_exports_are_the_calls_the_hooks_and_the_extension() -> None:
    assert {"__libc_start_main", "dlopen", "pthread_create"} <= LIBC and len(MEMBERS) > 10 and len(FORWARDS) > 100
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", "--with-symbol-versions", LIBRARY], capture_output=True, text=True, check=True
    ).stdout
    exported = [line.split()[-1] for line in listed.splitlines()]
    assert sorted(exported) == sorted(set(read(HEADER)["functions"]) | HOOKS | EXTENSION | ATTACHED)


def test_the_librarys_version_is_the_headers() -> None:
    library = ctypes.CDLL(str(LIBRARY))
    library.gp_version.restype = ctypes.c_char_p
    version = re.search(r'#define GRAPHPATCH_VERSION "(.*)"', HEADER)[1]
    assert library.gp_version().decode() == version and library.gp_abi_version() == read(HEADER)["number"]


def test_the_soname_has_the_abi_number() -> None:
    dynamic = subprocess.run(["readelf", "-d", LIBRARY], capture_output=True, text=True, check=True).stdout
    number = read(HEADER)["number"]
    assert re.search(r"\(SONAME\).*\[(.*)\]", dynamic)[1] == f"libgraphpatch.so.{number}"
    assert LIBRARY.with_name(f"libgraphpatch.so.{number}").samefile(LIBRARY)
