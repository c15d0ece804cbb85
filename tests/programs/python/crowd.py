"""Many threads that record, patch, fork and end sessions, each with values of its own: crowd.py SECONDS THREADS [bare].

Every result is compared with what PyTorch itself computes. Prints how many were right and wrong, and how many children of a fork
were right, wrong and hung, in one line of JSON. `bare` imports nothing of libgraphpatch, to compare how children of a fork end.
"""

import json
import sys
import threading
import time
from collections import Counter
from functools import partial

import torch
from torch import nn

from threads_and_children import Net, ends, fork, join, once, start

SECONDS, THREADS, BARE = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["bare"]

torch.set_num_threads(1)
if not BARE:
    from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch


counts: Counter[str] = Counter()
counting, forking = threading.Lock(), threading.Lock()


def count(what: str) -> None:
    with counting:
        counts[what] += 1


class Member:
    """One thread's share: a model of its own, and the one that all share, patched for this thread alone."""

    def __init__(self, number: int, shared: nn.Module, shared_pg: "PatchableGraph | None", x: torch.Tensor) -> None:
        self.number, self.shared, self.shared_pg, self.x = number, shared, shared_pg, x
        self.net = Net()
        self.value = float(number + 1)

    def expected(self, net: Net) -> torch.Tensor:
        return net.second(torch.relu(net.first(self.x) + self.value))

    def own_session(self) -> bool:
        """Records, patches, reads and ends a session."""
        bare, changed = self.net(self.x), self.expected(self.net)
        pg = PatchableGraph(self.net, self.x)
        probe = ProbePatch()
        with pg.patch({"first.output": [AddPatch(value=self.value), probe]}):
            patched = pg(self.x)
        right = torch.equal(patched, changed) and torch.equal(pg(self.x), bare)
        right = right and torch.equal(probe.activation, self.net.first(self.x) + self.value)
        return right and "first" in repr(pg.graph)

    def shared_session(self) -> bool:
        """Patches what all threads run, for this one."""
        bare, changed = self.shared(self.x), self.expected(self.shared)
        with self.shared_pg.patch({"first.output": AddPatch(value=self.value)}, this_thread=True):
            right = torch.equal(self.shared_pg(self.x), changed)
        return right and torch.equal(self.shared_pg(self.x), bare)

    def child(self) -> bool:
        if BARE:
            return self.net(self.x).shape == (2, 4)
        with self.shared_pg.patch({"output": ZeroPatch()}, this_thread=True):
            return not self.shared_pg(self.x).any()

    def fork(self) -> None:
        with forking:
            child = fork(self.child)
        for end in ends([child]):
            count(f"children {end}")

    def work(self, end: float) -> None:
        turn = self.number
        while time.monotonic() < end:
            turn += 1
            if turn % 50 == 1:
                self.fork()
            elif BARE:
                count("right" if torch.equal(self.net(self.x), self.net(self.x)) else "wrong")
            else:
                right = self.own_session() if turn % 2 else self.shared_session()
                count("right" if right else "wrong")


def main() -> None:
    torch.manual_seed(0)
    x, shared = torch.ones(2, 4), Net()
    pg = None if BARE else PatchableGraph(shared, x)
    members = [Member(number, shared, pg, x) for number in range(THREADS)]
    once([members[0].child, lambda: members[0].expected(members[0].net), lambda: str(x.sum())])
    end = time.monotonic() + SECONDS

    def work(member: Member) -> None:
        try:
            member.work(end)
        except BaseException as why:
            count("failed")
            print(f"thread {member.number}: {why!r}", file=sys.stderr)

    join(start(partial(work, member) for member in members))
    print(json.dumps(counts))


main()
