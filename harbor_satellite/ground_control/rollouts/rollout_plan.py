"""What a rollout does next, decided from values: waves, receipts and counts in, one action out. Pure.

What must not live here: a clock, a session. Whoever acts on an action asks again afterwards: every answer follows from
rows alone, so a rollout goes on wherever its last run ended.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal

from harbor_satellite.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

WAVES_LIMIT: Final = 50
_ALL: Final = 100  # percent

SatelliteOutcome = Literal["waiting", "released", "succeeded", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Wave:
    """Which satellites of a group move together, and how long they are watched before the next do."""

    name: str
    percent: float | None = None
    """Of all satellites of the group, those of earlier waves included."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """All of these."""
    satellites: tuple[str, ...] = ()
    """By name."""
    soak_seconds: int = 0
    """From the last receipt of the wave until the next wave; failures that come in it count."""

    def row(self) -> dict[str, Any]:
        """Return it as JSON values, for its row."""
        return {
            "name": self.name,
            "percent": self.percent,
            "labels": dict(self.labels),
            "satellites": list(self.satellites),
            "soak_seconds": self.soak_seconds,
        }


@dataclass(frozen=True, slots=True)
class Member:
    """One satellite that a rollout is to move."""

    id: int
    name: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    is_fit: bool = True
    """Whether it reports, and is in step: who is not says nothing about a generation, and comes last in a share."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known of one satellite since it was released."""

    released_at: datetime
    followed: int | None
    """The generation that its newest report names; None: none."""
    is_converged: bool
    """Whether that report says that it is wholly on the state it names."""
    failure_count: int
    """Of that report."""
    last_seen: datetime | None
    is_told: bool
    """Whether its state was published since it was released, or named the generation already."""
    was_silent: bool
    """Whether it was overdue when it was released, or never seen."""
    is_member: bool = True
    """Whether it still follows the group, and may."""
    has_state: bool = True
    """Whether anything was ever published for it."""
    open_seconds: float = 0.0
    """Since it was released, those in which its sync windows let it work."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a rollout stands."""

    state: str
    current_wave: int
    wave_count: int
    waiting: int
    """Satellites of the current wave that are still to be released."""
    open: int
    """Satellites, of any wave, that were released and have not answered."""
    succeeded: int
    """Of the current wave."""
    size: int
    """Satellites of the current wave."""
    failed: int
    """Of all waves."""
    max_failures: int
    soak_seconds: int
    wave_settled_at: datetime | None

    @property
    def is_last(self) -> bool:
        """Whether no wave comes after the current one."""
        return self.current_wave + 1 >= self.wave_count

    def soak_ends_at(self, now: datetime) -> datetime:
        """Return until when the current wave is watched."""
        return (self.wave_settled_at or now) + timedelta(seconds=self.soak_seconds)


class Action(Enum):
    """What is to be done with a rollout."""

    WAIT = "wait"
    RELEASE = "release"
    SOAK = "soak"
    ADVANCE = "advance"
    PAUSE = "pause"
    ABORT = "abort"
    COMPLETE = "complete"


def checked_waves(waves: Sequence[Wave]) -> tuple[Wave, ...]:
    """Return waves that reach everybody: a last one for everybody else is added if they do not.

    Raises:
        InvalidInputError: no wave or too many, a wave that says nothing or two things, or shares that do not grow.
    """
    if not 0 < len(waves) <= WAVES_LIMIT:
        raise InvalidInputError(f"a rollout has between 1 and {WAVES_LIMIT} waves, not {len(waves)}")
    share = 0.0
    for number, wave in enumerate(waves, 1):
        if sum((wave.percent is not None, bool(wave.labels), bool(wave.satellites))) != 1:
            raise InvalidInputError(f"wave {number} must have one of percent, labels and satellites")
        if wave.percent is not None:
            if not share < wave.percent <= _ALL:
                raise InvalidInputError(f"wave {number}: percent {wave.percent:g} is not above {share:g} and up to 100")
            share = wave.percent
        if wave.soak_seconds < 0:
            raise InvalidInputError(f"wave {number}: soak_seconds is negative")
    rest = () if waves[-1].percent == _ALL else (Wave("everybody else", percent=100.0),)
    return tuple(replace(wave, name=wave.name or f"wave {number}") for number, wave in enumerate((*waves, *rest), 1))


def assign(waves: Sequence[Wave], members: Collection[Member], group: str) -> dict[int, int]:
    """Return each member's wave, by its id: the first that names it, or in whose share it comes.

    Shares are filled with those that are fit first, in an order that is the same each time and differs between groups.
    """
    order = sorted(members, key=lambda member: (not member.is_fit, _spread(group, member.name), member.name))
    found: dict[int, int] = {}
    for number, wave in enumerate(waves):
        if wave.percent is not None:
            wanted = math.ceil(len(order) * wave.percent / _ALL) - len(found)
            found |= {member.id: number for member in [one for one in order if one.id not in found][: max(0, wanted)]}
            continue
        named = set(wave.satellites)
        for member in order:
            is_labelled = bool(wave.labels) and wave.labels.items() <= member.labels.items()
            if member.id not in found and (member.name in named or is_labelled):
                found[member.id] = number
    return found


def judge(
    before: SatelliteOutcome, receipt: Receipt, target: int, timeout_seconds: int, now: datetime
) -> tuple[SatelliteOutcome, str] | None:
    """Return what has become of a satellite that was released, and why; None: nothing new.

    1. It no longer follows the group: skipped.
    2. Its report says that it is wholly on a state with the target: succeeded, whatever was before.
    3. A report made since says that it tried the target and something failed: failed.
    4. It had succeeded, and is on another generation now: failed.
    5. It was silent when it was released, and still is: skipped, so that a dead site stops nobody.
    6. It has had its time, and nothing was ever published for it: skipped.
    7. It has had its time, by its own windows, and was told: failed.
    """
    has_reported = receipt.last_seen is not None and receipt.last_seen > receipt.released_at
    verdict: tuple[SatelliteOutcome, str] | None = None
    if not receipt.is_member:
        verdict = "skipped", "no longer follows the group, or was revoked"
    elif receipt.followed == target:
        if receipt.is_converged:
            verdict = "succeeded", ""
        elif receipt.failure_count and has_reported:
            verdict = "failed", f"reports {receipt.failure_count} failures on generation {target}"
    elif before == "succeeded":
        verdict = "failed", f"was on generation {target} and went to {_named(receipt)}"
    if verdict is None and before == "released":
        verdict = _overdue(receipt, timeout_seconds, now, has_reported=has_reported)
    return None if verdict is None or verdict[0] == before else verdict


def _overdue(
    receipt: Receipt, timeout_seconds: int, now: datetime, *, has_reported: bool
) -> tuple[SatelliteOutcome, str] | None:
    if receipt.was_silent and not has_reported:
        return "skipped", "silent since before it was released"
    waited = min((now - receipt.released_at).total_seconds(), receipt.open_seconds)
    if not receipt.has_state and waited > timeout_seconds:
        return "skipped", "nothing is published for it yet: another of its groups has no generation"
    if receipt.is_told and waited > timeout_seconds:
        return "failed", f"reports {_named(receipt)} after {waited:.0f} s in which it could work"
    return None


def _named(receipt: Receipt) -> str:
    return "nothing" if receipt.followed is None else f"generation {receipt.followed}"


def next_action(progress: Progress, now: datetime) -> tuple[Action, str]:  # noqa: PLR0911 - one for each case
    """Return what is to be done with a rollout now, and why."""
    if progress.state not in {"running", "soaking"}:
        return Action.WAIT, progress.state
    if progress.failed > progress.max_failures:
        return Action.ABORT, f"{progress.failed} satellites failed; {progress.max_failures} may"
    if progress.state == "running" and progress.waiting:
        return Action.RELEASE, ""
    if progress.open:
        return Action.WAIT, f"{progress.open} satellites have not answered"
    if progress.state == "running" and progress.size:
        if not progress.succeeded and not progress.is_last:
            return Action.PAUSE, "no satellite of the wave succeeded, so the wave has shown nothing"
        return Action.SOAK, ""
    if progress.state == "soaking" and now < (ends_at := progress.soak_ends_at(now)):
        return Action.WAIT, f"watched until {ends_at.isoformat(timespec='seconds')}"
    return (Action.COMPLETE if progress.is_last else Action.ADVANCE), ""


def _spread(group: str, satellite: str) -> str:
    return hashlib.sha256(f"{group}/{satellite}".encode()).hexdigest()
