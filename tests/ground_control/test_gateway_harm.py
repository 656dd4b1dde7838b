"""The gateway before a satellite that means harm: what it does is its own harm, and no other's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.ground_control.test_gateway import AUTH, MINE, OTHERS, POLL, RUN, World, due_in, poll_body, task_event

if TYPE_CHECKING:
    import httpx

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.gateway.app import Gateway


@pytest.fixture
def world(session_factory: SessionFactory) -> World:
    return World(session_factory)


def test_template_of_a_pool_is_not_given_to_prefect_which_would_search_for_its_patterns(world: World) -> None:
    template = {"variables": {"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}}

    answer = world.ask("PATCH", f"/work_pools/{MINE}", json={"base_job_template": template})

    assert (answer.status_code, world.prefect.requests) == (204, [])


def test_site_that_asks_far_ahead_sends_no_others_to_prefect(world: World) -> None:
    world.prefect.due = [due_in(f"satellite-{number}", number / 4) for number in range(160 * 60 + 200)]

    async def both(client: httpx.AsyncClient, _: Gateway) -> None:
        other = f"/work_pools/{OTHERS}/get_scheduled_flow_runs"
        await client.post(other, json=poll_body(3600), auth=("robot-other", "secret-of-other"))
        await client.post(POLL, json=poll_body(60), auth=AUTH)

    world.run(both)

    assert world.prefect.paths()[-1] == f"/work_pools/{OTHERS}/get_scheduled_flow_runs"


def test_runs_inside_runs_are_not_looked_through(world: World) -> None:
    world.ask("POST", POLL, json=poll_body())

    asked = json.loads(world.prefect.requests[0].content)
    assert asked["flow_runs"]["deployment_id"] == {"is_null_": False}


def test_satellite_that_calls_without_end_is_slowed_down_and_no_other(world: World) -> None:
    async def flood(client: httpx.AsyncClient, _: Gateway) -> tuple[int, int]:
        statuses = [(await client.get("/health", auth=AUTH)).status_code for _ in range(1001)]
        other = await client.get("/health", auth=("robot-other", "secret-of-other"))
        return statuses[-1], other.status_code

    assert world.run(flood) == (429, 200)


def test_events_that_name_too_many_ids_cost_prefect_no_more_looks_than_one_request_may(world: World) -> None:
    events = [task_event(f"22222222-2222-4222-8222-{number:012d}", RUN) for number in range(100)]
    for number, event in enumerate(events):
        event["related"] += [
            {"prefect.resource.id": f"prefect.task-run.77777777-7777-4777-8777-{number * 40 + one:012d}"}
            for one in range(40)
        ]

    world.ask("POST", "/events", json=events)

    assert len(world.prefect.requests) <= 202


def test_dropped_events_are_one_line_of_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.ask("POST", "/events", json=["nonsense"] * 100)

    assert caplog.text.count("events dropped") == 1


def test_pool_that_is_absent_is_asked_for_once_in_a_while(world: World) -> None:
    world.prefect.documents.pop(f"/work_pools/{MINE}")

    async def again(client: httpx.AsyncClient, _: Gateway) -> list[int]:
        before = [(await client.get(f"/work_pools/{MINE}", auth=AUTH)).status_code for _ in range(10)]
        world.prefect.documents[f"/work_pools/{MINE}"] = {"id": RUN, "name": MINE}
        world.monotonic += 5.1
        return [*before, (await client.get(f"/work_pools/{MINE}", auth=AUTH)).status_code]

    assert world.run(again) == [404] * 10 + [200]
    assert len(world.prefect.requests) == 2
