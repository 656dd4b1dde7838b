"""One whole run without Prefect: the same steps as the flow, composed by plain calls.

``edge sync`` is this, and so is an agent whose centre has vanished.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.satellite.outcome import ImageOutcome, RunOutcome, failed_outcome
from harbor_satellite.satellite.publication import publish_and_prune
from harbor_satellite.satellite.replication import (
    FetchedState,
    current_state_digest,
    fetch_state,
    is_unchanged,
    known_blobs,
    make_plan,
    stage,
    utc_now,
)
from harbor_satellite.satellite.store import LastRun
from harbor_satellite.state.desired import merge_states
from harbor_satellite.state.wire import AppliedGroup, ImageFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.satellite.connections import Connections
    from harbor_satellite.satellite.store import Applied, SatelliteStore
    from harbor_satellite.state.artifact import StateArtifact
    from harbor_satellite.state.plan import Copy

# What the wire takes (state/wire.py); the beginning says enough.
_ACTIVITY_MAX_LENGTH: Final = 1000
_REFERENCE_MAX_LENGTH: Final = 1024
_REASON_MAX_LENGTH: Final = 4096


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """How a run without Prefect goes about it."""

    image_workers: int = 4
    """Images on their way at once."""
    platforms: tuple[Platform, ...] = ()
    """Children of indexes to bring; empty: all."""
    is_deep: bool = False
    """Ask for every blob of what seems to be there, instead of trusting the manifest."""
    on_bytes: Callable[[int], None] = lambda _: None
    """Told of every chunk that came from the source (bytes)."""


def sync_satellite(
    connections: Connections, store: SatelliteStore, state_url: str, options: SyncOptions | None = None
) -> RunOutcome:
    """Bring the site in step with its satellite state; one request if it already is.

    Raises:
        HarborSatelliteError: the state could not be had, or the local registry or disk failed as a whole.
            A single bad image does not raise; it is in the outcome.
    """
    options = options or SyncOptions()
    try:
        return _sync(connections, store, state_url, options)
    except HarborSatelliteError as error:
        record_failure(store, error, utc_now())
        raise


def _sync(connections: Connections, store: SatelliteStore, state_url: str, options: SyncOptions) -> RunOutcome:
    started = time.monotonic()
    applied = store.applied()
    if not options.is_deep and is_unchanged(connections.target, applied, current_state_digest(connections, state_url)):
        outcome = unchanged_outcome(connections, applied, time.monotonic() - started)
        record_run(store, outcome, None, utc_now())
        return outcome
    fetched = fetch_state(connections, state_url, applied.groups, utc_now())
    images = sync_states(connections, store, fetched.groups, options)
    outcome = run_outcome(connections, images, fetched.digest, time.monotonic() - started)
    record_run(store, outcome, fetched, utc_now())
    return outcome


def sync_states(
    connections: Connections, store: SatelliteStore, states: Sequence[StateArtifact], options: SyncOptions
) -> tuple[ImageOutcome, ...]:
    """Bring the site in step with group states that are already at hand."""
    owned = store.applied().owned
    plan = make_plan(connections.target, states, owned, is_deep=options.is_deep, platforms=options.platforms)
    known = known_blobs(connections.target, owned)

    def stage_one(copy: Copy) -> ImageOutcome:
        try:
            return stage(connections, copy, known, options.platforms, options.on_bytes)
        except HarborSatelliteError as error:  # one bad image never stops the others
            return failed_outcome(str(copy), copy.digest, error)

    with ThreadPoolExecutor(options.image_workers, "image") as pool:
        staged = dict(zip(plan.copy, pool.map(stage_one, plan.copy), strict=True))
    return publish_and_prune(connections.target, store, plan, staged)


def run_outcome(
    connections: Connections, images: tuple[ImageOutcome, ...], state_digest: Digest, seconds: float
) -> RunOutcome:
    """Add the source's counters to what became of each image."""
    return RunOutcome(images, str(state_digest), seconds, connections.bytes_read, connections.requests)


def unchanged_outcome(connections: Connections, applied: Applied, seconds: float) -> RunOutcome:
    """Describe a run that found nothing to do."""
    images = tuple(ImageOutcome("kept", str(name), str(digest), "unchanged") for name, digest in applied.wanted.items())
    return RunOutcome(images, str(applied.state_digest), seconds, connections.bytes_read, connections.requests)


def record_run(store: SatelliteStore, outcome: RunOutcome, fetched: FetchedState | None, now: datetime) -> None:
    """Keep what was applied, so that the next run and the next report know it.

    Args:
        store: keeps the record.
        outcome: what the run came to.
        fetched: the state it followed; None if the state was unchanged.
        now: when the run ended.
    """
    last_run = LastRun(
        finished_at=now,
        seconds=outcome.seconds,
        bytes_from_source=outcome.bytes_from_source,
        copied_count=len(outcome.of("copied")),
        deleted_count=len(outcome.of("deleted")),
        summary=outcome.summary(),
    )
    record = replace(store.applied(), last_run=last_run, failures=())
    if fetched is not None:
        record = _followed(record, outcome, fetched, now)
    store.save_applied(record)


def record_failure(store: SatelliteStore, error: HarborSatelliteError, now: datetime) -> None:
    """Keep why a run failed as a whole, for the next report; what the site follows stays as it was."""
    last_run = LastRun(now, 0.0, 0, 0, 0, f"failed: {error}"[:_ACTIVITY_MAX_LENGTH])
    failure = _failure("satellite state", f"{type(error).__name__}: {error}")
    store.save_applied(replace(store.applied(), last_run=last_run, failures=(failure,)))


def _failure(reference: str, reason: str) -> ImageFailure:
    return ImageFailure(reference=reference[:_REFERENCE_MAX_LENGTH], reason=reason[:_REASON_MAX_LENGTH])


def _followed(record: Applied, outcome: RunOutcome, fetched: FetchedState, now: datetime) -> Applied:
    failures = tuple(_failure(image.reference, image.reason) for image in outcome.of("failed"))
    groups = tuple(
        AppliedGroup(group=state.group, generation=state.generation, digest=str(digest))
        for state, digest in zip(fetched.groups, fetched.group_digests, strict=True)
    )
    desired = merge_states(fetched.groups).artifacts
    return replace(
        record,
        state_digest=fetched.digest,
        is_converged=outcome.is_converged,
        groups=groups,
        wanted={item.name: item.digest for item in desired},
        sizes={item.name: item.size for item in desired if item.size is not None},
        failures=failures,
        applied_at=now if outcome.is_converged else record.applied_at,
    )
