"""What a run leaves behind is gone with its end: Python's own collector would let it pile up for dozens of runs."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from harbor_satellite.edge import agent
from harbor_satellite.edge.site_worker import SiteWorker
from harbor_satellite.edge.worker import EdgeWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

_RUNS = 5


class Cycle:
    """Garbage that only a collection finds, as the clients and engines of a run are."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("is_failure", [False, True])
def test_runs_leave_no_garbage(monkeypatch: pytest.MonkeyPatch, *, is_failure: bool) -> None:
    left: list[weakref.ref[Cycle]] = []

    async def run(_worker: EdgeWorker, _flow_run: FlowRun, *_args: Any) -> None:
        left.append(weakref.ref(Cycle()))
        if is_failure:
            raise RuntimeError("a run that breaks off")

    monkeypatch.setattr(EdgeWorker, "run", run)
    worker = SiteWorker("shop", lambda: 0.0, name="shop", create_pool_if_not_found=False)

    async def run_often() -> None:
        for _ in range(_RUNS):
            flow_run = FlowRun.model_construct(id=uuid4(), deployment_id=uuid4())
            await asyncio.gather(worker.run(flow_run), return_exceptions=True)

    asyncio.run(run_often())

    assert [reference() for reference in left] == [None] * _RUNS


@pytest.mark.usefixtures("_no_collector")
def test_what_was_imported_is_not_looked_through_after_each_run() -> None:
    agent._import_workers()

    assert gc.get_freeze_count() > len(gc.get_objects())
