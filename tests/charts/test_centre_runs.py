"""The centre, started as the chart and the compose file say: their commands, variables, files and confinement.

PostgreSQL is real, and so is everything that is started. What is put in another's place: addresses and ports, since
there is no cluster, and the image, whose programs are those of this environment.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.charts.compose_files import compose_containers, made_secrets
from tests.charts.helm_containers import chart_containers
from tests.charts.processes import USER, Container, Running, running
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.ground_control.postgres import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.postgres, pytest.mark.prefect_server, pytest.mark.timeout(900)]
_FLOW_SECONDS = 180.0
_AUTH = ("centre", "made-up")
_PASSWORD = "Made-up-1"


@pytest.fixture(name="databases")
def _databases(postgres_server: PostgresServer) -> Iterator[Callable[[str], str]]:
    """Two databases; gives the URL of one by its driver and name."""
    postgres_server.socket_dir.chmod(0o711)
    stamp = time.monotonic_ns()
    made = {kind: f"{kind}_{stamp}" for kind in ("ground_control", "prefect")}
    for name in made.values():
        postgres_server.execute(f"CREATE DATABASE {name}")

    def url(kind: str) -> str:
        plain = postgres_server.url(made[kind])
        return plain.replace("postgresql://", "postgresql+asyncpg://") if kind == "prefect" else plain

    yield url
    for name in made.values():
        postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(name="pods")
def _pods(postgres_server: PostgresServer) -> Iterator[Running]:
    with running(postgres_server.socket_dir) as under_way:
        yield under_way


@pytest.fixture(name="redis_url")
def _redis_url() -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis: no redis-server on PATH")
    if importlib.util.find_spec("prefect_redis") is None:
        pytest.skip("Redis: no prefect-redis in this environment")
    port = free_port()
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)


def _sets(databases: Callable[[str], str], **more: str) -> tuple[str, ...]:
    values = {
        "secrets.databaseUrl": databases("ground_control"),
        "secrets.prefectDatabaseUrl": databases("prefect"),
        "secrets.prefectAuthString": ":".join(_AUTH),
        "secrets.adminPassword": _PASSWORD,
        "source.kind": "oci",
        "source.url": "http://127.0.0.1:1",
        **more,
    }
    return tuple(f"{name}={value}" for name, value in values.items())


def test_chart_every_process_comes_up_and_a_flow_runs(pods: Running, databases: Callable[[str], str]) -> None:
    ports = {name: free_port() for name in ("prefect", "ground-control", "worker")}
    found = chart_containers(_sets(databases), ports)
    second = free_port()
    replica = _moved(found["ground-control"], second, "ground-control-2")

    pods.run(found["migrate/ground-control"])
    pods.run(found["migrate/prefect"])
    for container in (found["prefect"], found["ground-control"], replica):  # both replicas at once
        pods.start(container)
    ready = [pods.wait_until_ready(container) for container in (found["ground-control"], replica)]
    pods.wait_until_ready(found["prefect"])
    pods.run(found["deploy/deploy"])
    pods.start(found["worker"])
    pods.wait_until_ready(found["worker"])

    assert {answer.json()["schema"] for answer in ready} == {"up"}
    _assert_is_confined(pods, "prefect", "ground-control", "ground-control-2", "worker")
    _assert_prefect_asks_for_its_password(ports["prefect"])
    _assert_people_log_in_at_either(ports["ground-control"], second)
    assert _is_run(ports["prefect"], "watch-fleet"), pods.log("worker")


def test_chart_over_redis_two_apis_and_two_services_share_the_work(
    pods: Running, databases: Callable[[str], str], redis_url: str
) -> None:
    ports = {name: free_port() for name in ("prefect", "ground-control", "worker")}
    more = {"prefect.redis.enabled": "true", "secrets.prefectRedisUrl": redis_url, "prefect.replicas": "2"}
    found = chart_containers(_sets(databases, **more), ports)
    second = free_port()
    api, services = found["prefect"], found["prefect-services"]
    other = _moved(api, second, "prefect-2")

    pods.run(found["migrate/ground-control"])
    pods.run(found["migrate/prefect"])
    for container in (api, other, services, replace(services, name="prefect-services-2"), found["ground-control"]):
        pods.start(container)
    for container in (api, other, found["ground-control"]):
        pods.wait_until_ready(container)
    pods.run(found["deploy/deploy"])
    pods.start(found["worker"])
    pods.wait_until_ready(found["worker"])

    # An event that one API took starts a flow: services saw it, through Redis.
    assert _is_run(second, "watch-fleet"), pods.log("worker")
    assert _is_run_by_event(second), pods.log("prefect-services")
    for name in ("prefect", "prefect-2", "prefect-services", "prefect-services-2"):
        assert "ConnectionError" not in pods.log(name)


def test_compose_every_process_comes_up_and_a_flow_runs(
    pods: Running, databases: Callable[[str], str], tmp_path: Path
) -> None:
    ports = {name: free_port() for name in ("prefect", "ground-control", "worker")}
    folder = made_secrets(tmp_path, source_password="made-up")
    # The database is another one than the file's.
    (folder / "database-url").write_text(databases("ground_control"), encoding="utf-8")
    env = (folder / "prefect-server.env").read_text(encoding="utf-8").splitlines()
    env[0] = f"PREFECT_SERVER_DATABASE_CONNECTION_URL={databases('prefect')}"
    (folder / "prefect-server.env").write_text("\n".join(env), encoding="utf-8")
    found = compose_containers(tmp_path, ports)
    login = (folder / "admin-password").read_text(encoding="utf-8").strip()

    pods.run(found["migrate"])
    pods.start(found["prefect"])
    pods.start(found["ground-control"])
    pods.wait_until_ready(found["prefect"])
    pods.run(found["deploy"])
    pods.start(found["worker"])
    pods.wait_until_ready(found["ground-control"])
    pods.wait_until_ready(found["worker"])

    _assert_is_confined(pods, "prefect", "ground-control", "worker")
    _assert_prefect_asks_for_its_password(ports["prefect"])
    assert _login(ports["ground-control"], login).is_success
    auth = ("centre", (folder / "prefect-password").read_text(encoding="utf-8").strip())
    assert _is_run(ports["prefect"], "watch-fleet", auth), pods.log("worker")


def _moved(container: Container, port: int, name: str) -> Container:
    argv = tuple(str(port) if part == str(container.port) else part for part in container.argv)
    return replace(container, name=name, argv=argv, port=port)


def _assert_is_confined(pods: Running, *names: str) -> None:
    for name in names:
        status = pods.status_of(name)
        assert status["Uid"].split() == [str(USER)] * 4
        assert int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"


def _assert_prefect_asks_for_its_password(port: int) -> None:
    url = f"http://127.0.0.1:{port}/api/work_pools/central"

    assert httpx.get(url).status_code == httpx.codes.UNAUTHORIZED


def _login(port: int, password: str) -> httpx.Response:
    body = {"username": "admin", "password": password}
    return httpx.post(f"http://127.0.0.1:{port}/login", json=body, timeout=30)


def _assert_people_log_in_at_either(first: int, second: int) -> None:
    token = _login(first, _PASSWORD).raise_for_status().json()["token"]

    there = httpx.get(f"http://127.0.0.1:{second}/api/groups", headers={"Authorization": f"Bearer {token}"})
    assert there.status_code == httpx.codes.OK


def _is_run(port: int, flow: str, auth: tuple[str, str] = _AUTH) -> bool:
    """Ask for a run of a central flow; return whether one completes: that, or its schedule's, if it was in its way."""
    deadline = time.monotonic() + _FLOW_SECONDS
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", auth=auth, timeout=30) as client:
        deployment = client.get(f"/deployments/name/{flow}/central").raise_for_status().json()["id"]
        client.post(f"/deployments/{deployment}/create_flow_run", json={}).raise_for_status()
        wanted = {
            "deployments": {"id": {"any_": [deployment]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        }
        while time.monotonic() < deadline:
            if client.post("/flow_runs/filter", json=wanted).raise_for_status().json():
                return True
            time.sleep(0.5)
    return False


def _is_run_by_event(port: int) -> bool:
    """Tell one API process that a group has changed; return whether the services made a run of it."""
    group = f"group-{time.monotonic_ns()}"
    event = {
        "occurred": datetime.now(UTC).isoformat(),
        "event": "harbor-satellite.group.changed",
        "resource": {"prefect.resource.id": f"harbor-satellite.group.{group}"},
        "payload": {"group": group},
        "id": str(uuid.uuid4()),
    }
    wanted = {"flows": {"name": {"any_": ["publish-state"]}}, "limit": 200}
    deadline = time.monotonic() + _FLOW_SECONDS
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", auth=_AUTH, timeout=30) as client:
        client.post("/events", json=[event]).raise_for_status()
        while time.monotonic() < deadline:
            runs = client.post("/flow_runs/filter", json=wanted).raise_for_status().json()
            if any(run["parameters"].get("group") == group for run in runs):
                return True
            time.sleep(0.5)
    return False
