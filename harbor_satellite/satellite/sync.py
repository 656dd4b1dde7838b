"""One whole run without Prefect: the same steps as the flow, composed by plain calls.

``edge sync`` is this, and so are an import and an agent whose centre has vanished.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.satellite.healing_journal import load_journal
from harbor_satellite.satellite.rollback import finish_publication

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.satellite.engine import Engine
    from harbor_satellite.satellite.outcome import RunOutcome
    from harbor_satellite.satellite.replication import FetchedState
    from harbor_satellite.state.plan import Copy

_LOG = logging.getLogger(__name__)
_ROUNDS: Final = 3
"""How often an image is tried in one run, as long as its error says that trying again may help."""
_WAIT_SECONDS: Final = 2.0
"""Before the second try; twice as long before the third."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who follows a run's progress, and how it waits."""

    on_bytes: Callable[[int], None] = lambda _: None
    """Told of every chunk that came from the source (bytes)."""
    sleep: Callable[[float], None] = time.sleep


def sync_satellite(engine: Engine, state_url: str, watcher: Watcher | None = None) -> RunOutcome:
    """Bring the site in step with its satellite state; one request if it already is.

    Raises:
        HarborSatelliteError: the state could not be had, or the local registry or disk failed as a whole.
            A single bad image does not raise; it is in the outcome.
        PausedError: nothing may be asked of the source now.
    """
    recover(engine)
    try:
        if engine.check(state_url) is None:
            return engine.rest()
        return sync_fetched(engine, engine.fetch(state_url), watcher)
    except HarborSatelliteError as error:
        engine.fail(error)
        raise


def recover(engine: Engine) -> None:
    """Finish what was killed at this site, before anything is asked of the source: all that it takes is here."""
    for finish in (_finish_healing, lambda engine: finish_publication(engine.connections.target, engine.store)):
        try:
            finish(engine)
        except HarborSatelliteError as error:  # it stays on record for the next run
            _LOG.warning("not finished what was killed reason=%s", error)


def _finish_healing(engine: Engine) -> None:
    if load_journal(engine.store):
        from harbor_satellite.satellite.healing import finish_interrupted  # noqa: PLC0415  (seldom needed, slow to import)

        finish_interrupted(engine)


def sync_fetched(engine: Engine, fetched: FetchedState, watcher: Watcher | None = None) -> RunOutcome:
    """Bring the site in step with states that are already at hand."""
    watcher = watcher or Watcher()
    plan = engine.plan(fetched.groups)
    left = plan.copy
    for turn in range(_ROUNDS):
        if turn:
            watcher.sleep(_WAIT_SECONDS * turn)
        left = _stage_all(engine, left, watcher.on_bytes)
        if not left:
            break
    return engine.finish(engine.publish(plan, fetched), fetched, plan)


def _stage_all(engine: Engine, copies: tuple[Copy, ...], on_bytes: Callable[[int], None]) -> tuple[Copy, ...]:
    """Stage what there is; one bad image never stops the others. Returns what is worth another try."""

    def stage_one(copy: Copy) -> bool:
        try:
            engine.stage(copy, on_bytes)
        except HarborSatelliteError as error:  # noted by the engine
            return error.retryable
        return False

    with ThreadPoolExecutor(engine.options.image_workers, "image") as pool:
        staging = [pool.submit(stage_one, copy) for copy in copies]
        try:
            again = [future.result() for future in staging]
        except BaseException:  # Ctrl-C: what is under way ends at its next piece, and goes on from there next time
            pool.shutdown(wait=False, cancel_futures=True)
            engine.stop()
            raise
    return tuple(copy for copy, is_again in zip(copies, again, strict=True) if is_again)
