"""The Prefect worker type of the product: runs flows of its own installation in a thread of its own process.

A run costs a tenth of what a process per run costs, and no log line or task state is lost when the link is
cut and comes back. What a deployment says about where code comes from is not followed: a site runs the
flows it was installed with, and nothing else. The central pool uses the same type.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import Abort, ObjectNotFound, PrefectException
from prefect.flow_engine import run_flow
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.states import Crashed
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from harbor_satellite.errors import AuthenticationError, UntrustedDataError
from harbor_satellite.project import enter, project_dir
from harbor_satellite.state.names import WORKER_TYPE

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

_REFUSED: Final = frozenset({401, 403})
_FIRST_PAUSE_SECONDS: Final = 2.0
_ENTRYPOINT: Final = re.compile(r"flows/[a-z_]+\.py:[a-z_]+")
_LOG = logging.getLogger(__name__)


class _KnownTimeouts(logging.Filter):
    """Drops one warning a task: that a time-out in a thread waits for the call at hand, which has its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("Timeout of %s seconds configured for this task")


logging.getLogger("prefect.task_runs").addFilter(_KnownTimeouts())


class EdgeWorkerResult(BaseWorkerResult):
    """How a run ended, seen from the worker: 0 unless the run could not be carried out at all."""


class EdgeWorker(BaseWorker[BaseJobConfiguration, BaseVariables, EdgeWorkerResult]):
    """Polls one work pool, and runs each flow run in a thread."""

    type = WORKER_TYPE
    job_configuration = BaseJobConfiguration
    _description = "Runs the installed flows of Harbor Satellite in a thread of the worker's own process."

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration,  # noqa: ARG002  (the site decides, not the pool)
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> EdgeWorkerResult:
        """Run one flow run to its end; its outcome is its own Prefect state."""
        if flow_run.deployment_id is None:
            raise UntrustedDataError(f"flow run {flow_run.id} belongs to no deployment")
        deployment = await self.client.read_deployment(flow_run.deployment_id)
        flow = own_flow(deployment.entrypoint or "")
        identifier = f"{socket.gethostname()}:{os.getpid()}:{flow_run.id}"
        if task_status is not None:
            task_status.started(identifier)
        status_code = await anyio.to_thread.run_sync(_run, flow, flow_run, abandon_on_cancel=True)
        return EdgeWorkerResult(identifier=identifier, status_code=status_code)


async def wait_for_pool(pool: str, poll_seconds: float) -> None:
    """Wait until the work pool is there: a satellite registers before the centre has made its pool.

    Args:
        pool: the satellite's own.
        poll_seconds: between two looks at most; the first follow each other sooner.
    """
    pause = min(_FIRST_PAUSE_SECONDS, poll_seconds)
    async with get_client() as client:
        while True:
            try:
                await client.read_work_pool(pool)
            except httpx.HTTPStatusError as error:
                if error.response.status_code in _REFUSED:
                    message = f"the Prefect API refuses this site's look at its work pool {pool}"
                    raise AuthenticationError(message) from error
                _LOG.warning("waiting for pool=%s status=%d", pool, error.response.status_code)
            except (ObjectNotFound, httpx.HTTPError) as error:
                _LOG.warning("waiting for pool=%s reason=%s", pool, type(error).__name__)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, poll_seconds)


async def settle_lost_runs(pool: str) -> None:
    """Mark runs of this pool as crashed that no worker carries out any more.

    The pool is this site's alone, so at the start and the end of its one worker whatever is still pending or
    running there was lost, and would hold the deployment's one place for ever.
    """
    unfinished = FlowRunFilterState(
        type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    )
    try:
        async with get_client() as client:
            mine = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
            runs = await client.read_flow_runs(work_pool_filter=mine, flow_run_filter=FlowRunFilter(state=unfinished))
            if runs:
                parents = FlowRunFilterParentFlowRunId(any_=[run.id for run in runs])
                children = FlowRunFilter(state=unfinished, parent_flow_run_id=parents)
                runs += await client.read_flow_runs(flow_run_filter=children)
            for run in runs:
                crashed: State[Any] = Crashed(message="the site's agent was stopped while this ran")
                await client.set_flow_run_state(run.id, crashed, force=True)
                _LOG.warning("settled lost run name=%s", run.name)
    except (PrefectException, httpx.HTTPError) as error:
        _LOG.warning("lost runs not settled pool=%s reason=%s", pool, error)


def own_flow(entrypoint: str) -> Flow[..., Any]:
    """Load a flow of this installation.

    Args:
        entrypoint: ``flows/verb_noun.py:verb_noun``.

    Raises:
        UntrustedDataError: it names anything else; nothing is loaded.
    """
    path, _, name = entrypoint.partition(":")
    if _ENTRYPOINT.fullmatch(entrypoint) is None or not Path(project_dir(), path).is_file():
        raise UntrustedDataError(f"not a flow of this installation: {entrypoint[:200]!r}")
    enter()
    before = sys.path.copy()
    try:
        return load_flow_from_entrypoint(f"{Path(project_dir(), path)}:{name}", use_placeholder_flow=False)
    finally:
        sys.path[:] = before  # Prefect puts two entries before it at each load, and leaves them there


def _run(flow: Flow[..., Any], flow_run: FlowRun) -> int:
    """Run to the end; 1 tells Prefect's worker to mark the run as crashed, since the run could not do it itself."""
    try:
        state = run_flow(flow, flow_run=flow_run, return_type="state")
    except Abort as reason:
        # The orchestrator refused the run (cancelled, or another one holds its place): it has its state already.
        _LOG.info("flow run not started name=%s reason=%s", flow_run.name, reason)
        return 0
    except Exception:  # noqa: BLE001  (a run whose end nobody records would stay "Running" for ever)
        _LOG.exception("flow run broke off name=%s", flow_run.name)
        return 1
    _LOG.info("flow run ended name=%s state=%s", flow_run.name, state)
    return 0
