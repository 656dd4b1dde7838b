"""Looking at what the local registry really holds: for the plan, and for the cheap look of a run without changes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Final

from harbor_satellite.registry.copy import is_complete
from harbor_satellite.satellite.pins import tag_of
from harbor_satellite.satellite.staging import demands_mark, demands_of
from harbor_satellite.state.desired import merge_states
from harbor_satellite.state.plan import is_signature, plan_replication, set_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.applied import Applied
    from harbor_satellite.satellite.options import ReplicationOptions
    from harbor_satellite.state.artifact import StateArtifact
    from harbor_satellite.state.desired import DesiredArtifact, LocalTag
    from harbor_satellite.state.plan import ReplicationPlan

_LOOK_WORKERS: Final = 8
"""Requests to the local registry at once."""
_LOOK_SECONDS: Final = 0.08
"""How long the cheap look goes on; what it did not get to comes first next time."""
_LOOK_STEP: Final = 16
"""Names of the cheap look between two glances at the clock; so many are looked at in any case."""


def look_around(
    target: Registry, standing: Mapping[LocalTag, Digest], start: int, *, clock: Callable[[], float] = time.monotonic
) -> tuple[bool, int]:
    """Take a cheap look at the local registry: does what stood there after the last run still stand?

    Bounded in time, so that a run without changes costs next to nothing whatever the number of images; it goes
    round, so that each name has its turn.

    Args:
        target: the local registry.
        standing: what should be there under each name.
        start: where among them to begin: where the last look ended.
        clock: monotonic seconds.

    Returns:
        Whether all that was seen is right, and where the next look begins.
    """
    names = sorted(standing.items())
    if not names:
        return True, 0
    start %= len(names)
    turn = iter(names[start:] + names[:start])
    until, seen = clock() + _LOOK_SECONDS, 0
    with ThreadPoolExecutor(_LOOK_WORKERS, "look") as pool:
        while step := list(islice(turn, _LOOK_STEP)):
            found = pool.map(lambda item: target.manifest_head(item[0].repository, tag_of(item[0])), step)
            if any(head is None or head.digest != digest for head, (_, digest) in zip(found, step, strict=True)):
                return False, start
            seen += len(step)
            if clock() >= until:
                break
    return True, (start + seen) % len(names)


def make_plan(
    target: Registry,
    states: Iterable[StateArtifact],
    applied: Applied,
    options: ReplicationOptions,
    now: datetime,
) -> ReplicationPlan:
    """Look at the local registry and decide what to copy, keep and delete.

    Args:
        target: the local registry.
        states: the states of all groups.
        applied: what this satellite copied, and how.
        options: the site's choices.
        now: this moment; what is in quarantine beyond it waits.
    """
    desired = merge_states(states, options.platforms)
    names = sorted(desired.names | applied.owned.keys())
    with ThreadPoolExecutor(_LOOK_WORKERS, "look") as pool:
        found = pool.map(lambda name: target.manifest_head(name.repository, tag_of(name)), names)
        present = {name: item.digest for name, item in zip(names, found, strict=True) if item is not None}
        here = [item for item in desired.artifacts if present.get(item.name) == item.digest]
        lacking = pool.map(lambda item: _is_lacking(target, item, applied, options), here)
        incomplete = {item.name for item, is_lacking in zip(here, lacking, strict=True) if is_lacking}
    plan = plan_replication(desired, present, applied.owned, incomplete)
    return plan if options.is_asked_for else set_aside(plan, applied.quarantine, now)


def _is_lacking(target: Registry, item: DesiredArtifact, applied: Applied, options: ReplicationOptions) -> bool:
    repository, platforms = item.name.repository, item.wish.platforms
    # An index says nothing about its children where only some were brought: each wanted one is looked at.
    is_sparse = bool(platforms) or item.name in applied.platforms
    if (options.is_deep or is_sparse) and not is_complete(target, repository, item.digest, platforms):
        return True
    demands = demands_of(item.wish.required_keys, options.image_keys)
    if demands and not is_signature(item) and applied.verified.get(item.name) != demands_mark(item.digest, demands):
        return True  # its signatures were not checked under this policy yet
    return any(target.manifest_head(repository, str(referrer)) is None for referrer in item.referrers or ())
