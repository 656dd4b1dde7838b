"""The edge worker against a real Prefect API: what it does about runs that were lost."""

from __future__ import annotations

import anyio
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Running

from harbor_satellite.edge.worker import settle_lost_runs, wait_for_pool
from harbor_satellite.state.names import WORKER_TYPE


@flow(name="interrupted")
def interrupted() -> None:
    """Stand for a flow whose worker was killed."""


def lost_run(pool: str) -> str:
    """Make a run that is Running in the pool, with nobody who runs it; return its id."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=pool, type=WORKER_TYPE))
        deployment = client.create_deployment(client.create_flow(interrupted), pool, work_pool_name=pool)
        run = client.create_flow_run_from_deployment(deployment)
        client.set_flow_run_state(run.id, Running(), force=True)
    return str(run.id)


def state_of(run: str) -> str:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
    return state.type.value if state else ""


def test_settle_lost_runs_marks_its_own_and_no_others(prefect_server: None) -> None:
    mine, other = lost_run("satellite-mine"), lost_run("satellite-other")

    anyio.run(settle_lost_runs, "satellite-mine")

    assert (state_of(mine), state_of(other)) == ("CRASHED", "RUNNING")


def test_wait_for_pool_returns_once_it_is_there_and_not_before(prefect_server: None) -> None:
    async def outcome() -> bool:
        with anyio.move_on_after(2.0) as scope:
            await wait_for_pool("satellite-late", 0.1)
        return scope.cancelled_caught

    gave_up_before = anyio.run(outcome)
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="satellite-late", type=WORKER_TYPE))
    gave_up_after = anyio.run(outcome)

    assert (gave_up_before, gave_up_after) == (True, False)
