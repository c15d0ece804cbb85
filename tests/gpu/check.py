"""The checks that need a real card: `make gpu-check`. Needs PyTorch, a card and the built library, but no Rust.

    python check.py [--dry-run] [--only NAME] [--no-timing] [--no-sanitizer]

--dry-run runs the same on CPU tensors: it checks these scripts and proves nothing about cards. On a card the outcome is
written to RESULTS.md beside this file.
"""

import argparse
import datetime
import os
import platform
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def sanitizer() -> list[str]:
    """Runs the checks again under compute-sanitizer. Returns lines about what it found."""
    tool = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=os.environ.get("CUDA_HOME", "") + "/bin"
    )
    if not tool:
        return ["compute-sanitizer: not on this machine, NOT RUN"]
    lines = []
    for name in ("memcheck", "racecheck"):
        command = [
            tool,
            "--tool",
            name,
            "--error-exitcode",
            "9",
            sys.executable,
            __file__,
            "--no-timing",
            "--no-sanitizer",
            "--quick",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        )
        summary = [line for line in done.stdout.splitlines() if "SUMMARY" in line]
        lines.append(f"compute-sanitizer {name}: {'good' if done.returncode == 0 else 'FAILED'} {' '.join(summary)}")
        if done.returncode:
            lines.append(done.stdout[-3000:] + done.stderr[-2000:])
    return lines


def main() -> int:
    parser = argparse.ArgumentParser()
    for option in ("--dry-run", "--no-timing", "--no-sanitizer", "--quick"):
        parser.add_argument(option, action="store_true")
    parser.add_argument("--only")
    options = parser.parse_args()
    import torch

    if not options.dry_run and not torch.cuda.is_available():
        print("no card here: PyTorch sees no CUDA device; nothing was checked")
        return 2
    from harness import DEVICE, Session, gp

    lines = [f"# PyTorch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}"]
    lines += [f"# {line}" for line in gp.text("cuda_status").splitlines()]
    if DEVICE == "cuda":
        lines.append(f"# card: {torch.cuda.get_device_name()}, {torch.cuda.device_count()} in all")
    print("\n".join(lines), flush=True)
    session, failed = Session(), 0

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    import graphs
    import timing
    import values

    checks = values.CHECKS + graphs.CHECKS
    # A small selection: under the sanitizer each launch is slow.
    quick = [
        values.check_layouts,
        values.check_launches,
        values.check_sharing,
        values.check_kept,
        values.check_streams_and_threads,
    ]

    def run(check: Callable[[Session], str | None]) -> None:
        nonlocal failed
        if options.only and options.only not in check.__name__:
            return
        try:
            why = check(session)
            say(f"{f'NOT RUN ({why})' if why else 'good   '} {check.__name__}: {check.__doc__}")
        except Exception:
            failed += 1
            say(f"FAILED  {check.__name__}: {check.__doc__}\n{traceback.format_exc()}")

    for check in quick if options.quick else checks:
        run(check)
    notes = gp.text("session_notes", session.handle)
    for check in [] if options.quick else values.LATE:
        run(check)
    if DEVICE == "cuda" and "not by our kernels" in notes:
        failed += 1
        say(f"FAILED  the kernels were not used: {notes}")
    if not options.no_timing and not options.only:
        for measure in timing.TIMINGS:
            say(f"\n{measure.__name__}: {measure.__doc__}")
            try:
                for line in measure(session):
                    say("  " + line)
            except Exception:
                failed += 1
                say(f"FAILED  {measure.__name__}\n{traceback.format_exc()}")
    session.close()
    if not options.no_sanitizer and DEVICE == "cuda" and not options.only:
        for line in sanitizer():
            failed += "FAILED" in line
            say(line)
    say(f"\n{failed} failed" if failed else "\nall good")
    whole = not (options.only or options.no_timing or options.no_sanitizer)
    if DEVICE == "cuda" and whole:
        text = (
            f"# Last run on a card\n\n{datetime.date.today()}, `make gpu-check`\n\n```\n" + "\n".join(lines) + "\n```\n"
        )
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
