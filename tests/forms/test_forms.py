"""Each form of a model has eager's operations under the same paths, as `docs/reference/forms.md` says; and zero at each gives
eager's result."""

from __future__ import annotations

import pytest

import page
from forms import FORMS, Model, distance, largest, same

# How much further a zero's result may be from eager's than the results of the unpatched forms are from each other, and what is
# allowed at least, as a share of the largest element.
FACTOR, LEAST = 8, 1e-6

# The share that a form must have at least.
AT_LEAST = {"TorchScript": 1.0, "compiled": 0.95, "exported": 1.0, "AOTInductor": 0.4}

# Operations where zero does something else in a form, by the model and the form. `to` returns its operand where nothing is to be
# converted; torch.export then lets the program read the result of `to` wherever the model goes on with the operand.
OTHERWISE = {("Llama", "exported"): "to"}


def test_a_form(model: Model, form: str) -> None:
    if not model.has(form):
        assert page.shared(model.name, form) is None
        return
    made = FORMS[form](model)
    count = len(made.shared)
    assert page.shared(model.name, form) == count and page.shared(model.name, "eager") == len(model.operations)
    assert count >= AT_LEAST.get(form, 0.0) * len(model.operations)
    if made.exact and form != "compiled":  # compiled code rounds otherwise while it is not patched
        assert same(made.bare, model.bare)
    allowed = 0.0 if made.exact else FACTOR * distance(model.bare, made.bare) + LEAST * largest(model.bare)
    changed = 0
    for path in made.shared:
        wanted, found = model.zeroed(path), made.zeroed(model.operations[path])
        if path.rpartition(".")[2] == OTHERWISE.get((model.name, form)):
            assert not same(wanted, found), f"{path}: it is no longer otherwise"
            continue
        assert same(wanted, found) if made.exact else distance(wanted, found) <= allowed, path
        changed += not same(wanted, model.bare)
    assert changed >= count // 2


@pytest.mark.parametrize("column", page.COLUMNS)
def test_the_page_has_the_column(column: str) -> None:
    assert all(page.shared(name, column) is not None for name in page.rows() if column != "C++" or name == "GPT")
