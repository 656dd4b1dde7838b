"""Keeping the record of runs: what was applied, what failed and waits, what was decided about each image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from harbor_satellite.errors import StorageError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.applied import Applied, LastRun
from harbor_satellite.satellite.outcome import ImageOutcome
from harbor_satellite.satellite.staging import demands_mark, demands_of
from harbor_satellite.state.desired import merge_states, names_of
from harbor_satellite.state.plan import Rule, is_signature
from harbor_satellite.state.quarantine import LONGEST_WAIT, after_failure, is_ahead
from harbor_satellite.state.wire import ImageDecision, ImageFailure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from harbor_satellite.errors import HarborSatelliteError
    from harbor_satellite.satellite.options import ReplicationOptions
    from harbor_satellite.satellite.outcome import RunOutcome
    from harbor_satellite.satellite.replication import FetchedState
    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.state.plan import Copy, ReplicationPlan
    from harbor_satellite.state.quarantine import Quarantined

DECISIONS_FILE: Final = "decisions.json"
_WHOLE_RUN: Final = "satellite state"
_FAILED: Final = "failed: "
# What the wire takes (state/wire.py); the beginning says enough.
_ACTIVITY_MAX_LENGTH: Final = 1000
_REFERENCE_MAX_LENGTH: Final = 1024
_REASON_MAX_LENGTH: Final = 4096


class Record:
    """The site's record, as the steps of a run change it.

    Args:
        store: where it is kept.
        options: the site's choices.
    """

    def __init__(self, store: SatelliteStore, options: ReplicationOptions) -> None:
        self._store = store
        self._options = options

    @property
    def choices(self) -> str:
        """One word for the site's own choices; another one makes a run look again although the state is the same."""
        return str(Digest.of(f"{self._options.platforms} {self._options.image_keys}".encode()))

    def is_at_rest(self, applied: Applied, now: datetime) -> bool:
        """Tell whether a run has nothing to do as long as the state is the same and what was there is there."""
        if applied.choices != self.choices:
            return False
        if applied.is_converged:
            return True
        next_try_at = applied.next_try_at
        return not self._options.is_asked_for and next_try_at is not None and is_ahead(next_try_at, now)

    def quarantine(self, plan: ReplicationPlan, errors: Mapping[Copy, HarborSatelliteError], now: datetime) -> None:
        """Put what failed in quarantine, and let go what came, or is not wanted any more."""
        applied = self._store.applied()
        before = {(item.repository, item.digest): item for item in applied.quarantine}
        after = [item for _, item in plan.wait]
        for copy in plan.copy:
            if (error := errors.get(copy)) is None:
                continue
            item = after_failure(before.get((copy.repository, copy.digest)), copy.repository, copy.digest, error, now)
            if item is not None:
                after.append(item)
        if tuple(after) != applied.quarantine:
            self._store.save_applied(replace(applied, quarantine=tuple(after)))

    def followed(self, outcome: RunOutcome, fetched: FetchedState, plan: ReplicationPlan, now: datetime) -> None:
        """Keep what a run came to that followed a state."""
        applied = self._store.applied()
        desired = merge_states(fetched.groups, self._options.platforms).artifacts
        came = {image.reference for image in outcome.of("copied")}
        done = {name for copy in plan.copy if str(copy) in came for name in copy.names}
        done |= {item.name for item in plan.keep if item.rule is Rule.WANTED}
        wanted = {item.name for item in desired}
        there = [item for item in desired if item.name in done]
        # What did not come stands as it stood: with the platforms that it had.
        sparse = {name: old for name, old in applied.platforms.items() if name in wanted and name not in done}
        checked = [
            (item.name, item.digest, demands_of(item.wish.required_keys, self._options.image_keys))
            for item in there
            if not is_signature(item)
        ]
        record = replace(
            applied,
            state_digest=fetched.digest,
            is_converged=outcome.is_converged,
            groups=fetched.applied_groups(),
            seen=replace(applied, groups=fetched.applied_groups(), seen=applied.highest()).highest(),
            wanted={item.name: item.digest for item in desired},
            sizes={item.name: item.size for item in desired if item.size is not None},
            sources={item.name: item.source for item in desired if item.source},
            platforms=sparse | {item.name: item.wish.platforms for item in there if item.wish.platforms},
            verified={name: demands_mark(digest, demands) for name, digest, demands in checked if demands},
            choices=self.choices,
            look_at=0,
            next_try_at=None if outcome.is_converged else _next_try(outcome, applied.quarantine, now),
            failures=tuple(
                _failure(image.reference, image.reason) for image in (*outcome.of("failed"), *outcome.of("quarantined"))
            ),
            last_run=_last_run(outcome, now),
            applied_at=now if outcome.is_converged else applied.applied_at,
        )
        self._store.write_document(DECISIONS_FILE, _decisions(outcome, fetched, now))
        self._store.save_applied(record)

    def images_at_rest(self, applied: Applied) -> tuple[ImageOutcome, ...]:
        """Describe the images of a run that found nothing to do."""
        # What a run failed of as a whole, the site having been converged before, is no image's failure.
        failures = () if applied.is_converged else _of_images(applied)
        failed = {name for failure in failures for name in names_of(failure.reference)}
        kept = (
            ImageOutcome("kept", str(name), str(digest), "unchanged", rule=Rule.UNCHANGED)
            for name, digest in applied.wanted.items()
            if name not in failed
        )
        waiting = (
            ImageOutcome("quarantined", failure.reference, "", failure.reason, rule=Rule.QUARANTINE)
            for failure in failures
        )
        return (*kept, *waiting)

    def rested(self, outcome: RunOutcome, look_at: int, now: datetime) -> None:
        """Keep what a run came to that found nothing to do."""
        applied = self._store.applied()
        failures = () if applied.is_converged else _of_images(applied)
        if failures != applied.failures:
            self._store.save_applied(replace(applied, failures=failures))
        self._store.save_rest(_last_run(outcome, now), look_at)

    def failed(self, error: HarborSatelliteError, now: datetime) -> None:
        """Keep why a run failed as a whole, for the next report; what the site follows stays as it was."""
        applied = self._store.applied()
        is_again = applied.last_run is not None and applied.last_run.summary.startswith(_FAILED)
        since = applied.failing_since if is_again else None
        last_run = LastRun(now, 0.0, 0, 0, 0, f"{_FAILED}{error}"[:_ACTIVITY_MAX_LENGTH])
        failures = (_failure(_WHOLE_RUN, f"{type(error).__name__}: {error}"), *_of_images(applied))
        record = replace(applied, last_run=last_run, failures=failures, failing_since=since or now)
        self._store.save_applied(record)

    def paused(self, error: HarborSatelliteError, now: datetime) -> None:
        """Keep that a run was not to start now: that is no failure."""
        last_run = LastRun(now, 0.0, 0, 0, 0, f"paused: {error}"[:_ACTIVITY_MAX_LENGTH])
        self._store.save_applied(replace(self._store.applied(), last_run=last_run))


def _of_images(applied: Applied) -> tuple[ImageFailure, ...]:
    return tuple(item for item in applied.failures if item.reference != _WHOLE_RUN)


def _last_run(outcome: RunOutcome, now: datetime) -> LastRun:
    return LastRun(
        finished_at=now,
        seconds=outcome.seconds,
        bytes_from_source=outcome.bytes_from_source,
        copied_count=len(outcome.of("copied")),
        deleted_count=len(outcome.of("deleted")),
        summary=outcome.summary(),
    )


def _failure(reference: str, reason: str) -> ImageFailure:
    return ImageFailure(reference=reference[:_REFERENCE_MAX_LENGTH], reason=reason[:_REASON_MAX_LENGTH])


def _next_try(outcome: RunOutcome, quarantine: Sequence[Quarantined], now: datetime) -> datetime | None:
    """Say until when a run could do nothing about what is undone; None: the next run may."""
    waits = {str(item.digest): item.retry_at for item in quarantine if item.retry_at > now}
    until = now + LONGEST_WAIT
    for image in outcome.images:
        if image.action in {"staged", "paused"}:
            return None
        if image.action in {"failed", "quarantined"} and image.rule is not Rule.DISPUTED:
            if image.digest not in waits:
                return None
            until = min(until, waits[image.digest])
    return until


def _decisions(outcome: RunOutcome, fetched: FetchedState, now: datetime) -> dict[str, Any]:
    return {
        "decided_at": now.isoformat(),
        "state_digest": str(fetched.digest),
        "generations": {group.group: group.generation for group in fetched.applied_groups()},
        "images": [
            image.row()
            | {
                "groups": list(image.groups),
                "reference": image.reference[:_REFERENCE_MAX_LENGTH],
                "reason": image.reason[:_REASON_MAX_LENGTH],
            }
            for image in outcome.images
        ],
    }


def load_decisions(store: SatelliteStore) -> tuple[ImageDecision, ...]:
    """Read what the last run decided that decided anything, but for what was simply kept because it is wanted.

    Raises:
        StorageError: the file is damaged.
    """
    document = store.read_document(DECISIONS_FILE) or {}
    try:
        return tuple(
            ImageDecision.model_validate(row)
            for row in document.get("images", ())
            if row.get("rule") not in {Rule.WANTED, Rule.UNCHANGED}
        )
    except (ValidationError, TypeError, AttributeError) as error:
        raise StorageError(f"{store.folder / DECISIONS_FILE} is damaged: {type(error).__name__}") from error
