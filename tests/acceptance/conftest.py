"""One centre for all acceptance tests; groups, satellites and sites are made by each test for itself.

A test is marked with the item of the acceptance list that it asks for; ``-m acceptance`` runs them all.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance import asking
from tests.acceptance.centre import run_centre
from tests.acceptance.site import Site
from tests.conftest import _FOREIGN_PREFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    import httpx

    from tests.acceptance.centre import Centre
    from tests.ground_control.postgres import PostgresServer

_TAIL_BYTES = 3000
_LONGEST_SECONDS = 400
"""Of a test that says nothing itself: whichever comes first waits for the centre to start, and any for its site."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "acceptance(item): which item of the acceptance list the test asks for")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_LONGEST_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of every process's log beside a failure."""
    report = yield
    if report.failed:
        arguments = item.funcargs if isinstance(item, pytest.Function) else {}
        for folder in (arguments[name] for name in ("logs", "tmp_path") if name in arguments):
            for log in sorted({*folder.rglob("*.log"), *folder.rglob("central/log")}):
                tail = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
                report.sections.append((f"end of {log.relative_to(folder)}", tail))
    return report


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the processes of the centre write is below this folder."""
    return tmp_path_factory.mktemp("acceptance")


@pytest.fixture(scope="session")
def quiet_environment() -> Iterator[None]:
    """Keep what a developer's shell carries from the processes that live as long as the session."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith(_FOREIGN_PREFIXES):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def database_url(request: pytest.FixtureRequest) -> str:
    """Of a new database for Ground Control: PostgreSQL where there is one, else an SQLite file."""
    try:
        server: PostgresServer = request.getfixturevalue("postgres_server")
    except pytest.skip.Exception:
        return ""
    server.execute("CREATE DATABASE acceptance")
    return server.url("acceptance")


@pytest.fixture(scope="package")  # its processes never rest: other tests go on in this process without them
def centre(logs: Path, quiet_environment: None, database_url: str) -> Iterator[Centre]:
    with run_centre(logs / "centre", database_url) as started:
        yield started


@pytest.fixture(scope="module")
def unique() -> Callable[[str], str]:
    """Make names that no other test uses."""
    return lambda prefix: f"{prefix}-{secrets.token_hex(3)}"


@pytest.fixture
def name(request: pytest.FixtureRequest, unique: Callable[[str], str]) -> str:
    """Name this test's groups, satellites and repositories after what it asks for."""
    marker = request.node.get_closest_marker("acceptance")
    return unique(marker.args[0].lower() if marker else "other")


@pytest.fixture
def join(centre: Centre, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Register a satellite that follows groups, with a site that has claimed its token."""
    with ExitStack() as sites:

        def join_site(name: str, *groups: str) -> Site:
            token = centre.add_satellite(name, groups)
            site = sites.enter_context(Site(name, tmp_path / name, centre))
            done = site.register(token)
            assert done.returncode == 0, done.stderr
            return site

        yield join_site


@pytest.fixture
def anybody(centre: Centre) -> Iterator[httpx.Client]:
    """Call Ground Control without being known there."""
    with asking.client(base_url=centre.url) as client:
        yield client
