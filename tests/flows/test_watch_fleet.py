"""watch-fleet against a real Prefect: lost runs are ended with the reason, old ones deleted, others left alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Pending, Running, Scheduled
from sqlalchemy import select, update

from flows.watch_fleet import watch_fleet
from harbor_satellite.ground_control.models import Satellite
from tasks.centre import open_centre
from tasks.watch import close_runs, delete_runs, end_runs

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import State

    from tests.flows.conftest import World

TAGS = ["harbor-satellite"]


def make_run(client: SyncPrefectClient, satellite: str, state: State[Any]) -> UUID:
    """Make a run of a satellite that is in a state since now."""
    pool = f"satellite-{satellite}"
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    flow_id = client.create_flow_from_name("replicate-state")
    tags = [*TAGS, f"satellite:{satellite}"]
    deployment = client.create_deployment(flow_id, satellite, work_pool_name=pool, tags=tags)
    run = client.create_flow_run_from_deployment(deployment, name=f"replicate-state {satellite}")
    client.set_flow_run_state(run.id, state, force=True)
    return run.id


def make_alive(world: World, name: str, seen: datetime) -> None:
    """Register a satellite that was last seen at a moment."""
    auth = world.ground_control.enroll(name)
    assert world.ground_control.report(name, auth).status_code == 200
    with world.ground_control.factory.begin() as session:
        session.execute(update(Satellite).where(Satellite.name == name).values(last_seen=seen))


def test_end_runs_ends_what_is_lost_and_leaves_what_lives(world: World) -> None:
    later = datetime.now(UTC) + timedelta(hours=2)
    make_alive(world, "alive", later)
    make_alive(world, "silent", datetime.now(UTC))

    with get_client(sync_client=True) as client, open_centre() as centre:
        alive = make_run(client, "alive", Running())
        silent = make_run(client, "silent", Running())
        stuck = make_run(client, "alive", Pending())
        gone = make_run(client, "deleted-one", Running())
        end_runs(client, centre, later)
        found = {run: client.read_flow_run(run).state for run in (alive, silent, stuck, gone)}

    types = {run: state.type if state else None for run, state in found.items()}
    assert types == {
        alive: StateType.RUNNING,
        silent: StateType.CRASHED,
        stuck: StateType.CRASHED,
        gone: StateType.CANCELLED,
    }
    assert "never begun" in ((found[stuck] or Running()).message or "")


def test_delete_runs_takes_what_ended_before_a_moment_only(world: World) -> None:
    make_alive(world, "edge-1", datetime.now(UTC))

    with get_client(sync_client=True) as client:
        ended = make_run(client, "edge-1", Completed())
        running = make_run(client, "edge-1", Running())
        too_young = delete_runs(client, datetime.now(UTC) - timedelta(days=7))
        old_enough = delete_runs(client, datetime.now(UTC) + timedelta(minutes=1))
        left = [run.id for run in client.read_flow_runs() if run.id in {ended, running}]

    assert (too_young, left) == (0, [running])
    assert old_enough >= 1


def test_close_runs_leaves_the_newest_due_run_of_a_schedule_and_what_people_asked_for(world: World) -> None:
    make_alive(world, "edge-2", datetime.now(UTC))
    now = datetime.now(UTC)

    with get_client(sync_client=True) as client:
        by_hand = make_run(client, "edge-2", Scheduled(scheduled_time=now - timedelta(minutes=4)))
        deployment = client.read_deployment_by_name("replicate-state/edge-2").id
        client.create_deployment_schedules(
            deployment, [DeploymentScheduleCreate(schedule=CronSchedule(cron="* * * * *"))]
        )
        window = {"start_time": now - timedelta(minutes=4), "end_time": now + timedelta(minutes=2)}
        body = {key: moment.isoformat() for key, moment in window.items()}
        client.request("POST", "/deployments/{id}/schedule", json=body, path_params={"id": deployment})
        closed = [close_runs(client, now), close_runs(client, now)]
        mine = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
        runs = client.read_flow_runs(flow_run_filter=mine)

    waiting = [run for run in runs if run.state and run.state.type is StateType.SCHEDULED]
    due = [run for run in waiting if run.auto_scheduled and (run.next_scheduled_start_time or now) <= now]
    assert closed == [3, 0]
    assert [run.id for run in waiting if not run.auto_scheduled] == [by_hand]
    assert len(due) == 1
    assert now - (due[0].next_scheduled_start_time or now) <= timedelta(minutes=1)
    ended = [run.state for run in runs if run.state and run.state.type is StateType.CANCELLED]
    assert [(state.message or "").partition(":")[0] for state in ended] == ["superseded"] * 3


def test_watch_fleet_marks_who_went_silent_and_says_what_it_did(world: World) -> None:
    make_alive(world, "alive", datetime.now(UTC))
    make_alive(world, "silent", datetime.now(UTC) - timedelta(hours=3))

    state = watch_fleet(return_state=True)

    assert state.is_completed()
    assert (state.message or "").startswith("1 went silent")
    with world.ground_control.factory() as session:
        lifecycles = {row.name: row.lifecycle for row in session.scalars(select(Satellite))}
    assert lifecycles == {"alive": "active", "silent": "stale"}
