"""A real Prefect server: what the pinned versions must keep doing, since some of it fails in silence."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from harbor_satellite.central_service import prefect_environment, start_prefect_server
from harbor_satellite.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.prefect_server
CRON_DEPLOYMENTS = 5  # all but provision-satellite


@pytest.fixture(scope="module")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prefect")
    port = free_port()
    api_url = f"http://127.0.0.1:{port}/api"
    server = start_prefect_server(folder, port)
    try:
        server.wait_for(f"{api_url}/health", 90)
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
    ]


def test_cron_deployments_get_flow_runs(prefect_api: str) -> None:
    deadline = time.monotonic() + 90
    scheduled: set[str] = set()
    while len(scheduled) < CRON_DEPLOYMENTS and time.monotonic() < deadline:
        runs = post(f"{prefect_api}/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}})
        scheduled |= {run["deployment_id"] for run in runs}
        time.sleep(0.5)

    assert len(scheduled) == CRON_DEPLOYMENTS


def test_event_starts_the_flow_with_the_group_it_names(prefect_api: str) -> None:
    event = {
        "event": "harbor-satellite.group.changed",
        "resource": {"prefect.resource.id": "harbor-satellite.group.shops"},
        "payload": {"group": "shops"},
        "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "id": "6d2f0f5e-5f0c-4d6e-9b59-7f5b7d0c1a11",
        "related": [],
    }
    httpx.post(f"{prefect_api}/events", json=[event], timeout=30).raise_for_status()

    deadline = time.monotonic() + 60
    parameters: list[dict[str, Any]] = []
    while {"group": "shops"} not in parameters and time.monotonic() < deadline:
        parameters = [run["parameters"] for run in post(f"{prefect_api}/flow_runs/filter", {})]
        time.sleep(0.5)

    assert {"group": "shops"} in parameters
