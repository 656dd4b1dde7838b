"""At a Harbor: what a satellite's robot account may pull is what all of its groups need."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.acceptance.centre import artifact

if TYPE_CHECKING:
    from tests.acceptance.centre import Centre, HarborCentre

_RUN_SECONDS = 90.0
_PUBLISH = (
    "from harbor_satellite.project import enter; enter(); "
    "from flows.publish_state import publish_state; print(publish_state(return_state=True))"
)


@pytest.mark.acceptance("A18")
def test_robot_may_pull_the_union_of_its_groups_projects(harbor_centre: HarborCentre, name: str) -> None:
    tills, kiosks = f"{name}-tills", f"{name}-kiosks"
    _put_group(harbor_centre, tills, "tills")
    _put_group(harbor_centre, kiosks, "kiosks")

    _claim(harbor_centre, name, [tills, kiosks])

    assert _may_pull_from(harbor_centre, name) == {"satellite", "tills", "kiosks"}


@pytest.mark.acceptance("A18")
def test_change_of_one_group_leaves_the_robot_the_projects_of_the_others(
    harbor_centre: HarborCentre, centre: Centre, name: str
) -> None:
    tills, kiosks = f"{name}-tills", f"{name}-kiosks"
    _put_group(harbor_centre, tills, "tills")
    _put_group(harbor_centre, kiosks, "kiosks")
    _claim(harbor_centre, name, [tills, kiosks])

    _put_group(harbor_centre, kiosks, "scanners")
    _publish(harbor_centre, centre)

    assert _may_pull_from(harbor_centre, name) == {"satellite", "tills", "scanners"}


@pytest.mark.acceptance("A18")
def test_robot_that_is_gone_holds_up_no_other_satellite(harbor_centre: HarborCentre, centre: Centre, name: str) -> None:
    group, first, second = f"{name}-group", f"{name}-1", f"{name}-2"
    _put_group(harbor_centre, group, "tills")
    for satellite in (first, second):
        _claim(harbor_centre, satellite, [group])
    harbor_centre.delete_robot(first)

    _put_group(harbor_centre, group, "scanners")
    _publish(harbor_centre, centre)

    assert _may_pull_from(harbor_centre, second) == {"satellite", "scanners"}


def _put_group(harbor_centre: HarborCentre, group: str, project: str) -> None:
    body = {"group": group, "registry": harbor_centre.harbor_url, "artifacts": [artifact(f"{project}/app:v1")]}
    assert harbor_centre.api.post("/api/groups/sync", json=body).status_code == 200


def _claim(harbor_centre: HarborCentre, name: str, groups: list[str]) -> None:
    token = harbor_centre.api.post("/api/satellites", json={"name": name, "groups": groups}).json()["token"]
    answer = httpx.get(f"{harbor_centre.url}/satellites/ztr/{token}", trust_env=False)
    assert (answer.status_code, answer.json()["auth"]["username"]) == (200, f"robot${name}")


def _publish(harbor_centre: HarborCentre, centre: Centre) -> None:
    """Run the central flow as a worker of that centre would."""
    environment = {**os.environ, **harbor_centre.environment, "PREFECT_API_URL": centre.prefect_url}
    command = [sys.executable, "-c", _PUBLISH]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False)
    assert done.returncode == 0, done.stderr


def _may_pull_from(harbor_centre: HarborCentre, name: str) -> set[str]:
    (robot,) = [robot for robot in harbor_centre.robots() if robot["name"] == f"robot${name}"]
    return {permission["namespace"] for permission in robot["permissions"] if _has_pull(permission)}


def _has_pull(permission: dict[str, Any]) -> bool:
    return permission["kind"] == "project" and {"resource": "repository", "action": "pull"} in permission["access"]
