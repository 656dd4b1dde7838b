from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from deployments.central import (
    CENTRAL_POOL,
    PROVISION_SATELLITE,
    PUBLISH_STATE,
    RECONCILE_FLEET,
    ROLL_OUT,
    ROTATE_CREDENTIALS,
    WATCH_FLEET,
)
from deployments.edge import (
    SATELLITE_TAG,
    audit_deployment,
    replicate_deployment,
    satellite_deployments,
    weekly_cron,
)
from deployments.spec import PULL_STEPS
from harbor_satellite import central_service
from harbor_satellite.ground_control import outbox
from harbor_satellite.project import project_dir
from harbor_satellite.state.names import satellite_name, work_pool_name
from harbor_satellite.state.plan import Copy
from tasks.tables import TASKS_PER_RUN, artifact_key, batches
from tests.unit.state.builders import D1

PROJECT: dict[str, Any] = yaml.safe_load((project_dir() / "prefect.yaml").read_text())
DEPLOYMENTS: list[dict[str, Any]] = PROJECT["deployments"]
CRON_FIELD = re.compile(r"(\*|\d+(-\d+)?)(/\d+)?(,\d+)*")


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda item: item["entrypoint"])
def test_prefect_yaml_entrypoint_exists(deployment: dict[str, Any]) -> None:
    path, _, function = deployment["entrypoint"].partition(":")

    assert f"def {function}(" in (project_dir() / path).read_text()


@pytest.mark.parametrize(
    "deployment",
    # What provision-satellite does for one satellite, reconcile-fleet does for all of them.
    [item for item in DEPLOYMENTS if "provision_satellite" not in item["entrypoint"]],
    ids=lambda item: item["entrypoint"],
)
def test_prefect_yaml_has_a_schedule_that_needs_no_event(deployment: dict[str, Any]) -> None:
    (schedule,) = deployment["schedules"]

    fields = schedule["cron"].split()
    assert len(fields) == 5
    assert all(CRON_FIELD.fullmatch(field) for field in fields)
    assert schedule["timezone"] == "UTC"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda item: item["entrypoint"])
def test_prefect_yaml_pool_and_pull_steps_are_those_of_the_code(deployment: dict[str, Any]) -> None:
    assert deployment["work_pool"]["name"] == CENTRAL_POOL == central_service.CENTRAL_POOL
    assert deployment["pull"] == list(PULL_STEPS)


def test_prefect_yaml_deployments_have_the_names_that_code_uses() -> None:
    names = {f"{item['entrypoint'].partition(':')[2].replace('_', '-')}/{item['name']}" for item in DEPLOYMENTS}

    assert names == {
        PUBLISH_STATE,
        PROVISION_SATELLITE,
        RECONCILE_FLEET,
        ROLL_OUT,
        ROTATE_CREDENTIALS,
        WATCH_FLEET,
    }


def test_prefect_yaml_runs_that_do_all_there_is_to_do_never_pile_up() -> None:
    limited = {item["entrypoint"].rpartition(":")[2]: item.get("concurrency_limit") for item in DEPLOYMENTS}

    one = {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert limited == {
        "publish_state": None,  # each run has its group
        "provision_satellite": None,  # each run has its satellite
        "reconcile_fleet": one,
        "roll_out": one,
        "rotate_credentials": one,
        "watch_fleet": one,
    }


def test_prefect_yaml_every_event_of_the_outbox_starts_something() -> None:
    expected = [event for item in DEPLOYMENTS for trigger in item.get("triggers", ()) for event in trigger["expect"]]

    assert sorted(expected) == sorted(
        [outbox.GROUP_CHANGED, outbox.CONFIG_CHANGED, outbox.FLEET_CHANGED, outbox.ROLLOUT_CHANGED]
    )


def test_prefect_yaml_holds_no_address_and_no_secret() -> None:
    text = (project_dir() / "prefect.yaml").read_text()

    assert "{{ $" not in text
    assert not re.search(r"https?://|password|secret|token", text, re.IGNORECASE)


def test_replicate_deployment_of_a_satellite() -> None:
    name = satellite_name("shop-17")

    spec = replicate_deployment(name, "*/5 * * * *")

    assert (spec.flow, spec.name, spec.work_pool) == ("replicate-state", "shop-17", work_pool_name(name))
    assert spec.parameters == {"satellite": "shop-17"}
    assert spec.tags == ("harbor-satellite", f"{SATELLITE_TAG}shop-17")
    assert spec.concurrency_limit == 1


def test_audit_deployment_of_a_satellite_runs_beside_its_replication() -> None:
    name = satellite_name("shop-17")

    spec = audit_deployment(name)

    assert (spec.flow, spec.name, spec.work_pool) == ("audit-registry", "shop-17", work_pool_name(name))
    assert spec.parameters == {"satellite": "shop-17"}
    assert spec.concurrency_limit == 1
    path, _, function = spec.entrypoint.partition(":")
    assert f"def {function}(" in (project_dir() / path).read_text()


def test_satellite_deployments_are_one_of_each_flow() -> None:
    specs = satellite_deployments(satellite_name("shop-17"), "*/5 * * * *")

    assert [spec.flow for spec in specs] == ["replicate-state", "audit-registry", "configure-host"]
    assert [bool(spec.cron) for spec in specs] == [True, True, False]
    assert specs[0].cron == "*/5 * * * *"


def test_weekly_cron_is_the_same_each_time_and_spread_over_a_fleet() -> None:
    crons = [weekly_cron(satellite_name(f"shop-{number}")) for number in range(2000)]

    assert crons == [weekly_cron(satellite_name(f"shop-{number}")) for number in range(2000)]
    fields = [cron.split() for cron in crons]
    assert all(
        0 <= int(minute) < 60 and 0 <= int(hour) < 24 and 0 <= int(day) < 7 for minute, hour, _, _, day in fields
    )
    assert all((day_of_month, month) == ("*", "*") for _, _, day_of_month, month, _ in fields)
    assert max(crons.count(cron) for cron in set(crons)) <= 5
    assert {field[4] for field in fields} == set("0123456")


@pytest.mark.parametrize("count", [0, 1, TASKS_PER_RUN, TASKS_PER_RUN + 1, 10 * TASKS_PER_RUN])
def test_batches_hold_every_copy_once(count: int) -> None:
    copies = tuple(Copy(f"acme/a{number}", D1, ("v1",), False, "", (), None, "") for number in range(count))

    cut = batches(copies)

    assert len(cut) <= TASKS_PER_RUN
    assert sorted(str(copy) for _, part in cut for copy in part) == sorted(map(str, copies))
    assert all(part for _, part in cut)


def test_artifact_key_is_what_prefect_takes() -> None:
    assert re.fullmatch(r"[a-z0-9-]+", artifact_key("shop_17.berlin"))


def test_artifact_key_differs_for_different_satellites() -> None:
    assert len({artifact_key(name) for name in ("shop.1", "shop_1", "shop-1")}) == 3
