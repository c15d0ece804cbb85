"""Compares what the header says of each call's errors and of NULL with what the call returns. Every call is made with
NULL for each pointer, and with meaningless text and numbers, in a process without libtorch, which must survive."""

import ctypes
import functools
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reader import FUNCTION, HEADER, ROOT, read

LIBRARY = ROOT / "target/release/libgraphpatch.so"
GRAPH = ROOT / "tests/fuzz/seeds/graph-tuple.json"
NO_MESSAGE = ("gp_callback_fail",)  # its status is not an error of its own, but the result for the callback
# Types of which no object can be made without libtorch; the test always passes NULL for them.
ABSENT = ("struct DLManagedTensorVersioned *", "const struct gp_snapshot *", "struct gp_frames *")


class Caller:
    """Makes arguments by their C types and calls."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(str(LIBRARY))
        self.kept: list[Any] = []

    def made(self, call: str, *given: Any) -> ctypes.c_void_p:
        out = ctypes.c_void_p()
        assert self.library[call](*given, ctypes.byref(out)) == 0, call
        return out

    def aside(self) -> ctypes.c_void_p:
        assert self.library.gp_run_decline(True) == 0
        return self.made("gp_calls_set_aside")

    def handle(self, kind: str) -> Any:
        return {
            "gp_aside": self.aside,
            "gp_session": lambda: self.made("gp_session_open"),
            "gp_graphs": lambda: self.made("gp_graphs_load", str(GRAPH).encode()),
            "gp_spec": lambda: self.made("gp_spec_new", b"linear.output"),
            "gp_value": lambda: self.made("gp_value_float", ctypes.c_double(1)),
            "gp_root": lambda: self.made(
                "gp_root_new", b"M", b"M", None, ctypes.c_size_t(0), None, ctypes.c_size_t(0), False
            ),
            "gp_scope": lambda: self.made("gp_scope_new", b"a", b"a", b"A", None, ctypes.c_size_t(0), False),
        }[kind]()

    def good(self, kind: str) -> Any:
        """A well-formed value of the type. The call may still refuse it, as it may name nothing that exists."""
        if "(*)" in kind:
            returns = None if kind.startswith("void") else ctypes.c_int
            self.kept.append(
                ctypes.CFUNCTYPE(returns, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: None)
            )
            return self.kept[-1]
        if found := re.fullmatch(r"(?:const )?struct (gp_\w+) \*", kind):
            return self.handle(found[1])
        if kind == "const char *":
            return b"linear"
        if kind in ("gp_patch_counts *", "gp_leaf *", "gp_node *"):
            self.kept.append((ctypes.c_size_t * 16)(40 if "leaf" in kind else 32))
            return self.kept[-1]
        if kind.startswith("const") and kind.endswith(("*const *", "long *")):
            element = self.handle("gp_spec") if "gp_spec" in kind else None
            self.kept.append((ctypes.c_char_p * 1)(b"linear") if "char" in kind else (ctypes.c_void_p * 1)(element))
            return self.kept[-1]
        if kind.endswith("*"):
            self.kept.append((ctypes.c_size_t * 8)())
            return self.kept[-1]
        return self.number(kind, 1)

    def number(self, kind: str, number: int) -> Any:
        return {"double": ctypes.c_double, "_Bool": ctypes.c_bool, "unsigned int": ctypes.c_uint}.get(
            kind, ctypes.c_size_t
        )(number)


@functools.cache
def status_calls() -> dict[str, list[str]]:
    """The types of the arguments of each call that answers a status."""
    calls = {}
    for name, kind in read(HEADER)["functions"].items():
        if kind.startswith("int (") and name not in ("gp_session_attach", "gp_torch_load"):
            depth, arguments = 0, [""]
            for letter in kind[len("int (") : -1]:
                depth += (letter == "(") - (letter == ")")
                if letter == "," and depth == 0:
                    arguments.append("")
                else:
                    arguments[-1] += letter
            calls[name] = [argument.strip() for argument in arguments if argument not in ("void", "")]
    return calls


def attempts(caller: Caller, kinds: list[str]) -> Iterator[tuple[str, list[Any]]]:
    """Pairs of what is wrong (the index of an argument that is NULL, or words) and the arguments."""

    def all_good() -> list[Any]:
        return [None if kind in ABSENT else caller.good(kind) for kind in kinds]

    yield "nothing", all_good()
    yield "everything", [None if kind.endswith("*") or "(*)" in kind else caller.number(kind, 0) for kind in kinds]
    for i, kind in enumerate(kinds):
        if kind.endswith("*") or "(*)" in kind:
            yield str(i), [*all_good()[:i], None, *all_good()[i + 1 :]]
        if kind == "const char *":
            for text in (
                b"",
                b"a..b[",
                b"\xff\xfe",
                b"[0, 1, 2",
                b"linear.absent",
                b"/absent/folder/file",
                b"linear[0]=double",
            ):
                yield "text", [*all_good()[:i], text, *all_good()[i + 1 :]]
        elif not kind.endswith("*") and "(*)" not in kind and not (i and kinds[i - 1].endswith(("*const *", "long *"))):
            for number in (0, 7, 2**32 - 1):
                yield "number", [*all_good()[:i], caller.number(kind, number), *all_good()[i + 1 :]]


def answers_of(call: str, folder: Path) -> list[tuple[str, int, str]]:
    """Makes all attempts in a process of its own that works in the folder: what was wrong, the status, the message."""

    def child(end: Any) -> None:
        os.chdir(folder)  # "linear" is a file's name where a call saves something
        caller = Caller()
        caller.library.gp_last_error.restype = ctypes.c_char_p
        answers = []
        for wrong, arguments in attempts(caller, status_calls()[call]):
            status = caller.library[call](*arguments)
            answers.append((wrong, status, caller.library.gp_last_error().decode() if status else ""))
        end.send(answers)

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(theirs,))
    process.start()
    theirs.close()
    answers = ours.recv()  # raises EOFError if the process crashed
    process.join(timeout=600)
    assert process.exitcode == 0, call
    return answers


def documented(call: str) -> tuple[set, Callable[[str], bool]]:
    """The statuses that the call's comment names, and a function that tells whether a named argument may be NULL."""
    comment, _, _, arguments = next(found for found in FUNCTION.findall(HEADER) if found[2] == call)
    text = re.sub(r"\s*//\s*", " ", comment)
    numbers = read(HEADER)["constants"]
    statuses = {numbers[status] for status in re.findall(r"GP_STATUS_\w+", text)}
    null = re.search(r"NULL: ([^.]+)\. (?:Errors|Since)", text)
    return (
        statuses,
        lambda name: null is not None and (null[1] == "fine" or re.search(rf"\b{name}s?\b", null[1]) is not None),
    )


@pytest.mark.parametrize("call", status_calls())
def test_answers_are_those_of_the_header(call: str, tmp_path: Path) -> None:
    answers = answers_of(call, tmp_path)
    numbers = read(HEADER)["constants"]
    ok, argument = numbers["GP_STATUS_OK"], numbers["GP_STATUS_ARGUMENT"]
    statuses, may_be_null = documented(call)
    names = re.findall(
        r"(\w+)(?:,|$)",
        re.sub(r"\([^()]*\)", "", next(a for _, _, name, a in FUNCTION.findall(HEADER) if name == call)),
    )
    for wrong, status, why in answers:
        assert status in {ok, argument, *statuses}, (wrong, status, why)
        assert status == ok or why or call in NO_MESSAGE, (wrong, status)
        if wrong.isdigit() and len(names) > int(wrong) and not may_be_null(names[int(wrong)]):
            # Any error will do: another argument may be wrong as well, and the call may report that one.
            assert status != ok, f"{names[int(wrong)]} is NULL, and that is no error"


def test_files_are_saved_in_the_given_folder_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, given = tmp_path / "elsewhere", tmp_path / "given"
    elsewhere.mkdir(), given.mkdir()
    monkeypatch.chdir(elsewhere)
    answers_of("gp_graphs_save", given)
    assert (given / "linear").is_file() and list(elsewhere.iterdir()) == []


def test_it_would_be_seen() -> None:
    """The comments are read correctly: an unnamed status and a forbidden NULL would fail the test above."""
    statuses, may_be_null = documented("gp_patch_remove")
    assert statuses == {10} and not may_be_null("session")
    _, may_be_null = documented("gp_graphs_tree")
    assert may_be_null("path") and not may_be_null("out")
