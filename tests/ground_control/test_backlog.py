"""Runs that pile up for a site that is away: what is handed out when it is back, and what is closed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from harbor_satellite.ground_control.fleet.waiting_runs import Maker, WaitingRun, maker_of, superseded
from tests.ground_control.test_gateway import AUTH, MINE, POLL, World, due_in, poll_body

if TYPE_CHECKING:
    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.gateway.app import Gateway

NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)


def runs(*made: tuple[str, str, Maker, float]) -> list[WaitingRun]:
    return [WaitingRun(one, deployment, maker, NOW + timedelta(hours=hours)) for one, deployment, maker, hours in made]


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        ([("a", "x", "schedule", -3), ("c", "x", "schedule", -1), ("b", "x", "schedule", -2)], ("a", "b")),
        ([("a", "x", "schedule", -1), ("b", "x", "schedule", 1)], ()),
        ([("a", "x", "schedule", -2), ("b", "y", "schedule", -1)], ()),
        ([("a", "x", "event", -3), ("b", "x", "event", -2), ("c", "x", "schedule", -1)], ("a",)),
        ([("a", "x", "person", -3), ("b", "x", "person", -2), ("c", "x", "schedule", -1)], ()),
        ([], ()),
    ],
    ids=["a schedule's", "one to come", "two deployments", "events beside a schedule", "people's", "none"],
)
def test_superseded_is_all_but_the_newest_due(
    waiting: list[tuple[str, str, Maker, float]], expected: tuple[str, ...]
) -> None:
    assert superseded(runs(*waiting), NOW) == expected


@pytest.mark.parametrize(
    ("is_auto_scheduled", "created_by", "expected"),
    [
        (True, "SCHEDULE", "schedule"),
        (False, "AUTOMATION", "event"),
        (False, None, "person"),
        (False, "USER", "person"),
    ],
    ids=["by its schedule", "by an automation", "by hand", "by a user"],
)
def test_maker_of_a_run(*, is_auto_scheduled: bool, created_by: str | None, expected: str) -> None:
    assert maker_of(is_auto_scheduled=is_auto_scheduled, created_by=created_by) == expected


# -- at the gateway


class Backlog:
    """A Prefect that hands out what waits, and closes what it is told to."""

    def __init__(self, world: World) -> None:
        self.waiting: list[dict[str, Any]] = []
        self.closed: list[str] = []
        self.states: list[dict[str, Any]] = []
        self.refuses = False
        self._fallback = world.prefect.__call__
        world.prefect.due = [due_in(MINE, -1)]

    def add(self, one: str, minutes: float, **values: Any) -> None:
        due = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
        run = {"id": one, "deployment_id": "d", "next_scheduled_start_time": due, "auto_scheduled": True, **values}
        self.waiting.append({"work_pool_id": "p", "flow_run": run})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/get_scheduled_flow_runs"):
            return httpx.Response(200, json=self.waiting)
        if request.url.path.endswith("/bulk_set_state"):
            if self.refuses:
                return httpx.Response(503)
            body = json.loads(request.content)
            assert body["flow_runs"]["state"] == {"type": {"any_": ["SCHEDULED"]}}
            assert len(body["flow_runs"]["id"]["any_"]) <= 50
            self.closed += body["flow_runs"]["id"]["any_"]
            self.states.append(body["state"])
            return httpx.Response(200, json={"results": []})
        return self._fallback(request)


@pytest.fixture
def backlog(session_factory: SessionFactory) -> tuple[World, Backlog]:
    world = World(session_factory)
    backlog = Backlog(world)
    world.prefect = backlog  # type: ignore[assignment]  # which asks the other one for the rest
    return world, backlog


def handed_out(world: World) -> list[str]:
    answer = world.ask("POST", POLL, json=poll_body())
    assert answer.status_code == 200
    return [item["flow_run"]["id"] for item in answer.json()]


def test_poll_after_weeks_gets_one_run_of_the_schedule_and_the_others_are_closed(
    backlog: tuple[World, Backlog],
) -> None:
    world, prefect = backlog
    for number in range(120):
        prefect.add(f"late-{number}", minutes=number)
    prefect.add("by-hand", minutes=500, auto_scheduled=False)
    prefect.add("of-an-event", minutes=501, auto_scheduled=False, created_by={"type": "AUTOMATION"})
    prefect.add("to-come", minutes=-1)

    assert handed_out(world) == ["late-0", "by-hand", "of-an-event", "to-come"]
    assert set(prefect.closed) == {f"late-{number}" for number in range(1, 120)}
    assert {(state["type"], state["message"].partition(":")[0]) for state in prefect.states} == {
        ("CANCELLED", "superseded")
    }


def test_poll_gets_one_run_even_if_the_others_cannot_be_closed_now(backlog: tuple[World, Backlog]) -> None:
    world, prefect = backlog
    prefect.refuses = True
    prefect.add("older", minutes=2)
    prefect.add("newer", minutes=1)

    assert handed_out(world) == ["newer"]


def test_poll_without_backlog_is_handed_through_as_it_is(backlog: tuple[World, Backlog]) -> None:
    world, prefect = backlog
    prefect.add("one", minutes=1)
    prefect.waiting.append({"flow_run": {"id": "strange"}})

    assert handed_out(world) == ["one", "strange"]
    assert prefect.closed == []


# -- a run that an event makes


def test_poll_after_an_event_is_not_told_by_an_older_look_that_nothing_is_due(session_factory: SessionFactory) -> None:
    world = World(session_factory)

    async def polls(client: httpx.AsyncClient, gateway: Gateway) -> list[str]:
        await client.post(POLL, json=poll_body(), auth=AUTH)
        gateway.expect_run("mine")
        world.monotonic += 1.0  # the look is fresh still
        await client.post(POLL, json=poll_body(), auth=AUTH)
        world.monotonic += 40.0
        await client.post(POLL, json=poll_body(), auth=AUTH)
        return world.prefect.paths()

    assert world.run(polls) == ["/flow_runs/filter", POLL, "/flow_runs/filter"]


def test_expected_run_of_one_satellite_costs_no_call_for_another(session_factory: SessionFactory) -> None:
    world = World(session_factory)

    async def polls(client: httpx.AsyncClient, gateway: Gateway) -> list[str]:
        gateway.expect_run("other")
        await client.post(POLL, json=poll_body(), auth=AUTH)
        return world.prefect.paths()

    assert world.run(polls) == ["/flow_runs/filter"]
