"""The header keeps what compiled clients of every kept version rely on. A client of each released version runs, and
one of today's."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from compare import broken
from reader import FUNCTION, HEADER, ROOT, read

HERE = Path(__file__).resolve().parent
KEPT = sorted(HERE.glob("[0-9]*.[0-9]*"))
# A header, a client that was written against it, and a graph for the client; those of releases lie beside their ABI.
TODAY = (ROOT / "include/graphpatch.h", ROOT / "tests/programs/c/alone.c", ROOT / "tests/fuzz/seeds/graph-tuple.json")
RELEASED = [
    (header, header.parent / "client/alone.c", header.parent / "client/graph.json")
    for header in sorted(HERE.glob("[0-9]*.[0-9]*/graphpatch.h"))
]


@pytest.mark.parametrize("kept", KEPT, ids=lambda folder: folder.name)
def test_nothing_that_clients_rely_on_has_changed(kept: Path) -> None:
    baseline = json.loads((kept / "abi.json").read_text(encoding="utf-8"))
    assert len(baseline["functions"]) > 80 and len(baseline["structs"]) >= 2, "the baseline says little"
    assert broken(baseline, read(HEADER)) == []


@pytest.mark.parametrize(
    "found, instead, named",
    [
        (r"gp_status gp_session_detach\([^)]*\);", "", "gp_session_detach"),
        (r"(gp_status gp_spec_index\(gp_spec \*spec, )int64_t", r"\1int32_t", "gp_spec_index"),
        (r"uint32_t gp_abi_version", "uint64_t gp_abi_version", "gp_abi_version"),
        ("GP_STATUS_SLICE = 4", "GP_STATUS_SLICE = 5", "GP_STATUS_SLICE"),
        (r"GP_WANTS_OPERATIONS = 32,", "", "GP_WANTS_OPERATIONS"),
        (r"typedef int32_t gp_status", "typedef int64_t gp_status", "gp_status"),
        (r"uint64_t matched;", "uint32_t matched;", "gp_patch_counts"),
        (r"(uint64_t matched;)((?s:.*?))(uint64_t applied;)", r"\3\2\1", "gp_patch_counts"),
        (r"uint64_t failed;", "", "gp_patch_counts"),
        (r"char number;", "char number; char another;", "gp_leaf"),
        (r"(typedef int32_t \(\*gp_callback\)\(void \*user,)", r"\1 int more,", "gp_callback"),
        (r"#define GRAPHPATCH_ABI_VERSION \d+", "#define GRAPHPATCH_ABI_VERSION 77", "number"),
    ],
)
def test_an_incompatible_header_is_found(found: str, instead: str, named: str) -> None:
    changed, count = re.subn(found, instead, HEADER)
    assert count == 1
    assert any(named in what for what in broken(read(HEADER), read(changed)))


@pytest.mark.parametrize(
    "found, instead",
    [
        (r"(const char \*gp_version\(void\);)", r"\1 gp_status gp_new_call(int64_t number);"),
        (r"(GP_STATUS_STATE = 10,)", r"\1 GP_STATUS_NEW = 11,"),
        (r"(uint64_t pending;)", r"\1 uint64_t later;"),
        (r"(typedef struct gp_spec gp_spec;)", r"\1 typedef struct gp_later gp_later;"),
    ],
)
def test_additions_are_fine(found: str, instead: str) -> None:
    changed, count = re.subn(found, instead, HEADER)
    assert count == 1 and read(changed) != read(HEADER)
    assert broken(read(HEADER), read(changed)) == []


def test_structs_that_grow_have_no_padding_at_the_end() -> None:
    for name, struct in read(HEADER)["structs"].items():
        last = struct["members"][-1]
        assert struct["members"][0][:2] == ["size", "unsigned long"], name
        assert last[2] + last[3] == struct["size"], name


@pytest.mark.parametrize("header, client, graph", [TODAY, *RELEASED], ids=lambda path: path.parent.name)
def test_a_client_runs(header: Path, client: Path, graph: Path, tmp_path: Path) -> None:
    """Compiled against its header; it takes the address of every call that the header has, and makes most of them."""
    library, program = ROOT / "target/release", tmp_path / "client"
    calls = [name for _, _, name, _ in FUNCTION.findall(header.read_text(encoding="utf-8"))]
    table = tmp_path / "every_call.c"
    listed = ", ".join(f"(call){name}" for name in calls)
    table.write_text(
        "#include <graphpatch.h>\ntypedef void (*call)(void);\nextern const call every_call[];\n"
        f"const call every_call[] = {{{listed}}};\n"
    )
    done = subprocess.run(
        [
            "cc",
            "-std=c99",
            "-Wall",
            "-Wextra",
            "-pedantic",
            "-Werror",
            "-I",
            header.parent,
            "-I",
            ROOT / "tests/programs/c/include",
            client,
            table,
            "-o",
            program,
            f"-L{library}",
            "-lgraphpatch",
            f"-Wl,-rpath,{library}",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ran = subprocess.run([program, graph, tmp_path], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr


def without_its_words(header: str) -> list[tuple[str, str]]:
    """The calls whose comments lack a word that the header's preamble promises, each with the missing word."""
    missing = []
    statuses = set(re.findall(r"(GP_STATUS_\w+) = ", header))
    for comment, result, name, arguments in FUNCTION.findall(header):
        text = re.sub(r"\s*//\s*", " ", comment)
        wants = {
            r"Thread: (any|one at a time|its own|the last)\.": True,
            r"NULL: [^.]+\.": "*" in arguments or "callback" in arguments,
            r"Errors: (none of its own|GP_STATUS_\w+(, GP_STATUS_\w+)*)\.": result.strip() == "gp_status",
            r"Since \d+\.\d+\.\d+\. ?$": True,
            r"\bnew\b": re.search(r"(?<!const )\*\*", arguments),
        }
        missing += [(name, pattern) for pattern, wanted in wants.items() if wanted and not re.search(pattern, text)]
        missing += [(name, status) for status in re.findall(r"GP_STATUS_\w+", text) if status not in statuses]
    return missing


def test_every_call_says_its_rules() -> None:
    assert len(FUNCTION.findall(HEADER)) == len(read(HEADER)["functions"]) > 80
    assert without_its_words(HEADER) == []
    for word in ("Thread: ", "NULL: ", "Errors: ", "Since "):
        assert without_its_words(HEADER.replace(word, "", HEADER.count(word))), word


def test_versions() -> None:
    """The header has the crate's version. Each call's "Since" is this version or a released one that has the call."""
    crate = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(encoding="utf-8"), flags=re.M)[1]
    assert f'#define GRAPHPATCH_VERSION "{crate}"' in HEADER
    numbers = re.findall(r"#define GRAPHPATCH_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", HEADER)
    assert ".".join(numbers) == crate
    older = {
        name: re.search(r"Since ([\d.]+)\.", comment)[1]
        for header, _, _ in RELEASED
        for comment, _, name, _ in FUNCTION.findall(header.read_text(encoding="utf-8"))
    }
    for comment, _, name, _ in FUNCTION.findall(HEADER):
        assert re.search(r"Since ([\d.]+)\.", comment)[1] == older.get(name, crate), name
