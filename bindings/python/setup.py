"""Puts libgraphpatch.so into the package: the one that GRAPHPATCH_LIBRARY names, or else the checkout's, which cargo
builds if it is available."""

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]


def version() -> str:
    """The version, which is that of the crate."""
    manifest = CHECKOUT / "Cargo.toml"
    if not manifest.exists():
        raise SystemExit("build the package inside a checkout of libgraphpatch: its Cargo.toml is not there")
    lines = (line.partition("=") for line in manifest.read_text().splitlines())
    return next(value.strip(' "') for key, _, value in lines if key.strip() == "version")


def library() -> Path:
    """The path of the library to put into the package."""
    named = os.environ.get("GRAPHPATCH_LIBRARY")
    if named:
        if not Path(named).exists():
            raise SystemExit(f"GRAPHPATCH_LIBRARY names {named}, which is not there")
        return Path(named)
    built = CHECKOUT / "target" / "release" / "libgraphpatch.so"
    if shutil.which("cargo"):
        subprocess.run(
            ["cargo", "build", "--release", "--quiet"],
            cwd=CHECKOUT,
            check=True,
            env={**os.environ, "CARGO_TARGET_DIR": str(CHECKOUT / "target")},
        )
    elif not built.exists():
        raise SystemExit(
            "libgraphpatch.so is not built and cargo is not here: install Rust, or name a library that was built"
            " elsewhere in GRAPHPATCH_LIBRARY"
        )
    return built


class WithLibrary(build_py):
    """Puts the library beside the modules."""

    def run(self) -> None:
        shutil.rmtree(Path(self.build_lib) / "libgraphpatch", ignore_errors=True)  # left by an earlier build
        super().run()
        if not self.editable_mode:  # an editable install finds the library in the checkout
            shutil.copy2(library(), Path(self.build_lib) / "libgraphpatch" / "libgraphpatch.so")


class ForThisMachine(bdist_wheel):
    """Tags the wheel for any Python 3, but only for this platform."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple:
        return "py3", "none", super().get_tag()[2]


setup(version=version(), cmdclass={"build_py": WithLibrary, "bdist_wheel": ForThisMachine})
