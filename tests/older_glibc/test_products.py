"""What `make dist` makes, under a real glibc 2.28: its loader and its libraries, in a root folder of their own (chroot), where nothing of
this machine's C library is.

OLDER_GLIBC names a folder with these files. No registry of packages has that glibc any more, so
they come from elsewhere, such as a machine with RHEL 8. libstdc++.so.6 and libgcc_s.so.1 must run with it (Debian 11 has such)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch

from support import ROOT

GLIBC = os.environ["OLDER_GLIBC"]
LOADER = "ld-linux-x86-64.so.2"
LIBRARIES = [
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libutil.so.1",
    "libstdc++.so.6",
    "libgcc_s.so.1",
]
OLDER = ROOT / "build/older-glibc"
PACKAGES = Path(str(torch.__file__)).parents[1]
VERSION = (
    "#include <gnu/libc-version.h>\n#include <stdio.h>\nint main(void) { return puts(gnu_get_libc_version()) < 0; }\n"
)


class Root:
    """A root folder with that glibc, the products, programs of the tests, and this machine's libtorch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ["lib64", "proc", "tmp", "tests", str(PACKAGES).lstrip("/")]:
            (folder / name).mkdir(parents=True)
        for name in [LOADER, *LIBRARIES]:
            shutil.copy(f"{GLIBC}/{name}", folder / "lib64")
        (tarball,) = (ROOT / "build/dist").glob("*.tar.gz")
        with tarfile.open(tarball) as archive:
            archive.extractall(folder, filter="data")
        (folder / tarball.name.removesuffix(".tar.gz")).rename(folder / "product")
        shutil.copytree(ROOT / "build/dist/adapters", folder / "adapters")
        self._compile()
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)).eval()
        torch.jit.script(net).save(str(folder / "tests/model.pt"))
        self.environment = {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C",
            "OMP_NUM_THREADS": "1",
            "GRAPHPATCH_ADAPTER_DIR": "/adapters",
            "GRAPHPATCH_CACHE": "/tmp/cache",
            "HOST_MODEL": "/tests/libmodel.so",
            "HOST_MODEL_FILE": "/tests/model.pt",
        }

    def _compile(self) -> None:
        to, product = self.folder / "tests", self.folder / "product"
        (to / "version.c").write_text(VERSION)
        ours = [f"-I{product}/include", f"-L{product}/lib", "-lgraphpatch", "-Wl,-rpath,/product/lib"]
        alone = [ROOT / "tests/programs/c/alone.c", f"-I{ROOT}/tests/programs/c/include", *ours]
        threads = [ROOT / "tests/hosts/programs/threads.c", "-D_GNU_SOURCE", "-rdynamic"]
        for name, arguments in {"version": [to / "version.c"], "alone": alone, "threads": threads}.items():
            command = [OLDER / "cc", "-O1", "-w", *arguments, "-o", to / name, "-ldl", "-lm", "-lrt", "-pthread"]
            subprocess.run(command, check=True)
        shutil.copy(OLDER / "libmodel.so", to)
        shutil.copy(ROOT / "tests/fuzz/seeds/graph-tuple.json", to)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """The mounts are seen by this process alone, and end with it."""
        within = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        mounts = f"mount --rbind /proc {self.folder}/proc && mount --bind {PACKAGES} {self.folder}{PACKAGES}"
        script = f'{mounts} && exec chroot {self.folder} "$@"'
        start = [*within, "sh", "-c", script, "sh", *command]
        return subprocess.run(start, env=self.environment, capture_output=True, text=True)

    def said(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 0, done
        return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return Root(tmp_path_factory.mktemp("older"))


def test_it_is_that_glibc(root: Root) -> None:
    assert root.said("/tests/version") == "2.28\n"


def test_the_command_works(root: Root) -> None:
    assert root.said("/product/bin/graphpatch", "--version").startswith("graphpatch ")
    assert "output: tuple(2)" in root.said("/product/bin/graphpatch", "show", "/tests/graph-tuple.json")


def test_a_program_with_the_library_works(root: Root) -> None:
    (root.folder / "tmp/files").mkdir()
    root.said("/tests/alone", "/tests/graph-tuple.json", "/tmp/files")
    assert root.said("/product/bin/graphpatch", "run", "--", "/tests/version") == "2.28\n", "with the library preloaded"


def test_a_program_with_a_model_is_recorded_and_patched(root: Root) -> None:
    """With the library preloaded, the adapter that was built ahead, and libtorch as its wheel has it."""
    program = ["/tests/threads", "models_on_threads"]
    bare = root.said(*program)
    assert "thread" in bare
    watched = root.run("/product/bin/graphpatch", "run", "--tree", "--", *program)
    assert (watched.returncode, watched.stdout) == (0, bare) and "sub_0" in watched.stderr, watched
    patched = root.run("/product/bin/graphpatch", "run", "--patch", "sub_0.linear=zero", "--", *program)
    assert patched.returncode == 0 and patched.stdout != bare, patched
