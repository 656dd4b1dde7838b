"""Which of the staged artifacts may get their tags now, and which wait for the rest of their group. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harbor_satellite.state.policy import DEFAULT_POLICY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from harbor_satellite.state.names import GroupName
    from harbor_satellite.state.plan import Copy
    from harbor_satellite.state.policy import GroupPolicy


@dataclass(frozen=True, slots=True)
class Readiness:
    """What may be published now."""

    publish: tuple[Copy, ...] = ()
    hold: Mapping[Copy, str] = field(default_factory=dict)
    """Staged, but to wait; with the reason."""
    waiting: Mapping[GroupName, int] = field(default_factory=dict)
    """Groups that are not complete, and how many of their artifacts are missing."""


def decide_readiness(
    copies: Iterable[Copy],
    staged: Collection[Copy],
    set_aside: Collection[Copy],
    policies: Mapping[GroupName, GroupPolicy],
) -> Readiness:
    """Decide which staged artifacts may be published.

    A group that is published together is complete once each of its artifacts is at the site, or set aside.
    An artifact of several groups is published with the first of them that is complete.

    Args:
        copies: everything that the plan brings.
        staged: those of them whose content is at the site, whole and verified.
        set_aside: those that their groups do not wait for.
        policies: of every group; one that is missing here has the default.
    """
    missing = [copy for copy in copies if copy not in staged and copy not in set_aside]
    counts = Counter(group for copy in missing for group in copy.groups)
    waiting = {
        group: count
        for group, count in sorted(counts.items())
        if policies.get(group, DEFAULT_POLICY).publish == "together"
    }
    publish, hold = [], {}
    for copy in copies:
        if copy not in staged:
            continue
        if copy.is_signature or not copy.groups or any(group not in waiting for group in copy.groups):
            publish.append(copy)
        else:
            hold[copy] = "; ".join(f"group {group} lacks {waiting[group]} more images" for group in copy.groups)
    return Readiness(tuple(publish), hold, waiting)
