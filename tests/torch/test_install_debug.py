"""`make install` installs small files without debug information, which debuggers find in files beside them."""

import re
import struct
import zlib
from pathlib import Path

import pytest

from installed import VERSION, good, run

FILES = ["bin/graphpatch", f"lib/libgraphpatch.so.{VERSION}"]


def sections(file: Path) -> dict[str, str]:
    told = good(run(["readelf", "--wide", "--sections", file], env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}))
    return dict(re.findall(r"\] (\.\S+) +(\S+) ", told))


@pytest.mark.parametrize("name", FILES)
def test_debug_information_is_beside_what_is_loaded(name: str, moved: Path, tmp_path: Path) -> None:
    file = moved / name
    debug = file.parent / ".debug" / f"{file.name}.debug"
    loaded = sections(file)
    assert not {".debug_info", ".debug_line", ".debug_str", ".symtab"} & loaded.keys()
    assert ".debug_line" in sections(debug)
    good(run(["objcopy", "--dump-section", f".gnu_debuglink={tmp_path / 'link'}", file, tmp_path / "copy"]))
    link = (tmp_path / "link").read_bytes()
    assert link.startswith(debug.name.encode() + b"\0")
    assert struct.unpack("<I", link[-4:])[0] == zlib.crc32(debug.read_bytes()), "a debugger would not take it"


def test_what_is_loaded_is_a_part_of_what_was_built(moved: Path) -> None:
    for name in FILES:
        file = moved / name
        debug = file.parent / ".debug" / f"{file.name}.debug"
        assert file.stat().st_size < 9_500_000 and file.stat().st_size < debug.stat().st_size
