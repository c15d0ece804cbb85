"""Many threads that record, patch, fork and end sessions, each with values of its own: crowd.py SECONDS THREADS [bare].

Every result is compared with what PyTorch itself computes. Prints how many were right and wrong, and how many children of a fork
were right, wrong and hung, in one line of JSON. `bare` imports nothing of libgraphpatch, to compare how children of a fork end.
"""

import json
import os
import signal
import sys
import threading
import time
from collections import Counter

import torch
from torch import nn

SECONDS, THREADS, BARE = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["bare"]
# Seconds that a child may take. It needs milliseconds, but the machine may be busy.
PATIENCE = 120.0

torch.set_num_threads(1)
if not BARE:
    from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


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
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if self.child() else 2
            finally:
                os._exit(status)
        end = time.monotonic() + PATIENCE
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return count("children right" if status == 0 else "children wrong")
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return count("children hung")
            time.sleep(0.002)

    def work(self, end: float) -> None:
        # Outside of inference mode libtorch itself locks a mutex of each parameter, which a child may inherit locked.
        with torch.inference_mode():
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
    # At the first use of an operation libtorch fills caches under its own locks, which a child could inherit locked.
    with torch.inference_mode():
        members[0].child()
        members[0].expected(members[0].net)
        str(x.sum())
    end = time.monotonic() + SECONDS

    def work(member: Member) -> None:
        try:
            member.work(end)
        except BaseException as why:
            count("failed")
            print(f"thread {member.number}: {why!r}", file=sys.stderr)

    threads = [threading.Thread(target=work, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(counts))


main()
