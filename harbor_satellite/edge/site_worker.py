"""The worker of one site: it starts each flow run at the site's own moment, and one for all that were missed.

A run that waits for its moment is left with Prefect as it is: it holds no place, so that a run that is asked for
meanwhile starts at once, and a worker that is stopped then leaves nothing behind. What is decided is
``satellite/due_runs.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import random
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx
from prefect.exceptions import PrefectException
from prefect.states import Cancelled

from harbor_satellite.edge.own_site import HOLD
from harbor_satellite.edge.worker import EdgeWorker, settle_lost_runs, wait_for_pool
from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.satellite.due_runs import DueRun, decide
from harbor_satellite.state.names import WORKER_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun, State
    from prefect.client.schemas.responses import WorkerFlowRunResponse

_LOG = logging.getLogger(__name__)
_SETTLED_AT_ONCE: Final = 20
"""So many covered runs are settled after a poll: the centre clears up as well, and a link may be slow."""
_FIRST_WAIT_SECONDS: Final = 5.0
_LONGEST_WAIT_SECONDS: Final = 300.0
_WELL_SECONDS: Final = 600.0
"""A worker that ran so long was well: its next failure is a first one."""
_EAGER_SECONDS: Final = (5.0, 180.0)
"""A site that has nothing yet polls so often, for so long: its first run comes with its deployment."""


class BusyWatch(Protocol):
    """Who wants to know whether a run is under way."""

    is_worker_busy: Callable[[], bool]


class SiteWorker(EdgeWorker):
    """An edge worker that knows whose site it works for.

    Args:
        work_pool_name: the satellite's own.
        jitter_seconds: how much later than planned a scheduled run starts, asked for anew each time.
        options: of Prefect's worker.
    """

    def __init__(self, work_pool_name: str, jitter_seconds: Callable[[], float], **options: Any) -> None:
        super().__init__(work_pool_name, **options)
        self._jitter_seconds = jitter_seconds
        self._offers: dict[UUID, WorkerFlowRunResponse] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self._waking: asyncio.Task[None] | None = None
        self._busy: dict[str, str] = {}
        """Flow → run that is under way."""
        self._begun: set[str] = set()
        self._covered: dict[tuple[str, str], datetime] = {}
        self._settled: set[str] = set()

    @classmethod
    def __dispatch_key__(cls) -> str:
        """Leave the pool's type to ``EdgeWorker`` where Prefect looks a worker up; the agent makes this one itself."""
        return f"{WORKER_TYPE}-site"

    @property
    def is_busy(self) -> bool:
        """Whether a flow run is under way, in any phase."""
        return bool(self._busy)

    async def _submit_scheduled_flow_runs(self, flow_run_response: list[WorkerFlowRunResponse]) -> list[FlowRun]:
        """Take what a poll has brought; Prefect's own way from there on for what starts now."""
        self._offers = {offer.flow_run.id: offer for offer in flow_run_response}
        self._settled.intersection_update(map(str, self._offers))
        return await self._take()

    async def _take(self) -> list[FlowRun]:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        offers = {str(run): offer for run, offer in self._offers.items() if run not in self._submitting_flow_run_ids}
        runs = [_due_run(offer.flow_run) for offer in offers.values() if str(offer.flow_run.id) not in self._settled]
        busy = {run.flow for run in runs} if HOLD.is_local and HOLD.since is not None else set(self._busy)
        now = datetime.now(UTC)
        verdict = decide(runs, now, jitter_seconds=self._jitter_seconds(), busy=busy, covered=self._covered)
        for _, moment in verdict.later:
            delay = (moment - now).total_seconds()
            self._timers.append(asyncio.get_running_loop().call_later(delay, self._wake))
        for run in verdict.start:
            self._busy[run.flow] = run.run
            self._covered[run.kind] = run.due
        for run in (*verdict.start, *verdict.covered):
            self._offers.pop(offers[run.run].flow_run.id, None)
        submitted = await super()._submit_scheduled_flow_runs([offers[run.run] for run in verdict.start])
        await self._settle(verdict.covered)
        return submitted

    def _wake(self) -> None:
        # In a task: where a timer of the loop calls, anyio finds no loop, and starts nothing.
        self._waking = asyncio.get_running_loop().create_task(self._take_again())

    async def _take_again(self) -> None:
        if self._runs_task_group is not None and self.is_setup:
            self._runs_task_group.start_soon(self._take)

    async def poll_eagerly(self, is_new: Callable[[], bool]) -> None:
        """Poll often for a while, beside Prefect's own loop, as long as the site has nothing."""
        pause, longest = _EAGER_SECONDS
        until = time.monotonic() + longest
        while is_new() and time.monotonic() < until:
            await asyncio.sleep(pause)
            if self.is_setup and not self.is_busy:
                with contextlib.suppress(PrefectException, httpx.HTTPError):  # the loop's next poll meets it as well
                    await self.get_and_submit_flow_runs()

    async def _settle(self, covered: Iterable[DueRun]) -> None:
        """Mark runs that another one stands for, so that they are not offered again at each poll."""
        for run in list(covered)[:_SETTLED_AT_ONCE]:
            skipped: State[Any] = Cancelled(name="Skipped", message="a later run did all there was to do")
            try:
                await self.client.set_flow_run_state(run.run, skipped)
            except (PrefectException, httpx.HTTPError) as error:
                _LOG.info("covered run not settled yet run=%s reason=%s", run.run, error)
                return
            self._settled.add(run.run)
            _LOG.info("skipped run=%s due=%s", run.run, run.due.isoformat())

    async def _submit_run(self, flow_run: FlowRun) -> None:
        try:
            await super()._submit_run(flow_run)
        finally:
            if str(flow_run.id) not in self._begun:
                self._let_go(flow_run)

    async def run(self, flow_run: FlowRun, *args: Any, **options: Any) -> Any:
        """Run one flow run to its end; see ``EdgeWorker.run``."""
        self._begun.add(str(flow_run.id))
        try:
            return await super().run(flow_run, *args, **options)
        finally:
            self._begun.discard(str(flow_run.id))
            self._let_go(flow_run)
            gc.collect()  # clients and engines go in circles: Python itself would look after dozens of runs

    def _let_go(self, flow_run: FlowRun) -> None:
        flow = str(flow_run.deployment_id)
        if self._busy.get(flow) == str(flow_run.id):
            del self._busy[flow]
            self._wake()  # what waits for this one's end need not wait for the next poll


def _due_run(run: FlowRun) -> DueRun:
    due = run.next_scheduled_start_time or run.expected_start_time or datetime.now(UTC)
    with contextlib.suppress(TypeError, ValueError):
        return DueRun(str(run.id), str(run.deployment_id), due, run.auto_scheduled, json.dumps(run.parameters))
    return DueRun(str(run.id), str(run.deployment_id), due, run.auto_scheduled, str(run.id))


async def work_for_ever(
    pool: str,
    poll_seconds: float,
    jitter_seconds: Callable[[], float],
    watch: BusyWatch,
    is_new: Callable[[], bool],
) -> None:
    """Be the worker of a pool; Prefect's worker gives up after some failures, and is then started again.

    Args:
        pool: the satellite's own work pool.
        poll_seconds: between two polls.
        jitter_seconds: how much later than planned a scheduled run starts.
        watch: told whether a run is under way.
        is_new: tells whether the site has nothing yet.
    """
    failures, is_settled = 0, False
    while True:
        began = time.monotonic()
        worker = SiteWorker(
            pool,
            jitter_seconds,
            name=pool,
            prefetch_seconds=poll_seconds,
            heartbeat_interval_seconds=max(1, round(poll_seconds)),
            create_pool_if_not_found=False,
        )
        watch.is_worker_busy = partial(_is_busy, worker)
        try:
            await wait_for_pool(pool, poll_seconds)
            if not is_settled:  # later, what seems to be lost may still run in a thread of this process
                await settle_lost_runs(pool)
                is_settled = True
            await _start(worker, is_new)
        except Exception as error:  # noqa: BLE001  (whatever ends it, nobody else starts it again)
            reason = _reason(error)
            _LOG.warning("worker ended reason=%s", reason, exc_info=not isinstance(error, HarborSatelliteError))
        failures = 0 if time.monotonic() - began > _WELL_SECONDS else failures + 1
        wait = min(_FIRST_WAIT_SECONDS * 2 ** min(failures, 20), _LONGEST_WAIT_SECONDS)
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311  (jitter)


async def _start(worker: SiteWorker, is_new: Callable[[], bool]) -> None:
    eager = asyncio.create_task(worker.poll_eagerly(is_new))
    try:
        await worker.start(printer=_LOG.info)
    finally:
        eager.cancel()
        await asyncio.wait((eager,))
        if not eager.cancelled() and (error := eager.exception()):
            _LOG.warning("polling of a new site ended reason=%s", _reason(error))


def _is_busy(worker: SiteWorker) -> bool:
    return worker.is_busy


def _reason(error: BaseException) -> str:
    """Say in a line what a group of errors came from."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
