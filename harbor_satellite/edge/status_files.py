"""Reading for a status what runs keep on disk: leniently, quickly, and without changing it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from harbor_satellite.errors import StorageError
from harbor_satellite.satellite.link_rate import LINK_FILE
from harbor_satellite.satellite.status import (
    IMAGES_MAX,
    FailureStatus,
    GroupStatus,
    ImagesStatus,
    ImageStatus,
    LastRunStatus,
    RunStatus,
    RuntimeStatus,
    StateStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harbor_satellite.satellite.store import SatelliteStore

APPLIED_FILE: Final = "applied.json"
STANDING_FILE: Final = "generations.json"
_REST_FILE: Final = "rest.json"
RUNTIMES_FILE: Final = "runtimes-applied.json"
_LEDGER_FILE: Final = "ledger.json"
_OUTCOMES: Final = ("failed", "paused")
"""What the summary of a run begins with that did not come to its end."""
_WHOLE_RUN: Final = "satellite state"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AppliedStatus:
    """What the record of runs shows."""

    state: StateStatus = field(default_factory=StateStatus)
    runs: RunStatus = field(default_factory=RunStatus)
    images: ImagesStatus = field(default_factory=ImagesStatus)
    failures: tuple[FailureStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class StandingStatus:
    """What the site's generations show."""

    published_at: datetime | None = None
    is_rolled_back: bool = False


def read_applied(store: SatelliteStore) -> AppliedStatus:
    """Read the record of runs that changed something; an empty one if there was none.

    Raises:
        StorageError: it is damaged.
    """
    return _read(store, APPLIED_FILE, _applied, AppliedStatus())


def read_rested(store: SatelliteStore) -> LastRunStatus | None:
    """Read how the last run went that changed nothing; None if there was none.

    Raises:
        StorageError: the file is damaged.
    """
    return _read(store, _REST_FILE, lambda document: _last_run(document["last_run"]), None)


def with_later(runs: RunStatus, rested: LastRunStatus | None) -> RunStatus:
    """Return how the runs went, given also how the last one went that changed nothing."""
    if rested is None or (runs.last and rested.finished_at <= runs.last.finished_at):
        return runs
    return replace(runs, last=rested, failing_since=None)


def read_standing(store: SatelliteStore) -> StandingStatus:
    """Read what the generations show.

    Raises:
        StorageError: they are damaged.
    """

    def parse(document: Mapping[str, Any]) -> StandingStatus:
        current = document["current"]
        return StandingStatus(
            datetime.fromisoformat(current["published_at"]) if current else None, document["held"] is not None
        )

    return _read(store, STANDING_FILE, parse, StandingStatus())


def read_ledger(store: SatelliteStore, today: date) -> tuple[int, int]:
    """Return the bytes read from the source on a day, and in its month.

    Raises:
        StorageError: the ledger is damaged; the next run puts it right.
    """

    def parse(document: Mapping[str, Any]) -> tuple[int, int]:
        month = today.replace(day=1).isoformat()
        return int(document["days"].get(today.isoformat(), 0)), int(document["months"].get(month, 0))

    return _read(store, _LEDGER_FILE, parse, (0, 0))


def read_link_rate(store: SatelliteStore) -> int | None:
    """Return the bytes per second that the last run measured that could tell; None: none could.

    Raises:
        StorageError: the file is damaged.
    """
    return _read(store, LINK_FILE, lambda document: int(document["bytes_per_second"]), None)


def read_runtimes(store: SatelliteStore) -> tuple[RuntimeStatus, ...]:
    """Read which container runtimes were set up.

    Raises:
        StorageError: the file is damaged.
    """

    def parse(document: Mapping[str, Any]) -> tuple[RuntimeStatus, ...]:
        return tuple(
            RuntimeStatus(str(name), _moment(item.get("applied_at")), str(item.get("problem") or ""))
            for name, item in sorted(document["runtimes"].items())
        )

    return _read(store, RUNTIMES_FILE, parse, ())


def _applied(document: Mapping[str, Any]) -> AppliedStatus:
    last = _last_run(document["last_run"])
    is_failing = last is not None and last.outcome == "failed"
    since = _moment(document.get("failing_since")) or (last.finished_at if last else None)
    return AppliedStatus(
        state=StateStatus(
            digest=document["state_digest"] or "",
            is_converged=bool(document["is_converged"]),
            applied_at=_moment(document["applied_at"]),
            groups=tuple(
                GroupStatus(str(item["group"]), int(item.get("generation", 0)), str(item.get("digest", "")))
                for item in document["groups"]
            ),
        ),
        runs=RunStatus(last=last, failing_since=since if is_failing else None),
        images=_images(document),
        failures=_failures(document),
    )


def _images(document: Mapping[str, Any]) -> ImagesStatus:
    sizes = {(item["repository"], item["tag"]): int(item["size"]) for item in document["sizes"]}
    names = [(item["repository"], item["tag"]) for item in document["owned"]]
    return ImagesStatus(
        count=len(names),
        size_bytes=sum(sizes.get(name, 0) for name in names),
        listed=tuple(ImageStatus(f"{name[0]}:{name[1]}", sizes.get(name)) for name in names[:IMAGES_MAX]),
    )


def _failures(document: Mapping[str, Any]) -> tuple[FailureStatus, ...]:
    waiting = {item["repository"]: item for item in document.get("quarantine", ())}
    found = []
    for item in document["failures"]:
        if item["reference"] == _WHOLE_RUN:  # that is told as the run's
            continue
        waits = waiting.get(item["reference"].partition("@")[0].partition(":")[0], {})
        since, retry_at = _moment(waits.get("since")), _moment(waits.get("retry_at"))
        found.append(FailureStatus(item["reference"], item["reason"], since, retry_at))
    return tuple(found)


def _last_run(item: Mapping[str, Any] | None) -> LastRunStatus | None:
    if item is None:
        return None
    word, colon, said = item["summary"].partition(": ")
    is_cut = bool(colon) and word in _OUTCOMES
    return LastRunStatus(
        finished_at=datetime.fromisoformat(item["finished_at"]),
        seconds=float(item["seconds"]),
        outcome=word if is_cut else "done",
        summary=said if is_cut else item["summary"],
        bytes_from_source=int(item["bytes_from_source"]),
        copied_count=int(item["copied_count"]),
        deleted_count=int(item["deleted_count"]),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _read(store: SatelliteStore, name: str, parse: Callable[[Mapping[str, Any]], T], otherwise: T) -> T:
    document = store.read_document(name)
    if document is None:
        return otherwise
    try:
        return parse(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(f"{store.folder / name} is damaged: {error!r}") from error
