"""A program may open a file of its own as descriptor 2. The library writes nothing there, not even that it builds an adapter."""

from pathlib import Path

from hosting import compare


def test_what_is_built_is_not_told_in_the_programs_file(programs: Path, model: dict[str, str], tmp_path: Path) -> None:
    # No adapter can be built here. The library tries to, and reports it, when libtorch is loaded.
    building = {"GRAPHPATCH_CACHE": str(tmp_path / "cache"), "CXX": "/bin/false"}
    late = {"HOST_LATE": model["HOST_MODEL"], "HOST_MODEL_FILE": model["HOST_MODEL_FILE"]}
    command = [str(programs / "files"), "stderr_is_its_own_before_libtorch_comes"]
    under = compare(command, tmp_path, {**building, **late}, "--tree")
    assert under.files["own"].endswith(repr(b"mine\nmine\n")) and b"ran untouched" in under.stderr, under
