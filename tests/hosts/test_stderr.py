"""A file that a program has opened as descriptor 2 is its own: nothing of ours is written there, such as that an adapter is being
built."""

from pathlib import Path

from hosting import compare


def test_what_is_built_is_not_told_in_the_programs_file(programs: Path, model: dict[str, str], tmp_path: Path) -> None:
    # No adapter can be built; that is tried, and told, when libtorch comes.
    building = {"GRAPHPATCH_CACHE": str(tmp_path / "cache"), "CXX": "/bin/false"}
    late = {"HOST_LATE": model["HOST_MODEL"], "HOST_MODEL_FILE": model["HOST_MODEL_FILE"]}
    command = [str(programs / "files"), "stderr_is_its_own_before_libtorch_comes"]
    under = compare(command, tmp_path, {**building, **late}, "--tree")
    assert under.files["own"].endswith(repr(b"mine\nmine\n")) and b"ran untouched" in under.stderr, under
