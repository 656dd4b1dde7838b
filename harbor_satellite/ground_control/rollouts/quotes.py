"""What a rollout would cost the sites: bytes, time, disk, and which of their limits it would break.

Bytes are "at most": whole artifacts of the target that the site's generation does not have. Layers that they share
with what a site holds are known at the site only. What is not known is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, select

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.ground_control.groups import groups
from harbor_satellite.ground_control.models import AppliedGroupRow, GroupState, Satellite, SatelliteGroup
from harbor_satellite.ground_control.rollouts import pins, rollouts
from harbor_satellite.ground_control.rollouts.rollout_plan import checked_waves
from harbor_satellite.ground_control.satellites import configs
from harbor_satellite.state.artifact import parse_state_artifact
from harbor_satellite.state.windows import SyncWindows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.models import Group
    from harbor_satellite.ground_control.rollouts.rollouts import RolloutPlan
    from harbor_satellite.state.config import SatelliteConfig

_WEEK_MINUTES: Final = 7 * 24 * 60


@dataclass(frozen=True, slots=True)
class SiteQuote:
    """What a rollout would cost one site; None: not known."""

    satellite: str
    from_generation: int
    """The one that it says it follows; 0: none."""
    bytes_at_most: int | None
    seconds: float | None
    disk_free_bytes: int | None
    fits_on_disk: bool | None
    breaks_caps: tuple[str, ...]
    """Of its config's ``daily_bytes`` and ``monthly_bytes``."""
    fits_in_window: bool | None


@dataclass(frozen=True, slots=True)
class Quote:
    """What a rollout would cost all satellites of a group, and one page of them by name."""

    group: str
    generation: int
    total: int
    bytes_at_most: int | None
    longest_seconds: float | None
    unknown_bytes: int
    unknown_seconds: int
    too_little_disk: int
    breaking_caps: int
    too_long_for_window: int
    sites: tuple[SiteQuote, ...]


def quote_rollout(session: Session, plan: RolloutPlan, *, limit: int = 100, offset: int = 0) -> Quote:
    """Return what a rollout would cost.

    Args:
        session: open; only read.
        plan: as for ``plan_rollout``; its waves are checked, and do not matter otherwise.
        limit: sites in the answer; the totals are of all.
        offset: sites to leave out, by name.

    Raises:
        InvalidInputError: a wave breaks its rule.
        NotFoundError: there is no such group, or the generation is not kept.
    """
    group = groups.show_group(session, plan.group)
    generation = rollouts.target_generation(session, group, plan.generation)
    checked_waves(plan.waves)
    rows = session.execute(_sites(group)).all()
    costs = _costs(session, group.id, generation, {row.generation or 0 for row in rows})
    quoted = []
    for chunk in pins.chunks(row.id for row in rows):
        settings = configs.effective_configs(session, chunk)
        quoted += [_quote(row, costs[row.generation or 0], settings[row.id]) for row in rows if row.id in settings]
    return _summed(group.name, generation, sorted(quoted, key=lambda site: site.satellite), limit, offset)


def _sites(group: Group) -> Any:
    applied = AppliedGroupRow
    is_receipt = and_(applied.satellite_id == Satellite.id, applied.group_name == group.name)
    return (
        select(
            Satellite.id,
            Satellite.name,
            Satellite.link_bytes_per_second,
            Satellite.storage_free_bytes,
            Satellite.bytes_today,
            Satellite.bytes_this_month,
            applied.generation,
        )
        .join(SatelliteGroup, SatelliteGroup.satellite_id == Satellite.id)
        .join(applied, is_receipt, isouter=True)
        .where(SatelliteGroup.group_id == group.id, Satellite.lifecycle != "revoked")
    )


def _costs(session: Session, group_id: int, target: int, generations: Iterable[int]) -> Mapping[int, int | None]:
    """Return the bytes from each generation to the target; each state is read once."""
    wanted = {target, *generations}
    query = select(GroupState.generation, GroupState.content).where(
        GroupState.group_id == group_id, GroupState.generation.in_(wanted)
    )
    sizes = {generation: _sizes(content, generation) for generation, content in session.execute(query)}
    # A site on a generation that is no longer kept may hold anything: all of the target, at most.
    return {generation: _total(sizes[target], sizes.get(generation, {})) for generation in wanted}


def _sizes(content: str, generation: int) -> dict[Any, int | None]:
    state = parse_state_artifact(content.encode(), None, f"generation {generation} in the database")
    return {entry.digest: entry.size for entry in state.artifacts if not entry.deleted}


def _total(target: Mapping[Any, int | None], held: Mapping[Any, int | None]) -> int | None:
    total = 0
    for digest, size in target.items():
        if digest in held:
            continue
        if size is None:
            return None
        total += size
    return total


def _quote(row: Row[Any], cost: int | None, config: SatelliteConfig) -> SiteQuote:
    speeds = [speed for speed in (row.link_bytes_per_second, config.bytes_per_second) if speed]
    # A cap alone says nothing of a link that may be slower: it only bounds what was measured.
    seconds = None if cost is None or not row.link_bytes_per_second else cost / min(speeds)
    seconds = 0.0 if cost == 0 else seconds
    free, reserve = row.storage_free_bytes, config.disk_reserve_bytes or 0
    caps = (
        ("daily_bytes", config.daily_bytes, row.bytes_today),
        ("monthly_bytes", config.monthly_bytes, row.bytes_this_month),
    )
    longest = _longest_window(config.sync_windows or ())
    return SiteQuote(
        satellite=row.name,
        from_generation=row.generation or 0,
        bytes_at_most=cost,
        seconds=seconds,
        disk_free_bytes=free,
        fits_on_disk=None if free is None or cost is None else cost + reserve <= free,
        breaks_caps=tuple(name for name, most, read in caps if most is not None and cost and read + cost > most),
        fits_in_window=None if longest is None or seconds is None else seconds <= longest,
    )


@lru_cache(maxsize=1024)
def _longest_window(windows: tuple[str, ...]) -> float | None:
    """Return the seconds of the longest window; None: always open."""
    try:
        edges = SyncWindows.parse(windows, "UTC").edges  # how long a window is does not depend on the zone
    except InvalidInputError:
        return None
    if not edges:
        return None
    spans = [(edges[place], edges[place + 1]) for place in range(0, len(edges), 2)]
    lengths = [end - begin for begin, end in spans]
    if len(spans) > 1 and spans[0][0] == 0 and spans[-1][1] == _WEEK_MINUTES:
        lengths.append(lengths[0] + lengths[-1])  # Sunday's night goes on into Monday
    return max(lengths) * 60.0


def _summed(group: str, generation: int, sites: list[SiteQuote], limit: int, offset: int) -> Quote:
    known = [site.bytes_at_most for site in sites if site.bytes_at_most is not None]
    return Quote(
        group=group,
        generation=generation,
        total=len(sites),
        bytes_at_most=sum(known) if len(known) == len(sites) else None,
        longest_seconds=max((site.seconds for site in sites if site.seconds is not None), default=None),
        unknown_bytes=len(sites) - len(known),
        unknown_seconds=sum(site.seconds is None for site in sites),
        too_little_disk=sum(site.fits_on_disk is False for site in sites),
        breaking_caps=sum(bool(site.breaks_caps) for site in sites),
        too_long_for_window=sum(site.fits_in_window is False for site in sites),
        sites=tuple(sites[offset : offset + limit]),
    )
