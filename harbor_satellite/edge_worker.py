"""The Prefect worker type of the product: runs flows of its own installation in a thread of its own process.

A run costs a tenth of what a process per run costs, and no log line or task state is lost when the link is
cut and comes back. What a deployment says about where code comes from is not followed: a site runs the
flows it was installed with, and nothing else. The central pool uses the same type.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
from prefect.exceptions import Abort
from prefect.flow_engine import run_flow
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from harbor_satellite.errors import UntrustedDataError
from harbor_satellite.project import enter, project_dir
from harbor_satellite.state.names import WORKER_TYPE

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

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
    return load_flow_from_entrypoint(f"{Path(project_dir(), path)}:{name}", use_placeholder_flow=False)


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
