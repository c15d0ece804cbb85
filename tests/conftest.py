"""Which tests run one after the other when several processes share them (pytest-xdist, `--dist loadgroup`)."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of a file that share a fixture of the file: it is then made once."""
    for item in items:
        definitions = getattr(item, "_fixtureinfo").name2fixturedefs
        if any(each[-1].scope == "module" for each in definitions.values()):
            model = getattr(item, "callspec", None) and item.callspec.params.get("case")  # tests/zoo makes one for each
            item.add_marker(pytest.mark.xdist_group(f"{item.path.name} {model or ''}".strip()))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuses a pytest with which pytest-xdist loses the groups: each process would make every fixture again."""
    if getattr(session.config.option, "loadgroup", False):
        lost = [item for item in session.items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
        if lost:
            raise pytest.UsageError(f"pytest-xdist groups no tests with pytest {pytest.__version__}: see tests/requirements.txt")
