"""A real Prefect server, the gateway, and a real agent at a site: nothing of a run is lost on its way."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.central_service import prefect_environment, start_prefect_server
from harbor_satellite.demo.images import AMD64, layer, push_image, tag_image
from harbor_satellite.ground_control.api.context import GATEWAY_PATH, AppOptions
from harbor_satellite.ground_control.database import make_engine, make_session_factory, migrate
from harbor_satellite.ground_control.people import users
from harbor_satellite.ground_control.satellites.sources import OciSource
from harbor_satellite.processes import Child
from harbor_satellite.project import project_dir
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.server import create_registry_app
from tests.fixtures_ground_control import ADMIN_PASSWORD, GroundControl, _fresh, running_ground_control, serve
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harbor_satellite.oci.digest import Digest

pytestmark = [pytest.mark.prefect_server, pytest.mark.timeout(500)]  # it waits for six things, each with patience

PATIENCE_SECONDS = 120.0
ENDED = frozenset({"COMPLETED", "FAILED", "CRASHED"})
PREFECT_AUTH = ("admin", "only-the-centre-knows")
CLI = (sys.executable, "-c", "from harbor_satellite.cli import main; main()")
CENTRAL = (
    "from flows.reconcile_fleet import reconcile_fleet; from flows.publish_state import publish_state;"
    "reconcile_fleet(); publish_state()"
)


@dataclass
class Link:
    """A TCP link that can be cut: what is open is reset, and new connections are refused an answer."""

    port: int = field(default_factory=free_port)
    target: int = 0
    is_cut: bool = False
    _open: list[socket.socket] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator[Link]:
        with socket.create_server(("127.0.0.1", self.port)) as listening:
            threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
            yield self
            self.cut()
            listening.shutdown(socket.SHUT_RDWR)  # closing it alone does not wake whoever waits there

    def cut(self) -> None:
        with self._guard:
            self.is_cut = True
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)  # whoever pumps it sees that, and closes it
            self._open.clear()

    def mend(self) -> None:
        self.is_cut = False

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                near, _ = listening.accept()
            except OSError:
                return
            with self._guard:  # else a connection might come to be while all are cut, and stay
                try:
                    if self.is_cut:
                        raise ConnectionError
                    far = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    near.close()
                    continue
                self._open += [near, far]
            threading.Thread(target=self._pump, args=(near, far), daemon=True).start()

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            while True:
                try:
                    for one in select.select([near, far], [], [], 1)[0]:
                        data = one.recv(65536)
                        if not data:
                            return
                        (far if one is near else near).sendall(data)
                except (OSError, ValueError):
                    return


@dataclass
class World:
    """Both ends, and the link between them."""

    ground_control: GroundControl
    prefect_url: str
    link: Link
    centre: LayoutRegistry
    centre_url: str
    environment: dict[str, str]
    folder: Path

    def prefect(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(method, self.prefect_url + path, json=body, auth=PREFECT_AUTH, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def publish(self) -> None:
        """Do what the central worker would."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            [sys.executable, "-c", CENTRAL],
            env=environment, cwd=project_dir(), capture_output=True, text=True, check=False, timeout=180,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]

    def start_run(self, satellite: str) -> str:
        deployment = self.prefect("GET", f"/deployments/name/replicate-state/{satellite}")["id"]
        return str(self.prefect("POST", f"/deployments/{deployment}/create_flow_run", {})["id"])

    def running_run(self, satellite: str) -> str:
        """Return the run that is under way: of several that are due, Prefect starts one and cancels the others."""
        body = {
            "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}},
            "work_pools": {"name": {"any_": [f"satellite-{satellite}"]}},
        }
        return next((run["id"] for run in self.prefect("POST", "/flow_runs/filter", body)), "")

    def run(self, one: str) -> dict[str, Any]:
        found: dict[str, Any] = self.prefect("GET", f"/flow_runs/{one}")
        return found

    def of_run(self, kind: str, run: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.prefect("POST", f"/{kind}/filter", {kind: {"flow_run_id": {"any_": [run]}}})
        return found

    def tasks(self, run: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.prefect("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return found


@pytest.fixture(scope="module")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prefect")
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_SERVER_API_AUTH_STRING", ":".join(PREFECT_AUTH))
        server = start_prefect_server(folder, port)
    try:
        server.wait_for(f"http://127.0.0.1:{port}/api/health", 2 * PATIENCE_SECONDS)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        server.stop()


@pytest.fixture
def world(prefect_url: str, tmp_path: Path) -> Iterator[World]:
    database = f"sqlite:///{tmp_path / 'ground-control.sqlite'}"
    migrate(database)
    engine = make_engine(database)
    factory = make_session_factory(engine)
    with factory.begin() as session:
        users.ensure_first_user(session, SecretStr(ADMIN_PASSWORD), datetime.now(UTC))
    with ExitStack() as stack:
        link = stack.enter_context(Link().running())
        centre = stack.enter_context(LayoutRegistry(tmp_path / "centre"))
        centre_url = stack.enter_context(serve(create_registry_app(centre, None, allow_anonymous_writes=True)))
        options = AppOptions(
            source_url=centre_url,
            public_url=f"http://127.0.0.1:{link.port}",
            prefect_api_internal_url=prefect_url,
            prefect_api_auth=SecretStr(":".join(PREFECT_AUTH)),
        )
        ground_control = _fresh(stack.enter_context(running_ground_control(factory, OciSource(), options)))
        link.target = int(ground_control.url.rpartition(":")[2])
        environment = {
            **prefect_environment(tmp_path / "central"),
            "PREFECT_API_URL": prefect_url,
            "PREFECT_API_AUTH_STRING": ":".join(PREFECT_AUTH),
            "HARBOR_SATELLITE_GROUND_CONTROL_DATABASE_URL": database,
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_KIND": "oci",
            "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_URL": centre_url,
        }
        yield World(ground_control, prefect_url, link, centre, centre_url, environment, tmp_path)
    engine.dispose()


@contextmanager
def site(world: World, token: str, **settings: str) -> Iterator[tuple[Child, LayoutRegistry]]:
    folder = world.folder / "site"
    with (
        LayoutRegistry(folder / "local") as local,
        serve(create_registry_app(local, None, allow_anonymous_writes=True)) as local_url,
    ):
        environment = {
            "HARBOR_SATELLITE_DATA_DIR": str(folder / "edge"),
            "HARBOR_SATELLITE_GROUND_CONTROL_URL": f"http://127.0.0.1:{world.link.port}",
            "HARBOR_SATELLITE_LOCAL_REGISTRY_URL": local_url,
            "HARBOR_SATELLITE_TOKEN": token,
            "HARBOR_SATELLITE_POLL_INTERVAL_SECONDS": "2",
            "HARBOR_SATELLITE_STATUS_LISTEN": f"127.0.0.1:{free_port()}",
            **settings,
        }
        argv = (*CLI, "--log-level", "INFO", "edge", "run")
        agent = Child("agent", argv, env=environment, log=folder / "agent.log")
        try:
            yield agent, local
        finally:
            agent.stop()


def wait_for(what: Callable[[], Any], agent: Child) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        agent.check()
        if found := what():
            return found
        time.sleep(0.3)
    raise AssertionError(f"not within {PATIENCE_SECONDS:.0f} s; the agent said: {agent.log.read_text()[-4000:]}")


def image(world: World, repository: str, content: str, size: int) -> Digest:
    """Push an image of one layer; gives that one's digest."""
    one = layer(content, size)
    tag_image(world.centre, repository, "v1", push_image(world.centre, repository, AMD64, [one]))
    return one.descriptor.digest


def test_run_through_gateway_and_proxy_loses_nothing_in_a_cut_and_reads_nobody_elses(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    large = image(world, "acme/app", "one", 600_000)  # ten seconds at the site's rate
    world.ground_control.sync_group("stores", "acme/app")
    token = world.ground_control.register("shop-1", "stores")
    other = world.ground_control.enroll("shop-2", "stores")
    world.publish()
    foreign = world.start_run("shop-2")

    with site(world, token, HARBOR_SATELLITE_BYTES_PER_SECOND="60K") as (agent, local):
        world.start_run("shop-1")
        run = wait_for(lambda: world.running_run("shop-1"), agent)
        wait_for(lambda: world.of_run("artifacts", run), agent)  # the copy is under way, and shown
        world.link.cut()
        wait_for(lambda: local.blob_head("acme/app", large), agent)
        time.sleep(3)  # for what the run says after the copying
        world.link.mend()
        ended = wait_for(lambda: (found := world.run(run))["state_type"] in ENDED and found, agent)
        tasks = wait_for(
            lambda: (found := world.tasks(run)) and all(one["state_type"] == "COMPLETED" for one in found) and found,
            agent,
        )
        mine = _credential(world)
        # Prefect's client sends log lines every two seconds.
        logs = wait_for(lambda: len(found := world.of_run("logs", run)) > 10 and found, agent)

    artifacts = world.of_run("artifacts", run)
    record_property("logs, artifacts, tasks", (len(logs), len(artifacts), len(tasks)))
    log = agent.log.read_text()
    record_property("counters", str(world.ground_control.context.counters))
    assert ended["state_type"] == "COMPLETED", ended["state"]
    keys = {one["task_key"].partition("-")[0] for one in tasks}
    assert {"check_state", "fetch_states", "plan_images", "copy_images", "publish_images", "post_status"} <= keys
    assert {"progress", "table"} <= {one["type"] for one in artifacts}
    assert "only-the-centre-knows" not in log
    assert world.ground_control.context.counters.denied == 0, log
    assert world.ground_control.context.counters.events_dropped == 0
    gateway = f"{world.ground_control.url}{GATEWAY_PATH}"
    statuses = {
        (who, one): httpx.get(f"{gateway}/flow_runs/{one}", auth=auth, timeout=30).status_code
        for who, auth in (("mine", mine), ("other", other))
        for one in (run, foreign)
    }
    assert statuses == {("mine", run): 200, ("mine", foreign): 403, ("other", run): 403, ("other", foreign): 200}


def _credential(world: World) -> tuple[str, str]:
    from harbor_satellite.satellite.store import SatelliteStore  # noqa: PLC0415

    auth = SatelliteStore(world.folder / "site" / "edge").registration().auth
    return auth.username, auth.password.get_secret_value()
