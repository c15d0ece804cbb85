"""Which tests run one after the other when several processes share them (pytest-xdist, `--dist loadgroup`)."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of a file that share a fixture of the file: it is then made once."""
    for item in items:
        definitions = getattr(item, "_fixtureinfo").name2fixturedefs
        if any(each[-1].scope == "module" for each in definitions.values()):
            model = getattr(item, "callspec", None) and item.callspec.params.get("case")  # tests/zoo makes one for each
            item.add_marker(pytest.mark.xdist_group(f"{item.path.name} {model or ''}"))
