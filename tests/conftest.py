"""What every test gets: a clean environment, and the layers' rules about sockets."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["tests.fixtures_ground_control", "tests.fixtures_registry"]

_TOGETHER = {"acceptance", "flows", "ground_control"}
_SECOND_HALF = "test_g"  # of the acceptance tests: they mostly wait, so two centres share the machine
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


class _Scheduling(LoadScopeScheduling):
    """Keeps tests that share slow servers in one process, and goes file by file through the others."""

    def _split_scope(self, nodeid: str) -> str:
        _, folder, *rest = nodeid.split("::", 1)[0].split("/")
        if folder == "acceptance":
            return f"{folder} {'2' if rest[0] >= _SECOND_HALF else '1'}"
        return folder if folder in _TOGETHER else "/".join((folder, *rest))


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
