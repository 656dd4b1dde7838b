"""Making names stand as a generation says: only those tags move that are not right, and each is on record before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from harbor_satellite.registry.copy import publish_tags
from harbor_satellite.satellite.generations import load_generations, save_generations
from harbor_satellite.satellite.pins import drop_pins, tag_of

if TYPE_CHECKING:
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.generations import SiteGeneration
    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.state.desired import LocalTag

_WORKERS: Final = 8
"""Requests to the local registry at once."""


def move_to(target: Registry, store: SatelliteStore, generation: SiteGeneration) -> frozenset[LocalTag]:
    """Move every tag of a generation that names something else, or is not there; all its content must be at the site.

    The caller holds the store's lock. What somebody at the site has put there already stays theirs.

    Returns:
        The names whose tags were moved.

    Raises:
        RemoteError: the local registry refused, or no longer has the content.
    """
    names = sorted(generation.names)
    with ThreadPoolExecutor(_WORKERS, "tag") as pool:
        heads = pool.map(lambda name: target.manifest_head(name.repository, tag_of(name)), names)
        moving = [
            name
            for name, head in zip(names, heads, strict=True)
            if head is None or head.digest != generation.names[name].digest
        ]
        _own(store, generation, moving)
        for _ in pool.map(
            lambda name: publish_tags(target, name.repository, generation.names[name].digest, (tag_of(name),)), moving
        ):
            pass
    return frozenset(moving)


def close_generation(target: Registry, store: SatelliteStore) -> None:
    """Note that a publication is done; pins that nothing needs any more go with the next run, older ones now."""
    generations = load_generations(store)
    kept = generations.pins_kept()
    left = drop_pins(target, generations.stale - kept)
    stale = left | (generations.pins - kept - generations.stale)
    save_generations(store, replace(generations, pins=generations.pins_needed() | stale, stale=stale, is_open=False))


def drop_stale(target: Registry, store: SatelliteStore) -> None:
    """Take away the pins that nothing needs since the last publication; for a run that has nothing else to do."""
    generations = load_generations(store)
    if generations.stale:
        left = drop_pins(target, generations.stale - generations.pins_kept())
        save_generations(store, replace(generations, pins=generations.pins_needed() | left, stale=left))


def _own(store: SatelliteStore, generation: SiteGeneration, moving: list[LocalTag]) -> None:
    if not moving:
        return
    applied = store.applied()
    owned = dict(applied.owned)
    for name in moving:
        owned[name] = owned.get(name, frozenset()) | {generation.names[name].digest}
    store.save_applied(replace(applied, owned=owned, is_converged=False))
