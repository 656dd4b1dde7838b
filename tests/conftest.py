"""What every test gets: a clean environment, and the layers' rules about sockets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["tests.fixtures_ground_control", "tests.fixtures_registry"]

_FOREIGN_PREFIXES = ("PREFECT_", "HARBOR_SATELLITE_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clear what a developer's shell may carry and a test must not see."""
    for name in list(os.environ):
        if name.upper().startswith(_FOREIGN_PREFIXES):
            monkeypatch.delenv(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each folder's tests in one process when several run: they share servers that are slow to start."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        item.add_marker(pytest.mark.xdist_group(folder))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Close with what tests measured and called a property: the conformance suite's counts."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    found = [(report.nodeid, *item) for report in reports for item in report.user_properties]
    if found:
        terminalreporter.section("measured")
    for where, name, value in sorted(found):
        terminalreporter.write_line(f"{name} {where.partition('[')[2].rstrip(']')}: {value}")
