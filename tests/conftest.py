"""What every test gets: a clean environment, and the layers' rules about sockets."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["tests.fixtures_ground_control", "tests.fixtures_registry"]

_TOGETHER = {"flows", "ground_control"}
# Of the acceptance tests, those with a centre mostly wait: two centres share the machine, each has half of the waits.
_FIRST_CENTRE = {f"test_{name}.py" for name in ("configs", "credentials", "edge_cuts", "edge_settings", "rollouts")}
_WITHOUT_CENTRE = "test_replication_"
# Hypothesis without a clock (the machine may be busy) and with the same examples in every run.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

_FOREIGN_PREFIXES = ("PREFECT_", "HARBOR_SATELLITE_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clear what a developer's shell may carry and a test must not see."""
    for name in list(os.environ):
        if name.upper().startswith(_FOREIGN_PREFIXES):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_open() -> Iterator[None]:
    """Have what a file's tests leave open be found at its end, and not in some other test that runs much later."""
    yield
    gc.collect()


def pytest_collection_finish() -> None:
    """Take what is there by now out of every garbage collection to come: it stays, and there is much of it."""
    gc.collect()
    gc.freeze()


class _Scheduling(LoadScopeScheduling):
    """Keeps tests that share slow servers in one process, and goes file by file through the others."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid)


def _scope(nodeid: str) -> str:
    _, folder, *rest = nodeid.split("::", 1)[0].split("/")
    if folder == "acceptance" and not rest[0].startswith(_WITHOUT_CENTRE):
        return f"{folder} {1 if rest[0] in _FIRST_CENTRE else 2}"
    return folder if folder in _TOGETHER else "/".join((folder, *rest))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, the tests that share servers: so all processes end at about the same time."""
    items.sort(key=lambda item: "/" in _scope(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return _Scheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Close with what tests measured and called a property: the conformance suite's counts."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    found = [(report.nodeid, *item) for report in reports for item in report.user_properties]
    if found:
        terminalreporter.section("measured")
    for where, name, value in sorted(found):
        terminalreporter.write_line(f"{name} {where.partition('[')[2].rstrip(']')}: {value}")
