"""Prints a bill of materials in the form CycloneDX 1.5: every crate that cargo builds into the library and the command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OURS = ("libgraphpatch", "graphpatch")


def metadata() -> dict[str, Any]:
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)


def built(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The packages that are reached by normal and build dependencies."""
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
    packages = {package["id"]: package for package in found["packages"]}
    left = [each for each in found["workspace_members"] if packages[each]["name"] in OURS]
    seen = set(left)
    while left:
        for dependency in nodes[left.pop()]["deps"]:
            kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
            if kinds != {"dev"} and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                left.append(dependency["pkg"])
    return sorted((packages[each] for each in seen), key=lambda package: (package["name"], package["version"]))


def component(package: dict[str, Any]) -> dict[str, Any]:
    name, version = package["name"], package["version"]
    entry: dict[str, Any] = {"type": "library", "name": name, "version": version}
    if package["source"]:
        entry["purl"] = f"pkg:cargo/{name}@{version}"
    if package["license"]:
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return entry


def main() -> None:
    found = metadata()
    components = [component(package) for package in built(found)]
    (library,) = (each for each in components if each["name"] == "libgraphpatch")
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**library, "type": "application"}},
        "components": [each for each in components if each is not library],
    }
    print(json.dumps(bill, indent=1))


if __name__ == "__main__":
    main()
