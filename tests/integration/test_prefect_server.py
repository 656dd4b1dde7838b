"""A real Prefect server: what the pinned versions must keep doing, since some of it fails in silence."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import update

from harbor_satellite.central_service import prefect_environment, start_prefect_server
from harbor_satellite.ground_control.api.context import GATEWAY_PATH, AppOptions
from harbor_satellite.ground_control.database import make_engine, make_session_factory, migrate
from harbor_satellite.ground_control.fleet.waiting_runs import SUPERSEDED
from harbor_satellite.ground_control.models import Satellite
from harbor_satellite.ground_control.people import users
from harbor_satellite.ground_control.satellites import satellite_states
from harbor_satellite.ground_control.satellites.sources import OciSource
from tests.fixtures_ground_control import ADMIN_PASSWORD, SOURCE_URL, _fresh, running_ground_control
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fixtures_ground_control import GroundControl

pytestmark = [pytest.mark.prefect_server, pytest.mark.timeout(400)]  # the first test waits for the server to start
CRON_DEPLOYMENTS = 5  # all but provision-satellite


@pytest.fixture(scope="module")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prefect")
    port = free_port()
    api_url = f"http://127.0.0.1:{port}/api"
    server = start_prefect_server(folder, port)
    try:
        server.wait_for(f"{api_url}/health", 240)
        environment = {**os.environ, **prefect_environment(folder), "PREFECT_API_URL": api_url}
        deploy = [sys.executable, "-c", "from harbor_satellite.cli import main; main()", "ground-control", "deploy"]
        for _ in range(2):  # twice: what is there is changed, not doubled
            done = subprocess.run(deploy, env=environment, capture_output=True, text=True, check=False, timeout=120)
            assert done.returncode == 0, done.stderr
        yield api_url
    finally:
        server.stop()


def post(url: str, body: dict[str, Any]) -> Any:
    answer = httpx.post(url, json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


def test_deploy_makes_each_central_deployment_once(prefect_api: str) -> None:
    deployments = post(f"{prefect_api}/deployments/filter", {})

    assert sorted((item["name"], item["work_pool_name"], item["entrypoint"]) for item in deployments) == [
        ("central", "central", "flows/provision_satellite.py:provision_satellite"),
        ("central", "central", "flows/publish_state.py:publish_state"),
        ("central", "central", "flows/reconcile_fleet.py:reconcile_fleet"),
        ("central", "central", "flows/roll_out.py:roll_out"),
        ("central", "central", "flows/rotate_credentials.py:rotate_credentials"),
        ("central", "central", "flows/watch_fleet.py:watch_fleet"),
    ]


def test_deploy_makes_each_automation_once(prefect_api: str) -> None:
    automations = post(f"{prefect_api}/automations/filter", {})

    expected = [automation["trigger"]["expect"] for automation in automations]
    assert sorted(expected) == [
        ["harbor-satellite.config.changed"],
        ["harbor-satellite.fleet.changed"],
        ["harbor-satellite.group.changed"],
        ["harbor-satellite.rollout.changed"],
        ["harbor-satellite.satellite.changed"],
    ]


def test_cron_deployments_get_flow_runs(prefect_api: str) -> None:
    deadline = time.monotonic() + 90
    scheduled: set[str] = set()
    while len(scheduled) < CRON_DEPLOYMENTS and time.monotonic() < deadline:
        runs = post(f"{prefect_api}/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}})
        scheduled |= {run["deployment_id"] for run in runs}
        time.sleep(0.5)

    assert len(scheduled) == CRON_DEPLOYMENTS


@pytest.mark.parametrize(
    ("kind", "payload"), [("group", {"group": "shops"}), ("rollout", {"rollout_id": 17})], ids=["group", "rollout"]
)
def test_event_starts_the_flow_with_what_it_names(prefect_api: str, kind: str, payload: dict[str, Any]) -> None:
    event = {
        "event": f"harbor-satellite.{kind}.changed",
        "resource": {"prefect.resource.id": f"harbor-satellite.{kind}.17"},
        "payload": payload,
        "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "id": str(uuid4()),
        "related": [],
    }
    httpx.post(f"{prefect_api}/events", json=[event], timeout=30).raise_for_status()

    deadline = time.monotonic() + 60
    parameters: list[dict[str, Any]] = []
    while payload not in parameters and time.monotonic() < deadline:
        parameters = [run["parameters"] for run in post(f"{prefect_api}/flow_runs/filter", {})]
        time.sleep(0.5)

    assert payload in parameters


@pytest.fixture
def ground_control(prefect_api: str, tmp_path: Path) -> Iterator[GroundControl]:
    database = f"sqlite:///{tmp_path / 'ground-control.sqlite'}"
    migrate(database)
    engine = make_engine(database)
    factory = make_session_factory(engine)
    with factory.begin() as session:
        users.ensure_first_user(session, SecretStr(ADMIN_PASSWORD), datetime.now(UTC))
    options = AppOptions(source_url=SOURCE_URL, prefect_api_internal_url=prefect_api)
    with running_ground_control(factory, OciSource(), options) as running:
        yield _fresh(running)
    engine.dispose()


def deploy_satellite(prefect_api: str, name: str) -> str:
    """Make what provision-satellite makes, but for a schedule; gives the deployment's id."""
    post(f"{prefect_api}/work_pools/", {"name": f"satellite-{name}", "type": "harbor-satellite"})
    flow = post(f"{prefect_api}/flows/", {"name": "replicate-state"})["id"]
    body = {"name": name, "flow_id": flow, "work_pool_name": f"satellite-{name}", "parameters": {"satellite": name}}
    return str(
        post(f"{prefect_api}/deployments/", {**body, "entrypoint": "flows/replicate_state.py:replicate_state"})["id"]
    )


def publish(running: GroundControl, name: str) -> None:
    with running.factory.begin() as session:
        session.execute(update(Satellite).where(Satellite.name == name).values(state_digest="sha256:" + "a" * 64))
        assert satellite_states.ask_for_runs(session, [name], datetime.now(UTC)) == 1


def poll(running: GroundControl, name: str, auth: tuple[str, str]) -> list[dict[str, Any]]:
    """Ask for work as the site's worker does."""
    path = f"{GATEWAY_PATH}/work_pools/satellite-{name}/get_scheduled_flow_runs"
    body = {"scheduled_before": (datetime.now(UTC) + timedelta(seconds=10)).isoformat(), "work_queue_names": []}
    answer = running.anonymous.post(path, json=body, auth=auth)
    assert answer.status_code == 200, answer.text
    return [item["flow_run"] for item in answer.json()]


def wait_for(look: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found, f"not within {seconds} s"
    return found


def test_what_is_published_is_at_the_next_poll_without_a_schedule_and_only_once(
    prefect_api: str, ground_control: GroundControl, record_property: Callable[[str, object], None]
) -> None:
    name = "van-1"
    auth = ground_control.enroll(name)
    deployment = deploy_satellite(prefect_api, name)
    mine = {"flow_runs": {"deployment_id": {"any_": [deployment]}}}
    assert poll(ground_control, name, auth) == []  # by a look that is fresh still when the event comes
    began = time.monotonic()

    publish(ground_control, name)
    (first,) = wait_for(lambda: poll(ground_control, name, auth), 60)
    seconds = time.monotonic() - began
    publish(ground_control, name)
    both = wait_for(lambda: len(found := post(f"{prefect_api}/flow_runs/filter", mine)) == 2 and found, 60)
    handed_out = poll(ground_control, name, auth)
    after = {run["id"]: run["state"] for run in post(f"{prefect_api}/flow_runs/filter", mine)}

    record_property("seconds_from_publication_to_poll", round(seconds, 2))
    assert (first["parameters"], first["created_by"]["type"]) == ({"satellite": name}, "AUTOMATION")
    (second,) = (run for run in both if run["id"] != first["id"])
    assert [run["id"] for run in handed_out] == [second["id"]]
    assert (after[first["id"]]["type"], after[first["id"]]["message"]) == ("CANCELLED", SUPERSEDED)
    assert after[second["id"]]["type"] == "SCHEDULED"
