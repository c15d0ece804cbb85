"""Which tests run one after the other when several processes share them (pytest-xdist, `--dist loadgroup`)."""

import signal

import pytest

# A job in a shell's background, and one under nohup, ignores these. What the tests start would inherit that, and not end.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuses a pytest with which pytest-xdist loses the groups: each process would make every fixture again. It adds a
    group's name to `_nodeid`, which pytest 9.2 does not read."""
    if session.config.getoption("dist", "no") == "loadgroup":
        before = session.nodeid
        setattr(session, "_nodeid", f"{before}@group")
        if session.nodeid == before:
            here = f"pytest {pytest.__version__}"
            raise pytest.UsageError(f"pytest-xdist groups no tests with {here}: take that of tests/requirements.txt")
        setattr(session, "_nodeid", before)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of a file that share a fixture of the file: it is then made once."""
    for item in items:
        definitions = getattr(item, "_fixtureinfo").name2fixturedefs
        if any(each[-1].scope == "module" for each in definitions.values()):
            model = getattr(item, "callspec", None) and item.callspec.params.get("case")  # tests/zoo makes one for each
            item.add_marker(pytest.mark.xdist_group(f"{item.path.name} {model or ''}".strip()))
