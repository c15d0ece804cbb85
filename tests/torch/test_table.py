"""Every kind of patch × slices × values × dtypes × layouts, each against PyTorch's own `tensor[slice] = value` and
`tensor[slice] += value`, bit for bit; where PyTorch refuses, the patch must. The program is tests/programs/cpp/table.cpp."""

import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from support import PROGRAMS, run_process

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
    torch.complex64,
]
SHAPE = (2, 3, 4, 3)
NAN, INF = math.nan, math.inf

INDICES: dict[str, Tensor] = {
    "one": torch.tensor([2, 0]),
    "column": torch.tensor([[1], [0]]),
    "row": torch.tensor([[0, 2, -1]]),
    "twice": torch.tensor([1, 1, 0]),
    "far": torch.tensor([0, 4]),
    "scalar": torch.tensor(1),
    "int32": torch.tensor([1, 0], dtype=torch.int32),
    "int16": torch.tensor([1, 0], dtype=torch.int16),
    "none": torch.tensor([], dtype=torch.int64),
    "three": torch.tensor([0, 1, 0]),
    "mask2": torch.tensor([True, False]),
    "mask3": torch.tensor([True, False, True]),
    "mask23": torch.tensor([[True, False, True], [False, False, True]]),
    "mask34": torch.arange(12).reshape(3, 4) % 3 == 0,
    "mask": torch.arange(72).reshape(SHAPE) % 5 == 0,
    "never": torch.zeros(SHAPE, dtype=torch.bool),
    "byte": torch.tensor([1, 0], dtype=torch.uint8),
    # No index occurs twice: which of two values wins depends on the index's strides, which patches do not keep.
    "turned": torch.tensor([[0, 1], [3, 2]]).t(),
}

# The items of an index as in Python; a string is the name of an index tensor.
SLICES: list[tuple[Any, ...]] = [
    (),
    (...,),
    (0,),
    (-1,),
    (1, 2),
    (-2, -3, -4, -1),
    (1, 2, 3, 2),
    (1, 2, 3, 2, 0),
    (2,),
    (-3,),
    (0, 3),
    (slice(None), slice(None), slice(None), 3),
    (slice(None),),
    (slice(1, None),),
    (slice(None, 1),),
    (slice(-1, None),),
    (slice(0, 100),),
    (slice(-100, -1),),
    (slice(None), slice(None, None, 2)),
    (slice(None), slice(1, None, 2), slice(0, 4, 3)),
    (slice(None, None, 100),),
    (slice(1, 1),),
    (slice(2, 1),),
    (slice(5, 9),),
    (0, slice(3, 3)),
    (slice(None), slice(None), slice(None), slice(None)),
    (slice(None), slice(None), slice(None), slice(None), slice(None)),
    (..., 0),
    (..., slice(1, 3)),
    (0, ..., -1),
    (..., slice(None), 1),
    (0, 1, 2, 0, ...),
    (..., 0, 0, 0, 0),
    (..., ...),
    (0, ..., 1, ...),
    (..., 5),
    (None,),
    (None, 0),
    (0, None),
    (..., None),
    (slice(None), None, slice(1, 2)),
    (None, None, ..., None, -1),
    (None, 1, None, slice(None, None, 2), None, 2, None),
    (0, 0, 0, 0, None),
    (0, 0, 0, 0, None, 0),
    ("scalar",),
    (slice(None), "scalar"),
    ("one",),
    (slice(None), "one"),
    (slice(None), slice(None), "one", 1),
    ("twice",),
    (slice(None), "twice", slice(1, 3)),
    (slice(None), "far"),
    ("none",),
    ("column", "row"),
    (slice(None), "column", "row"),
    ("column", slice(None), "row"),
    ("column", slice(1, None), slice(None), "row"),
    (slice(None), "one", 0),
    (0, "one"),
    (0, slice(None), "one"),
    ("one", None),
    (None, slice(None), "one"),
    (..., "one"),
    (slice(None), "one", ..., "three"),
    (slice(None), slice(None), "turned"),
    ("int32",),
    ("int16",),
    ("byte",),
    ("mask2",),
    ("mask3",),
    (slice(None), "mask3"),
    (slice(None), "mask3", slice(0, 2)),
    ("mask23",),
    (slice(None), "mask34"),
    ("mask34",),
    ("mask",),
    ("never",),
    ("mask23", 1),
    ("mask23", slice(None), -1),
    ("mask2", "twice"),
    ("mask2", "mask3"),
    (slice(None), slice(None), "one", "mask3"),
    (None, "mask23"),
    ("mask", 0),
]

NUMBERS: list[Any] = [
    3,
    -1,
    300,
    0.1,
    -2.5,
    1e30,
    70000.0,
    INF,
    -INF,
    NAN,
    True,
    False,
    -0.0,
    1 + 2j,
    complex(NAN, -INF),
    2**53 + 1,
    -(2**63),
    255,
    256,
    0.9999999999,
]

# Operations whose result has the base's numbers: a fresh value, views of the base, an operand written in place.
OPERATIONS = ["clone", "alias", "transpose", "copy_"]


def base(dtype: torch.dtype, layout: str) -> Tensor:
    """A base tensor of this layout in memory of its own, with extreme values among its numbers."""
    sizes = {"contiguous": SHAPE, "transposed": (3, 3, 4, 2), "sliced": (2, 6, 4, 7), "channels-last": (2, 4, 3, 3)}[
        layout
    ]
    n = math.prod(sizes)
    if dtype is torch.bool:
        flat = torch.arange(n) % 3 == 0
    elif dtype.is_floating_point or dtype.is_complex:
        flat = torch.arange(n).double() * 0.37 - 11
        flat[1::2] *= 0.01  # small numbers, for which the rounding of an added number shows
        flat = flat.to(dtype)
        edges = [NAN, INF, -INF, -0.0, 65504.0, 1e-8]
        flat[: len(edges) * 3 : 3] = torch.tensor(edges).to(dtype)
    else:
        flat = torch.arange(n).to(dtype) * 5
        flat[:4] = torch.tensor([torch.iinfo(dtype).max, torch.iinfo(dtype).min, 7, 1]).to(dtype)
    value = flat.reshape(sizes)
    if layout == "transposed":
        return value.transpose(0, 3)
    if layout == "sliced":
        return value[:, ::2, :, 1::2]
    return value.permute(0, 3, 1, 2) if layout == "channels-last" else value


def python_index(items: tuple[Any, ...]) -> Any:
    # A patch does not keep an index's strides. Newer PyTorch selects by them an operation that may refuse a number.
    return tuple(INDICES[item].contiguous() if isinstance(item, str) else item for item in items) or ...


def text_of_index(items: tuple[Any, ...]) -> str:
    def text(item: Any) -> str:
        if isinstance(item, str):
            return f"@{list(INDICES).index(item)}"
        if isinstance(item, slice):
            start, stop, step = ("" if bound is None else str(bound) for bound in (item.start, item.stop, item.step))
            return f"[{start}:{stop}:{step}]" if step else f"[{start}:{stop}]"
        return f"i{item}" if isinstance(item, int) else "[...]" if item is ... else "[None]"

    return " ".join(text(item) for item in items)


class Values:
    """Tensors that the program reads, each once."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.known: dict[tuple[torch.dtype, tuple[int, ...], bool], int] = {}

    def number(self, dtype: torch.dtype, shape: tuple[int, ...], turned: bool = False) -> int:
        key = (dtype, shape, turned)
        if key not in self.known:
            n = math.prod(shape)
            flat = torch.arange(n) % 2 == 0 if dtype is torch.bool else (torch.arange(n).double() * 1.7 - 3).to(dtype)
            if dtype.is_floating_point and n > 3:
                flat[1], flat[3] = INF, NAN
            tensor = flat.reshape(shape[::-1]).permute(*range(len(shape))[::-1]) if turned else flat.reshape(shape)
            self.known[key] = len(self.tensors)
            self.tensors.append(tensor)
        return self.known[key]


class Case(NamedTuple):
    dtype: torch.dtype
    layout: str
    operation: str
    kind: str
    value: Any  # a number, "@3", "&3" or ""
    index: tuple[Any, ...]


def values_for(values: Values, dtype: torch.dtype, region: tuple[int, ...], turn: int) -> Iterator[str]:
    """Tensors of many shapes and dtypes for a region of this shape, most by DLPack and some by libtorch's tensor."""
    shapes = [
        (dtype, region),
        (dtype, ()),
        (dtype, (1, 1) + region),
        (dtype, (2,) + region),
        (dtype, (7,)),
        (dtype, (0,)),
        (dtype, (1,) * 6),
    ]
    if region:
        shapes += [
            (dtype, region[-1:]),
            (dtype, region[:-1] + (1,)),
            (dtype, (1,) + region[1:]),
            (dtype, region[:-1] + (region[-1] + 1,)),
        ]
    others = [d for d in DTYPES if d is not dtype]
    shapes += [(other, region) for other in others] + [(others[turn % 8], ()), (others[(turn + 3) % 8], region[-1:])]
    for i, (kind, shape) in enumerate(shapes):
        yield f"{'&' if (i + turn) % 4 == 0 else '@'}{values.number(kind, tuple(shape))}"
    if len(region) > 1:
        yield f"@{values.number(dtype, tuple(region), turned=True)}"


def cases(values: Values, dtype: torch.dtype, layout: str) -> Iterator[Case]:
    tensor = base(dtype, layout)
    turn = DTYPES.index(dtype)
    for operation in OPERATIONS:
        for kind in ("probe", "record"):
            yield Case(dtype, layout, operation, kind, "", ())
    for index in SLICES:
        try:
            region = tuple(tensor[python_index(index)].shape)
        except (IndexError, RuntimeError, TypeError):
            region = (3,)
        for operation in OPERATIONS:
            yield Case(dtype, layout, operation, "zero", "", index)
        numbers = list(NUMBERS)
        tensors = list(values_for(values, dtype, region, turn))
        rest = [("add", number) for number in numbers] + [("replace", number) for number in numbers]
        rest += [("add", tensor) for tensor in tensors] + [("replace", tensor) for tensor in tensors]
        rest += [
            ("flip", ""),
            ("leave", ""),
            ("fail", ""),
            ("custom", tensors[0].replace("&", "@")),
            ("custom", tensors[turn % len(tensors)].replace("&", "@")),
        ]
        for kind, value in rest:
            # Every case runs on a fresh value, which the library's own code writes; the other operations take turns.
            turn += 1
            yield Case(dtype, layout, "clone", kind, value, index)
            yield Case(dtype, layout, OPERATIONS[1 + turn % 3], kind, value, index)


def expected(tensor: Tensor, case: Case, values: list[Tensor]) -> Tensor | None:
    """The result of PyTorch's own expression; None if PyTorch refuses it."""
    if case.kind in ("probe", "record"):
        return tensor
    index, result = python_index(case.index), tensor.clone()
    value: Any = case.value
    if isinstance(value, str) and value:
        value = values[int(value[1:])]
    try:
        if case.kind == "zero":
            result[index] = 0
        elif case.kind == "add":
            result[index] += value
        elif case.kind in ("replace", "custom"):
            result[index] = value
        elif case.kind == "flip":
            part = result[index]
            result[index] = part.flip(tuple(range(part.dim())))
        elif case.kind == "leave":
            result[index]
        else:
            return None
    except (RuntimeError, IndexError, TypeError, ValueError):
        return None
    return result


def same(got: Tensor, want: Tensor) -> bool:
    """Whether two tensors are equal bit for bit; any NaN equals any other."""
    bits = want.contiguous().reshape(-1).view(torch.uint8)
    if torch.equal(got, bits):
        return True
    if not (want.dtype.is_floating_point or want.dtype.is_complex):
        return False
    got, want = got.clone().view(want.dtype), want.contiguous().reshape(-1)
    if want.dtype.is_complex:
        got, want = torch.view_as_real(got).reshape(-1), torch.view_as_real(want).reshape(-1)
    nan = want.isnan()
    return torch.equal(nan, got.isnan()) and torch.equal(
        got[~nan].clone().view(torch.uint8), want[~nan].view(torch.uint8)
    )


LAYOUTS = ["contiguous", "transposed", "sliced", "channels-last"]
STATUS = ["done", "refused", "refused when it was registered", "broken"]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).split(".")[1])
def test_table(tmp_path: Path, dtype: torch.dtype) -> None:
    assert len(SLICES) >= 40
    warnings.simplefilter("ignore")
    values = Values()
    bases = {layout: base(dtype, layout) for layout in LAYOUTS}
    assert all(tensor.shape == SHAPE for tensor in bases.values())
    table = [case for layout in LAYOUTS for case in cases(values, dtype, layout)]
    torch.save((tuple(bases.values()), tuple(INDICES.values()), tuple(values.tensors)), tmp_path / "data.pt")
    with open(tmp_path / "cases.txt", "w") as file:
        for case in table:
            value = case.value if isinstance(case.value, str) else repr(case.value)
            file.write(
                f"{LAYOUTS.index(case.layout)}\t{case.operation}\t{case.kind}\t{value}\t{text_of_index(case.index)}\n"
            )
    run_process([PROGRAMS / "table", tmp_path / "data.pt", tmp_path / "cases.txt", tmp_path / "out.pt"]).ok()
    statuses, data, messages = torch.load(tmp_path / "out.pt", weights_only=False)
    assert len(statuses) == len(table)

    known: dict[tuple[Any, ...], Tensor | None] = {}
    wrong: list[str] = []
    done = refused = at = 0
    said = iter(messages)
    for case, status in zip(table, statuses.tolist()):
        key = (case.layout, case.kind, repr(case.value), text_of_index(case.index))
        if key not in known:
            known[key] = expected(bases[case.layout], case, values.tensors)
        want = known[key]
        what = f"{case.layout} {case.operation}{list(case.index)}={case.kind}:{case.value}"
        if isinstance(case.value, str) and case.value:
            tensor = values.tensors[int(case.value[1:])]
            what += f" ({tensor.dtype} {tuple(tensor.shape)})"
        if status == 0:
            size = bases[case.layout].numel() * dtype.itemsize
            got = data[at : at + size]
            at += size
            done += 1
            if want is None:
                wrong.append(f"{what}: PyTorch refuses this, the patch did not")
            elif not same(got, want):
                wrong.append(f"{what}: another result")
        else:
            message = next(said)
            refused += 1
            if status == 3 or want is not None:
                wrong.append(f"{what}: {STATUS[status]}: {message}")
            elif status == 1 and not (case.operation in message and "(2, 3, 4, 3)" in message):
                wrong.append(f"{what}: an error without path or shape: {message}")
    # Shows one case of each sort, so that a common fault does not hide a rare one.
    sorts = {re.sub(r"^.*?=|@\d+|&\d+|\(\d.*?\)", "", line): line for line in reversed(wrong)}
    assert not wrong, f"{len(wrong)} of {len(table)} cases ({done} done, {refused} refused), such as:\n" + "\n".join(
        list(reversed(sorts.values()))[:60]
    )
    assert done > len(table) / 4 and refused > len(table) / 20
