"""Fixtures of Ground Control: a throw-away PostgreSQL, both databases, a served app, a fake Harbor."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from argon2 import PasswordHasher
from pydantic import SecretStr

from harbor_satellite.ground_control.api.app import AppOptions, create_app
from harbor_satellite.ground_control.database import SessionFactory, make_engine, make_session_factory, migrate
from harbor_satellite.ground_control.models import Base, User
from harbor_satellite.ground_control.people import passwords, users
from harbor_satellite.ground_control.people.audit_budget import RefusalBudget
from harbor_satellite.ground_control.satellites.sources import HarborSource, OciSource, Source
from harbor_satellite.harbor.client import HarborClient
from tests.fakes.harbor import FakeHarbor
from tests.fakes.harbor_accounts import ADMIN
from tests.ground_control.postgres import PostgresServer, running_postgres, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harbor_satellite.ground_control.api.context import Context

ADMIN_PASSWORD = "Ground-Control-1"
SOURCE_URL = "http://source.test:5000"


@pytest.fixture(scope="session", autouse=True)
def _cheap_password_hashes() -> Iterator[None]:
    """Thousands of tests log in: in their own process a hash costs next to nothing; what it costs is a unit test's."""
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_hasher", cheap)
        patch.setattr(passwords, "_NOBODY", cheap.hash("nobody"))
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


# -- both databases -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table; both kinds in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ground-control.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"test_{time.monotonic_ns()}"
    server.execute(f"CREATE DATABASE {name}")
    yield server.url(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def _migrated_factory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SessionFactory]:
    """One migrated database of each kind, with the user admin in it; tests get it emptied."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('database') / 'ground-control.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        server.execute("CREATE DATABASE ground_control")
        url = server.url("ground_control")
    migrate(url)
    engine = make_engine(url)
    factory = make_session_factory(engine)
    with factory.begin() as session:
        users.ensure_first_user(session, SecretStr(ADMIN_PASSWORD), datetime.now(UTC))
    yield factory
    engine.dispose()


@pytest.fixture
def session_factory(_migrated_factory: SessionFactory) -> SessionFactory:
    """Sessions on a migrated database that holds nothing but the user admin; both kinds in turn."""
    with _migrated_factory.begin() as session:
        for table in reversed(Base.metadata.sorted_tables):
            rows = table.delete()
            session.execute(rows.where(User.username != "admin") if table.name == "users" else rows)
    return _migrated_factory


# -- served apps --------------------------------------------------------------------------------------------------


@contextmanager
def serve(app: Any) -> Iterator[str]:
    """Serve an ASGI app on a free port of the loopback, in a thread; gives its URL."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", access_log=False, ws="websockets-sansio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive(), "uvicorn")
        assert server.started, "the app did not start"
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@dataclass
class Clock:
    """A clock that a test moves; otherwise the real one."""

    offset: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def advance(self, **amount: float) -> None:
        self.offset += timedelta(**amount)


@dataclass
class GroundControl:
    """Ground Control as a test sees it: over HTTP, with its clock and its database at hand."""

    url: str
    clock: Clock
    factory: SessionFactory
    source: Source
    admin: httpx.Client
    """Logged in as the system administrator."""
    anonymous: httpx.Client
    context: Context

    def sync_group(self, name: str, *repositories: str) -> None:
        artifacts = [{"repository": repository, "tag": ["v1"]} for repository in repositories]
        body = {"group": name, "registry": "", "artifacts": artifacts}
        assert self.admin.post("/api/groups/sync", json=body).status_code == 200

    def register(self, name: str, *groups: str) -> str:
        response = self.admin.post(
            "/api/satellites", json={"name": name, "groups": list(groups), "config_name": "default"}
        )
        assert response.status_code == 200, response.text
        token: str = response.json()["token"]
        return token

    def claim(self, token: str, claim_key: str | None = None) -> httpx.Response:
        return self.anonymous.post("/satellites/ztr", json={"token": token, "claim_key": claim_key})

    def enroll(self, name: str, *groups: str) -> tuple[str, str]:
        """Register and claim; gives the credential."""
        auth = self.claim(self.register(name, *groups)).json()["auth"]
        return auth["username"], auth["password"]

    def report(self, name: str, auth: tuple[str, str], **values: Any) -> httpx.Response:
        body = {"name": name, "state_report_interval": "30s", **values}
        return self.anonymous.post("/satellites/sync", json=body, auth=auth)


@contextmanager
def running_ground_control(
    factory: SessionFactory, source: Source, options: AppOptions | None = None
) -> Iterator[GroundControl]:
    clock = Clock()
    app = create_app(options or AppOptions(source_url=SOURCE_URL), factory, source, clock=clock)
    limits = httpx.Limits(max_connections=60)
    with (
        serve(app) as url,
        httpx.Client(base_url=url, timeout=30, limits=limits) as admin,
        httpx.Client(base_url=url, timeout=30, limits=limits) as anonymous,
    ):
        yield GroundControl(url, clock, factory, source, admin, anonymous, app.state.context)


def _fresh(running: GroundControl) -> GroundControl:
    """Make an app that other tests have used as good as new; its database is emptied by ``session_factory``."""
    running.clock.offset = timedelta()
    running.context.limits.renewals._levels.clear()
    context = running.context
    for throttle in (context.password_failures, context.address_failures, context.secret_failures):
        throttle._windows.clear()
    for buckets in (context.limits.satellites, context.limits.people):
        buckets._levels.clear()
    context.known_callers._failures.clear()
    object.__setattr__(context, "refusals", RefusalBudget())
    with running.factory.begin() as session:
        user = users.find_user(session, "admin")
        assert user is not None
        person = users.Principal(user.id, user.username, user.role)
        token = users.open_session(session, person, timedelta(days=400), running.clock()).token.get_secret_value()
    running.admin.headers["Authorization"] = f"Bearer {token}"
    return running


@pytest.fixture(scope="session")
def _shared_ground_control(_migrated_factory: SessionFactory) -> Iterator[GroundControl]:
    with running_ground_control(_migrated_factory, OciSource()) as running:
        yield running


@pytest.fixture
def ground_control(_shared_ground_control: GroundControl, session_factory: SessionFactory) -> GroundControl:
    """Ground Control whose source knows no robots: it makes credentials itself."""
    return _fresh(_shared_ground_control)


@dataclass
class HarborParts:
    """A fake Harbor, and Ground Control over it."""

    fake: FakeHarbor
    url: str
    ground_control: GroundControl


@pytest.fixture(scope="session")
def _shared_fake_harbor() -> Iterator[tuple[FakeHarbor, str]]:
    fake = FakeHarbor()
    with serve(fake.app) as url:
        yield fake, url


@pytest.fixture
def fake_harbor(_shared_fake_harbor: tuple[FakeHarbor, str]) -> tuple[FakeHarbor, str]:
    """A fake Harbor as good as new, and its URL."""
    fake, url = _shared_fake_harbor
    fake.reset()
    return fake, url


@pytest.fixture(scope="session")
def _shared_harbor_ground_control(
    _migrated_factory: SessionFactory, _shared_fake_harbor: tuple[FakeHarbor, str]
) -> Iterator[GroundControl]:
    url = _shared_fake_harbor[1]
    with (
        HarborClient(url, ADMIN[0], SecretStr(ADMIN[1]), timeout_seconds=5) as client,
        running_ground_control(_migrated_factory, HarborSource(client)) as running,
    ):
        yield running


@pytest.fixture
def harbor_ground_control(
    _shared_harbor_ground_control: GroundControl,
    session_factory: SessionFactory,
    fake_harbor: tuple[FakeHarbor, str],
) -> HarborParts:
    """Ground Control whose source is a (fake) Harbor with projects ``acme`` and ``tools``."""
    fake, url = fake_harbor
    fake.accounts.projects |= {"acme": False, "tools": False}
    return HarborParts(fake, url, _fresh(_shared_harbor_ground_control))
