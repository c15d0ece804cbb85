"""`make install`: the installed files, and that they work after a move to another place, with nothing else around."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cpp_models import Gpt, state
from installed import VERSION, build, clean, files, good, make, run, tool
from support import GRAPHPATCH, PROGRAMS, ROOT, Saved, tree_in

C_PROGRAM = """
#include <graphpatch.h>
#include <stdio.h>
int main(void) { return puts(gp_version()) < 0; }
"""

# Arguments of find_package, and whether it must accept this version.
ASKED = {
    "": True,
    VERSION: True,
    f"{VERSION} EXACT": True,
    "0.1": True,
    "0": True,
    "0.0.9": False,
    "0.1.99": False,
    "0.2": False,
    "1": False,
    "99.0": False,
    "0.1...<0.2": True,
    "0.0.1...0.0.9": False,
    "0.2...1": False,
}

CMAKE_PROJECT = """
cmake_minimum_required(VERSION 3.19)
project(uses_graphpatch LANGUAGES C)
foreach(asked IN ITEMS {asked})
  separate_arguments(words UNIX_COMMAND "${{asked}}")
  unset(graphpatch_DIR CACHE)
  find_package(graphpatch ${{words}} QUIET)
  message(STATUS "asked [${{asked}}] found ${{graphpatch_FOUND}}")
endforeach()
unset(graphpatch_DIR CACHE)
find_package(graphpatch REQUIRED)
message(STATUS "version [${{graphpatch_VERSION}}]")
set(CMAKE_C_STANDARD 99)
add_executable(program program.c)
target_link_libraries(program PRIVATE graphpatch::graphpatch)
"""


def test_nothing_in_it_names_a_place(moved: Path) -> None:
    """Text files contain no absolute paths, and the library's file name has the ABI's number."""
    listed = files(moved)
    headers = [f"include/graphpatch/{file.name}" for file in (ROOT / "bindings/cpp/graphpatch").glob("*.hpp")]
    sonames = [name for name in listed if name.startswith("lib/libgraphpatch.so.") and not name.endswith(VERSION)]
    assert len(sonames) == 1 and sonames[0].removeprefix("lib/libgraphpatch.so.").isdigit()
    assert [file for file in listed if "graphpatch-adapters" not in file] == sorted(
        [
            "bin/.debug/graphpatch.debug",
            "bin/graphpatch",
            "include/graphpatch.h",
            "include/graphpatch.hpp",
            *headers,
            *sonames,
            f"lib/.debug/libgraphpatch.so.{VERSION}.debug",
            "lib/libgraphpatch.so",
            f"lib/libgraphpatch.so.{VERSION}",
            "lib/pkgconfig/graphpatch.pc",
            "lib/cmake/graphpatch/graphpatchConfig.cmake",
            "lib/cmake/graphpatch/graphpatchConfigVersion.cmake",
            "share/bash-completion/completions/graphpatch",
            "share/fish/vendor_completions.d/graphpatch.fish",
            "share/zsh/site-functions/_graphpatch",
            *(file for file in listed if file.startswith("share/man/man1/graphpatch")),
        ]
    )
    for name in ["lib/libgraphpatch.so", *sonames]:
        assert os.readlink(moved / name) == f"libgraphpatch.so.{VERSION}"
    for file in listed:
        if not (moved / file).read_bytes().startswith(b"\x7fELF"):
            text = (moved / file).read_text()
            assert str(moved.parent) not in text and not re.search(r"@\w+@", text), file


def test_c_by_pkg_config(moved: Path, tmp_path: Path) -> None:
    environment = clean(tmp_path / "home", PKG_CONFIG_PATH=moved / "lib/pkgconfig")
    ask = lambda *options: good(run([tool("pkg-config"), *options, "graphpatch"], env=environment)).strip()
    assert ask("--modversion") == VERSION
    libdir = ask("--variable=libdir")
    (tmp_path / "program.c").write_text(C_PROGRAM)
    good(
        run(
            [
                "cc",
                "-std=c99",
                "-pedantic",
                "-Wall",
                "-Wextra",
                "-Werror",
                *ask("--cflags").split(),
                "program.c",
                "-o",
                "program",
                *ask("--libs").split(),
                f"-Wl,-rpath,{libdir}",
            ],
            cwd=tmp_path,
            env=environment,
        )
    )
    assert good(run([tmp_path / "program"], env=clean(tmp_path / "home"))).strip() == VERSION


def test_c_by_cmake(moved: Path, tmp_path: Path) -> None:
    """CMake refuses versions that are too new or incompatible, and the program runs."""
    (tmp_path / "program.c").write_text(C_PROGRAM)
    asked = " ".join(f'"{version}"' for version in ASKED)
    (tmp_path / "CMakeLists.txt").write_text(CMAKE_PROJECT.format(asked=asked))
    environment = clean(tmp_path / "home")
    told = good(
        run(
            [
                tool("cmake"),
                "-S",
                tmp_path,
                "-B",
                tmp_path / "build",
                "-G",
                "Ninja",
                f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
                f"-DCMAKE_PREFIX_PATH={moved}",
            ],
            env=environment,
        )
    )
    for version, will_do in ASKED.items():
        assert f"asked [{version}] found {int(will_do)}\n" in told, told
    assert f"version [{VERSION}]" in told
    good(run([tool("cmake"), "--build", tmp_path / "build"], env=environment))
    assert good(run([tmp_path / "build/program"], env=environment)).strip() == VERSION
    needed = good(run(["readelf", "-d", tmp_path / "build/program"], env={**environment, "LC_ALL": "C"}))
    assert "[libgraphpatch.so." in needed, "asked for by its SONAME, not by a path"


def test_the_command_from_there(moved: Path, tuple_output: Callable[[str], Saved], tmp_path: Path) -> None:
    """The command runs by its path and through a link. It uses the shipped adapter, so that it needs no compiler."""
    saved = tuple_output("scripted")
    expected = saved.run().ok().tree
    link = tmp_path / "graphpatch"
    link.symlink_to(moved / "bin/graphpatch")
    for command in [moved / "bin/graphpatch", link]:
        done = run(
            [command, "run", "--tree", "--", PROGRAMS / "runner", *saved.args(), tmp_path / "out.pt"],
            env=clean(tmp_path / "home", OMP_NUM_THREADS=1, CXX="none", PATH=tmp_path),
        )
        good(done)
        assert tree_in(done.stderr) == expected
    assert not list((tmp_path / "home").rglob("adapter-*")), "no adapter was built"


def test_a_command_without_its_library(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy(GRAPHPATCH, tmp_path / "bin")
    done = run([tmp_path / "bin/graphpatch", "run", "--", "true"], env=clean(tmp_path / "home"))
    assert done.returncode == 2
    for part in [tmp_path / "lib", tmp_path / "lib64", f"libgraphpatch.so.{VERSION}", "GRAPHPATCH_LIBRARY"]:
        assert str(part) in done.stderr, done.stderr


@pytest.mark.parametrize(
    "libdir, finds_it", [("lib64", True), (f"lib/{os.uname().machine}-linux-gnu", True), ("odd", False)]
)
def test_staging_and_uninstall(libdir: str, finds_it: bool, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    variables = [f"DESTDIR={stage}", "prefix=/opt/gp", f"libdir=/opt/gp/{libdir}", "includedir=/opt/gp/share/include"]
    done = run(["make", "install", *variables], cwd=ROOT)
    good(done)
    assert ("GRAPHPATCH_LIBRARY=" in done.stderr) != finds_it
    assert [entry.name for entry in stage.iterdir()] == ["opt"]
    prefix = stage / "opt/gp"
    flags = good(
        run(
            [tool("pkg-config"), "--cflags-only-I", "graphpatch"],
            env=clean(tmp_path / "home", PKG_CONFIG_PATH=prefix / libdir / "pkgconfig"),
        )
    ).strip()
    assert (Path(flags.removeprefix("-I")) / "graphpatch.h").samefile(prefix / "share/include/graphpatch.h")
    told = run([prefix / "bin/graphpatch", "run", "--", "true"], env=clean(tmp_path / "home"))
    assert told.returncode == (0 if finds_it else 2), told.stderr

    foreign = [prefix / libdir / "libother.so", prefix / "share/include/other.h"]
    for file in foreign:
        file.write_text("somebody else's")
    make("uninstall", *variables)
    assert files(stage) == sorted(str(file.relative_to(stage)) for file in foreign)
    assert not list(stage.rglob("*graphpatch*")), "folders of our own stay"
    make("uninstall", *variables)


def test_a_relative_prefix_is_refused(tmp_path: Path) -> None:
    done = run(["make", "install", "PREFIX=here"], cwd=ROOT)
    assert done.returncode != 0 and "absolute" in done.stderr and not (ROOT / "here").exists()


@pytest.mark.parametrize("way", ["cmake", "pkg-config"])
def test_the_transformer_against_the_moved_tree(way: str, moved: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, ids = Gpt().eval(), torch.randint(50, (2, 8))
    torch.save(state(model, ids), tmp_path / "state.pt")
    expected = run([PROGRAMS / "cpp_transformer", tmp_path / "state.pt", tmp_path / "expected.pt"])
    good(expected)

    transformer = build("transformer", way, moved, tmp_path / "build")
    done = run([transformer, tmp_path / "state.pt", tmp_path / "out.pt"], env=clean(tmp_path / "home"))
    assert good(done) == expected.stdout and done.stderr == expected.stderr
    found = torch.load(tmp_path / "out.pt")
    with torch.no_grad():
        torch.testing.assert_close(found[0], model(ids), rtol=0, atol=1e-5)
    for mine, theirs in zip(found, torch.load(tmp_path / "expected.pt"), strict=True):
        assert torch.equal(mine, theirs)
