"""Traces, exports and compiles a model, and prints the results of each."""

import sys
import warnings

import torch

from model import bits, pair

warnings.simplefilter("ignore")
model, x = pair(), torch.ones(2, 4)
for way in sys.argv[1:]:
    if way == "plain":
        print(bits(model(x)), bits(model(x + 1)))
    elif way == "trace":
        traced = torch.jit.trace(model, x)
        print(traced.code, bits(traced(x)))
    elif way == "script":
        print(torch.jit.script(model).code)
    elif way == "fx":
        traced = torch.fx.symbolic_trace(model)
        print(traced.code, bits(traced(x)))
    elif way == "export":
        print(torch.export.export(model, (x,)).graph)
    elif way == "compile":
        compiled = torch.compile(model, backend="eager")
        print(
            bits(compiled(x)),
            bits(compiled(x + 1)),
            torch._dynamo.utils.counters["stats"]["unique_graphs"],
            dict(torch._dynamo.utils.counters["graph_break"]),
        )
    elif way == "compile-method":
        model.compile(backend="eager")
        print(bits(model(x)), torch._dynamo.utils.counters["stats"]["unique_graphs"])
    elif way == "compile-function":
        compiled = torch.compile(lambda x: model(x) + 1, backend="eager")
        print(
            bits(compiled(x)),
            torch._dynamo.utils.counters["stats"]["unique_graphs"],
            dict(torch._dynamo.utils.counters["graph_break"]),
        )
    elif way == "inductor":
        print(torch.compile(model)(x).sum().isfinite())
    elif way == "fake":
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode(allow_non_fake_inputs=True):
            print(model(torch.ones(2, 4)).shape)
    elif way == "vmap":
        print(bits(torch.func.vmap(model)(torch.ones(3, 2, 4))))
    elif way == "functional":
        print(bits(torch.func.functional_call(model, dict(model.named_parameters()), (x,))))
