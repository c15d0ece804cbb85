"""Calls the pair once and then does what the argument names: a way to end, threads, or child processes."""

import os
import signal
import subprocess
import sys
import threading

import torch

from model import Pair, bits, pair


def work(_index: int = 0) -> str:
    return bits(pair()(torch.ones(2, 4)))


class Failing(Pair):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) @ torch.ones(3)


def main(way: str) -> None:
    print(work(), flush=True)
    if way == "raise":
        Failing()(torch.ones(2, 4))
    elif way == "exit":
        sys.exit(7)
    elif way == "exit-text":
        sys.exit("with a text")
    elif way == "_exit":
        os._exit(7)
    elif way == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
    elif way == "exec":
        os.execv(sys.executable, [sys.executable, __file__, "exit"])
    elif way == "exec-fails":
        try:
            os.execv("/nonexistent", ["x"])
        except OSError as error:
            print(type(error).__name__, work())
    elif way == "child":
        print(subprocess.run([sys.executable, __file__, "none"], capture_output=True, text=True).stdout)
    elif way == "threads":
        threads = [threading.Thread(target=work) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    elif way in ("spawn", "fork"):
        import multiprocessing

        with multiprocessing.get_context(way).Pool(2) as pool:
            print(pool.map(work, range(4)))
            pool.close()
            pool.join()
    elif way.startswith("loader-"):
        from torch.utils.data import DataLoader

        loader = DataLoader(list(range(8)), num_workers=2, multiprocessing_context=way[7:], collate_fn=collate)
        print(list(loader))


def collate(_items):
    return work()


if __name__ == "__main__":
    main(sys.argv[1])
