"""Why a satellite is in its state, in one line for an operator. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from harbor_satellite.ground_control.fleet.fleet_states import FleetState
    from harbor_satellite.ground_control.models import Satellite

_SHOWN_GROUPS: Final = 3
_REASON_LONGEST: Final = 300  # characters of what the site itself says


@dataclass(frozen=True, slots=True)
class FollowedGroup:
    """One group of a satellite: where it should be, and where it is."""

    group: str
    wanted_generation: int
    """0: nothing of it yet."""
    applied_generation: int
    """As the site last said; 0: nothing."""
    is_held: bool
    """An operator has pinned the satellite there."""
    unresolved_count: int
    """Entries that the source does not have; a site without them is in step all the same."""


def reason_of(satellite: Satellite, state: FleetState, since: datetime | None, groups: Sequence[FollowedGroup]) -> str:
    """Say in one line why a satellite is in its state; empty: in step, and nothing to say.

    Args:
        satellite: its row.
        state: as ``fleet_states.state_of`` decided.
        since: when it began not to be in step.
        groups: what it follows.
    """
    parts = [_main_reason(satellite, state, since, groups)]
    parts += [f"{item.group} is held at generation {item.wanted_generation}" for item in groups if item.is_held]
    if unresolved := sum(item.unresolved_count for item in groups):
        parts.append(f"the source lacks {unresolved} of what its groups name")
    return "; ".join(part for part in parts if part)


def _main_reason(
    satellite: Satellite, state: FleetState, since: datetime | None, groups: Sequence[FollowedGroup]
) -> str:
    reason = ""
    match state:
        case "revoked":
            reason = f"revoked since {_text(satellite.lifecycle_since)}"
        case "never_seen":
            reason = f"has not reported since it was registered, {_text(satellite.created_at)}"
        case "stale":
            interval = satellite.report_interval_seconds
            expected = f", a report is due every {interval} s" if interval else ""
            reason = f"silent since {_text(satellite.last_seen)}{expected}"
        case "waiting":
            reason = "nothing is published for it yet"
        case "rolled_back":
            reason = f"went back at the site and stays there, since {_text(since)}{_moves(groups)}"
        case "failing":
            first = satellite.failure_reason[:_REASON_LONGEST]
            reason = f"{satellite.failure_count} failed since {_text(since)}{_moves(groups)}; first: {first}"
        case "behind":
            activity = satellite.activity[:_REASON_LONGEST]
            reason = f"behind since {_text(since)}{_moves(groups)}" + (f"; {activity}" if activity else "")
        case "in_step":
            pass
    return reason


def _moves(groups: Sequence[FollowedGroup]) -> str:
    moving = [item for item in groups if item.applied_generation != item.wanted_generation]
    shown = [
        f"{item.group} is at generation {item.applied_generation} of {item.wanted_generation}"
        for item in moving[:_SHOWN_GROUPS]
    ]
    more = len(moving) - len(shown)
    return "".join(f", {text}" for text in shown) + (f" and {more} more" if more else "")


def _text(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "the beginning"
