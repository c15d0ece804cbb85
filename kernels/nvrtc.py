"""Compiles graphpatch.cu to PTX with NVRTC, by ctypes.

    python nvrtc.py LIBNVRTC FOLDER OUT

The PTX says which PTX ISA it is written in, and a driver refuses a newer one than its own. NVRTC writes that of its own
toolkit (7.8), while the kernels use nothing that is not in 7.0, which is what the drivers of CUDA 11.0 (R450) read: so
that is what the file is made to say. `ptxas` checks every instruction against that number.
"""

import ctypes
import re
import sys
from pathlib import Path

ISA = "7.0"


def main(library: str, folder: str, out: str) -> None:
    nvrtc = ctypes.CDLL(library)
    source = (Path(folder) / "graphpatch.cu").read_bytes()
    headers = sorted(Path(folder).glob("*.cuh"))
    names = (ctypes.c_char_p * len(headers))(*[h.name.encode() for h in headers])
    texts = (ctypes.c_char_p * len(headers))(*[h.read_bytes() for h in headers])
    program = ctypes.c_void_p()
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"graphpatch.cu", len(headers), texts, names))
    options = [b"--gpu-architecture=compute_75", b"--std=c++17", b"-default-device", b"--fmad=false"]
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    if status or log.value.strip():
        sys.exit(f"NVRTC: {log.value.decode()}")
    check(nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)))
    ptx = ctypes.create_string_buffer(size.value)
    check(nvrtc.nvrtcGetPTX(program, ptx))
    text, changed = re.subn(r"^\.version .*$", f".version {ISA}", ptx.value.decode(), flags=re.M)
    assert changed == 1, "no .version line"
    Path(out).write_text("".join(line.rstrip() + "\n" for line in text.splitlines()))


def check(status: int) -> None:
    if status:
        sys.exit(f"NVRTC answers {status}")


if __name__ == "__main__":
    main(*sys.argv[1:])
