"""Tasks that keep Prefect truthful about the fleet: lost and needless runs are ended, old ones deleted."""

from __future__ import annotations

import contextlib
import itertools
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterEndTime,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterParentTaskRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import (
    EventAnyResourceFilter,
    EventFilter,
    EventNameFilter,
    EventOccurredFilter,
)
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Crashed

from deployments.edge import SATELLITE_TAG
from harbor_satellite.ground_control.fleet import watching
from harbor_satellite.ground_control.fleet.waiting_runs import SUPERSEDED, WaitingRun, maker_of, superseded
from harbor_satellite.ground_control.fleet.watching import RunFacts, verdict
from harbor_satellite.satellite.replication import utc_now
from tasks.policy import remote_task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun, State

    from harbor_satellite.ground_control.fleet.watching import SiteSigns, Verdict
    from tasks.centre import Centre

_LOG: Final = logging.getLogger(__name__)
_TIMEOUT_SECONDS: Final = 300.0
_TAG: Final = "harbor-satellite"
_PAGE: Final = 200
_PAGES: Final = 50  # of unfinished runs in one look; the oldest come first
_DELETED_AT_ONCE: Final = 1000  # runs; what is left goes the next time
_CLOSED_AT_ONCE: Final = 50  # in one request; Prefect's own most
_HEARTBEAT: Final = "prefect.flow-run.heartbeat"
_UNFINISHED: Final = FlowRunFilterState(
    type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
)
_SCHEDULED: Final = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))


@remote_task(name="mark-silent", timeout_seconds=_TIMEOUT_SECONDS)
def mark_silent(centre: Centre) -> tuple[str, ...]:
    """Note which sites have gone silent, and which are back; return the silent ones."""
    with centre.sessions.begin() as session:
        names = watching.mark_silent(session, utc_now())
    for name in names:
        get_run_logger().warning("site went silent satellite=%s", name)
    return names


@remote_task(name="end-lost-runs", timeout_seconds=_TIMEOUT_SECONDS)
def end_lost_runs(centre: Centre) -> int:
    """End the satellites' runs that Prefect takes for alive and that are none, with the reason; return how many."""
    with get_client(sync_client=True) as client:
        ended = end_runs(client, centre, utc_now())
    for run, found in ended:
        get_run_logger().warning("run ended name=%s state=%s reason=%s", run.name, found.state, found.reason)
    return len(ended)


@remote_task(name="close-superseded", timeout_seconds=_TIMEOUT_SECONDS)
def close_superseded(centre: Centre) -> int:
    """Cancel the runs that wait for sites behind newer ones of the same schedule or of events; return how many."""
    del centre  # what waits is known to Prefect alone
    with get_client(sync_client=True) as client:
        closed = close_runs(client, utc_now())
    if closed:
        get_run_logger().info("superseded runs closed count=%d", closed)
    return closed


@remote_task(name="prune-runs", timeout_seconds=_TIMEOUT_SECONDS)
def prune_runs(centre: Centre) -> int:
    """Delete the satellites' runs that ended long ago, their logs with them; return how many."""
    with get_client(sync_client=True) as client:
        return delete_runs(client, utc_now() - timedelta(days=centre.settings.run_retention_days))


@remote_task(name="prune-rows", timeout_seconds=_TIMEOUT_SECONDS)
def prune_rows(centre: Centre) -> dict[str, int]:
    """Delete rows of Ground Control that nobody needs; return how many of each kind."""
    with centre.sessions.begin() as session:
        return watching.prune_rows(session, utc_now(), timedelta(days=centre.settings.audit_retention_days))


def end_runs(client: SyncPrefectClient, centre: Centre, now: datetime) -> list[tuple[FlowRun, Verdict]]:
    """End the runs that are no more, and return them, each with its verdict."""
    ended = []
    for page in _unfinished(client):
        runs = {run.id: run for run in page if _satellite_of(run)}
        with centre.reading() as session:
            signs = watching.site_signs(session, {_satellite_of(run) for run in runs.values()}, now)
        for run, found in judge(runs.values(), signs, _heartbeats(client, runs, now), now):
            _end(client, run, found)
            ended.append((run, found))
    return ended


def close_runs(client: SyncPrefectClient, now: datetime) -> int:
    """Cancel the runs that newer ones supersede, and return how many; those that a worker has are left alone."""
    waiting = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[_TAG]),
        state=_SCHEDULED,
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),
        next_scheduled_start_time=FlowRunFilterNextScheduledStartTime.model_validate({"before_": now}),
    )
    found: list[FlowRun] = []
    # Read before any is closed: that would move the pages.
    for number in range(_PAGES):
        sort = FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC
        page = client.read_flow_runs(flow_run_filter=waiting, sort=sort, limit=_PAGE, offset=number * _PAGE)
        found += page
        if len(page) < _PAGE:
            break
    needless = superseded((_waiting(run, now) for run in found if _satellite_of(run)), now)
    for start in range(0, len(needless), _CLOSED_AT_ONCE):
        runs = {
            "id": {"any_": list(needless[start : start + _CLOSED_AT_ONCE])},
            "state": {"type": {"any_": ["SCHEDULED"]}},  # a run that was handed out meanwhile goes on
        }
        body = {"flow_runs": runs, "state": {"type": "CANCELLED", "message": SUPERSEDED}, "limit": _CLOSED_AT_ONCE}
        path = "/flow_runs/bulk_set_state"
        client.request("POST", path, json=body).raise_for_status()  # type: ignore[arg-type]  # newer than its list
    return len(needless)


def delete_runs(client: SyncPrefectClient, before: datetime) -> int:
    """Delete satellites' runs that ended before a moment, a bounded number at once; return how many."""
    old = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[_TAG]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=sorted(TERMINAL_STATES))),
        end_time=FlowRunFilterEndTime.model_validate({"before_": before}),
    )
    deleted = 0
    while deleted < _DELETED_AT_ONCE:
        page = client.read_flow_runs(flow_run_filter=old, sort=FlowRunSort.END_TIME_DESC, limit=_PAGE)
        for run in page:
            with contextlib.suppress(ObjectNotFound):
                client.delete_flow_run(run.id)
        deleted += len(page)
        if len(page) < _PAGE:
            break
    return deleted


def judge(
    runs: Iterable[FlowRun], signs: Mapping[str, SiteSigns], heartbeats: Mapping[UUID, datetime], now: datetime
) -> Iterator[tuple[FlowRun, Verdict]]:
    """Return the runs that are to be ended, each with its verdict."""
    for run in runs:
        if run.state is None:
            continue
        satellite = _satellite_of(run)
        facts = RunFacts(
            flow=run.name.partition(" ")[0],
            satellite=satellite,
            is_running=run.state.type is not StateType.PENDING,
            since=run.state.timestamp,
            last_heartbeat=heartbeats.get(run.id),
        )
        found = verdict(facts, signs.get(satellite), now)
        if found is not None:
            yield run, found


def _unfinished(client: SyncPrefectClient) -> Iterator[Sequence[FlowRun]]:
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[_TAG]),
        state=_UNFINISHED,
        # Runs inside runs are the sites' own to make, as many as they like: they must not fill these pages.
        parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=True),
    )
    sort = FlowRunSort.START_TIME_ASC
    # Read before anything is ended: that would move the pages.
    pages = []
    for number in range(_PAGES):
        page = client.read_flow_runs(flow_run_filter=wanted, sort=sort, limit=_PAGE, offset=number * _PAGE)
        pages.append(page)
        if len(page) < _PAGE:
            break
    return iter(pages)


def _satellite_of(run: FlowRun) -> str:
    return next((tag.removeprefix(SATELLITE_TAG) for tag in run.tags if tag.startswith(SATELLITE_TAG)), "")


def _waiting(run: FlowRun, now: datetime) -> WaitingRun:
    maker = maker_of(
        is_auto_scheduled=run.auto_scheduled, created_by=str(run.created_by.type) if run.created_by else None
    )
    return WaitingRun(str(run.id), str(run.deployment_id), maker, run.next_scheduled_start_time or now)


def _heartbeats(client: SyncPrefectClient, runs: Mapping[UUID, FlowRun], now: datetime) -> dict[UUID, datetime]:
    """Return each run's last heartbeat; without the events of Prefect, the signs of the site are enough."""
    old = [
        run
        for run in runs.values()
        if run.state and run.state.type is StateType.RUNNING and now - run.state.timestamp > watching.RECEIPT_GRACE
    ]
    found: dict[UUID, datetime] = {}
    for run in itertools.islice(old, _PAGE):
        events = EventFilter(
            event=EventNameFilter(name=[_HEARTBEAT]),
            any_resource=EventAnyResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
            occurred=EventOccurredFilter.model_validate({"since": run.state.timestamp if run.state else now}),
        )
        try:
            newest = client.read_events(filter=events, limit=1).events
        except (PrefectException, httpx.HTTPError) as error:
            _LOG.warning("heartbeats not read reason=%s", type(error).__name__)
            break
        if newest:
            found[run.id] = newest[0].occurred
    return found


def _end(client: SyncPrefectClient, run: FlowRun, found: Verdict) -> None:
    children = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=_UNFINISHED, parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id]))
    )
    for one in (*children, run):
        state: State[Any] = (Crashed if found.state == "crashed" else Cancelled)(message=found.reason)
        with contextlib.suppress(ObjectNotFound):
            client.set_flow_run_state(one.id, state, force=True)
