"""Objects that are alive when the interpreter ends are freed silently: without a traceback or a crash."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

BEGINNING = '''
import ctypes, sys, types
keeper = sys.modules["keeper"] = types.ModuleType("keeper")
import torch
import libgraphpatch
from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, ProbePatch

# Its globals are not those of the script, which would hold all that the script names.
exec("""
import torch
from torch.utils.checkpoint import checkpoint

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, x, again=False):
        return checkpoint(self.linear, x, use_reentrant=False) if again else self.linear(x)
""", space := {})
net, x = space["Net"](), torch.ones(1, 2, requires_grad=True)
pg = PatchableGraph(net, x)
with pg.patch({"linear.output": [AddPatch(value=1.0), CustomPatch(custom_op=torch.neg)]}):
    pg(x)
# As what looks into every module does: all modules of the package outlive sys.modules.
ours = [module for name, module in sys.modules.items() if name.split(".")[0] == "libgraphpatch"]
'''

# Ways to keep objects alive until the end. `kept` has the objects that must be freed.
WAYS = {
    "nothing": "",
    "a cycle": "cycle = [kept, ours]; cycle.append(cycle)",
    # Some extension modules keep a Python module for ever (dill does). Python empties modules in reverse order of
    # import, so that the package's names are gone before those of this older module.
    "an older module": "keeper.kept = kept, ours; ctypes.pythonapi.Py_IncRef(ctypes.py_object(keeper))",
}

KEPT = {
    "graphs": "kept = pg, pg.graph, pg.graph.linear, libgraphpatch",
    "an open block": "kept = pg, pg.patch({'linear.output': ProbePatch()}); kept[1].__enter__()",
    "an open recording": "kept = pg, pg.recording(); kept[1].__enter__()",
    "a checkpoint": """
with pg.patch({"linear.output": CustomPatch(custom_op=torch.neg)}):
    kept = pg, pg(x, again=True)
""",
}


def ends_in_silence(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kept", KEPT)
def test_what_is_kept_to_the_end(kept: str, way: str) -> None:
    ends_in_silence(BEGINNING + textwrap.dedent(KEPT[kept]) + "\n" + WAYS[way] + "\n")


def test_a_run_after_other_exit_handlers() -> None:
    """Handlers run in reverse order: this one, registered before torch was imported, is the last."""
    ends_in_silence(
        "import atexit\natexit.register(lambda: last())\n"
        + BEGINNING
        + textwrap.dedent("""
        block = pg.patch({"linear.output": CustomPatch(custom_op=torch.neg)})

        def last():
            block.__enter__()
            assert torch.equal(pg(x), -net.linear(x))
            block.__exit__()
            assert torch.equal(pg.record(x), net.linear(x)) and "linear" in repr(pg.graph)
    """)
    )
