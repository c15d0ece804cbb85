"""The hosts that are other processes: a C++ program that uses the binding, and a finished program under the command. Both load
the model as TorchScript."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from families import Family, made
from inside import Inside, traced
from plain import POSITION, VECTOR, fitted
from support import GRAPHPATCH, PROGRAMS, run_process


class Refused(Exception):
    """The host says that it cannot do this."""


class Outside:
    """A program that loads the model, and the paths of the model's parts there."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.family, self.folder, self.model = family, folder, made(family)
        self.script, self.inputs = folder / "model.pt", {}
        traced(family).save(str(self.script))
        for name, value in (("clean", family.clean), ("corrupted", family.corrupted)):
            self.inputs[name] = folder / f"{name}.pt"
            torch.save((value,), self.inputs[name])
        inside = Inside(family, "TorchScript")
        # The program's root is the TorchScript module, which a module holds there.
        self.blocks, self.mlps, self.attentions = (
            [path.removeprefix("model.") for path in paths] for paths in (inside.blocks, inside.mlps, inside.attentions)
        )
        self.positions = inside.pg.graph[inside.mlps[0]]._shape[1]

    def program(self, inputs: str, *options: object) -> list[object]:
        return [PROGRAMS / "cpp_methods", self.script, self.inputs[inputs], self.folder / "out.pt", *options]

    def outputs(self) -> list[list[Tensor]]:
        """For each experiment, the logits, and then the values and gradients that were asked for."""
        return [[*experiment] for experiment in torch.load(self.folder / "out.pt")]

    def values(self, inputs: str, paths: Sequence[str]) -> list[Tensor]:
        raise NotImplementedError

    def patched(self, inputs: str, patches: Sequence[str]) -> list[Tensor]:
        """The logits of one run for each patch."""
        raise NotImplementedError

    def attributions(self) -> list[Tensor]:
        raise NotImplementedError

    def ablations(self) -> Tensor:
        raise NotImplementedError

    def file(self, name: str, value: Tensor) -> Path:
        file = self.folder / f"{name}.safetensors"
        save_file({"value": value.contiguous()}, file)
        return file


class Cpp(Outside):
    """The program opens a session, registers patches by text, and reads probes."""

    def experiments(self, inputs: str, lines: Sequence[str], *options: object) -> list[list[Tensor]]:
        file = self.folder / "experiments.txt"
        file.write_text("".join(f"{line}\n" for line in lines))
        run_process(self.program(inputs, "--experiments", file, *options)).ok()
        return self.outputs()

    def values(self, inputs: str, paths: Sequence[str]) -> list[Tensor]:
        self.experiments(inputs, ["\t".join(f"{path}=probe" for path in paths)])
        kept = load_file(self.folder / "out.pt.0.safetensors")
        return [kept[path] for path in paths]

    def patched(self, inputs: str, patches: Sequence[str]) -> list[Tensor]:
        return [experiment[0] for experiment in self.experiments(inputs, patches)]

    def attributions(self) -> list[Tensor]:
        clean = self.values("clean", self.blocks)
        gradient = [part for path in self.blocks for part in ("--gradient", path)]
        _, *found = self.experiments("corrupted", [""], *gradient)[0]
        corrupted, gradients = found[: len(clean)], found[len(clean) :]
        return [(there - here) * g for there, here, g in zip(clean, corrupted, gradients, strict=True)]

    def ablations(self) -> Tensor:
        lines = [f"{path}[:, {position}]=zero" for path in self.mlps for position in range(self.positions)]
        found = [logits.reshape(1, -1, logits.shape[-1])[:, -1, 3].sum() for logits in self.patched("clean", lines)]
        return torch.stack(found).reshape(len(self.mlps), -1)


class Command(Outside):
    """`graphpatch run` and `graphpatch sweep`; the program knows nothing of them."""

    def run(self, inputs: str, *options: object) -> None:
        run_process([GRAPHPATCH, "run", *options, "--", *self.program(inputs)]).ok()

    def values(self, inputs: str, paths: Sequence[str]) -> list[Tensor]:
        file = self.folder / "kept.safetensors"
        self.run(inputs, *[part for path in paths for part in ("--probe", path)], "--save", file)
        kept = load_file(file)
        return [kept[path] for path in paths]

    def patched(self, inputs: str, patches: Sequence[str]) -> list[Tensor]:
        found = []
        for patch in patches:
            self.run(inputs, "--patch", patch)
            found.append(self.outputs()[0][0])
        return found

    def attributions(self) -> list[Tensor]:
        # There is no loss outside of the program, whose gradient could be asked for.
        patch = f"{self.blocks[0]}=gradient"
        said = run_process([GRAPHPATCH, "run", "--patch", patch, "--", *self.program("corrupted")])
        assert said.code == 2 and "gradient" in said.stderr and "zero" in said.stderr, said.stderr
        raise Refused

    def ablations(self) -> Tensor:
        table = self.folder / "sweep.csv"
        nodes = [part for path in self.mlps for part in ("--nodes", path)]
        options = [
            "--slice",
            f"[:, {{0..{self.positions - 1}}}]",
            "--metric",
            r"metric=regex:metric (\S+)",
            "-o",
            table,
        ]
        run_process([GRAPHPATCH, "sweep", "--fork", *nodes, *options, "--", *self.program("clean")]).ok()
        with open(table, newline="", encoding="utf-8") as rows:
            found = [float(row["metric"]) for row in csv.DictReader(rows)]
        return torch.tensor(found).reshape(len(self.mlps), -1)


HOSTS: dict[str, type[Outside]] = {"C++": Cpp, "command": Command}


def logit_lens(host: Outside) -> list[Tensor]:
    return [host.family.unembed(host.model, hidden) for hidden in host.values("clean", host.blocks)]


def steering(host: Outside) -> list[Tensor]:
    return host.patched("clean", [f"{host.blocks[1]}[:, -1]=add:@{host.file('vector', VECTOR)}#value"])


def activation_patching(host: Outside) -> list[Tensor]:
    clean = host.values("clean", host.blocks)
    files = [host.file(f"clean{number}", value[:, POSITION]) for number, value in enumerate(clean)]
    pairs = zip(host.blocks, files, strict=True)
    return host.patched("corrupted", [f"{path}[:, {POSITION}]=replace:@{file}#value" for path, file in pairs])


def attribution_patching(host: Outside) -> list[Tensor]:
    return host.attributions()


def attention_reading(host: Outside) -> list[Tensor]:
    return host.values("clean", host.attentions)


def ablation_sweep(host: Outside) -> list[Tensor]:
    return [host.ablations()]


def probing(host: Outside) -> list[Tensor]:
    return [fitted(host.values("clean", [host.blocks[1]])[0][0])]


METHODS = {
    "logit lens": logit_lens,
    "steering": steering,
    "activation patching": activation_patching,
    "attribution patching": attribution_patching,
    "attention reading": attention_reading,
    "ablation sweep": ablation_sweep,
    "probing": probing,
}
