"""Going back to the previous generation at the site itself: everything for it is here, so no link is needed."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from harbor_satellite.errors import ConflictError, NotFoundError
from harbor_satellite.registry.copy import is_complete
from harbor_satellite.satellite.generations import load_generations, save_generations
from harbor_satellite.satellite.outcome import ImageOutcome
from harbor_satellite.satellite.pins import put_pins
from harbor_satellite.satellite.publication import delete_name
from harbor_satellite.satellite.standing import close_generation, move_to
from harbor_satellite.state.plan import Deletion, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.generations import Generations, SiteGeneration
    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.state.desired import LocalTag

_LOG = logging.getLogger(__name__)
_REASON = "rolled back at the site"


def roll_back(target: Registry, store: SatelliteStore) -> tuple[ImageOutcome, ...]:
    """Publish the previous generation again, and stay with it until the centre publishes another state.

    The caller holds the store's lock. Nothing is touched unless every image of the previous generation is whole, and
    the local registry lets us write. Safe to repeat: a site that is rolled back already stays as it is.

    Returns:
        What became of each name of either generation.

    Raises:
        NotFoundError: there is no previous generation.
        ConflictError: an image of it is not wholly at the site any more.
        RemoteError: the local registry refused.
    """
    before = load_generations(store)
    if before.held:
        return _finish(target, store, before)  # asked for again, it goes on where it was killed, or changes nothing
    if before.current is None or before.previous is None:
        raise NotFoundError("there is no previous generation to go back to")
    for hole in _holes(target, before.previous):
        digest = before.previous.names[hole].digest
        raise ConflictError(f"{hole} of the previous generation is not wholly here any more ({digest})")
    after = before.rolled_back(store.applied().state_digest)
    after = replace(after, pins=before.pins | after.pins_needed(), is_open=True)
    save_generations(store, replace(before, pins=after.pins))
    put_pins(target, after.pins_needed())  # before anything is decided: a registry that lets nobody write says so here
    save_generations(store, after)
    return _finish(target, store, after)


def take_back(target: Registry, store: SatelliteStore) -> tuple[ImageOutcome, ...] | None:
    """Publish again what was gone back from, without the source, and follow the centre again.

    The caller holds the store's lock. What is not wholly here any more, the next replication brings.

    Returns:
        What became of each name; None if the site was not rolled back.

    Raises:
        RemoteError: the local registry refused.
    """
    before = load_generations(store)
    if before.held is None:
        return None
    newer = before.previous
    if newer is None or not _is_whole(target, newer):
        release(store)
        return ()
    after = replace(before, current=newer, previous=before.current, held=None)
    after = replace(after, pins=before.pins | after.pins_needed(), is_open=True)
    save_generations(store, after)
    return _finish(target, store, after)


def finish_publication(target: Registry, store: SatelliteStore) -> None:
    """Complete a publication or a rollback that was killed while its tags moved: all its content is at the site.

    The caller holds the store's lock.

    Raises:
        RemoteError: the local registry refused; it stays on record as not finished.
    """
    generations = load_generations(store)
    if not generations.is_open or generations.current is None:
        return
    if generations.held:
        _finish(target, store, generations)
        return
    put_pins(target, generations.pins_needed())
    moved = move_to(target, store, generations.current)
    save_generations(store, replace(generations, is_open=False))  # what it did not prune yet, the next run will
    _LOG.info("finished publication state=%s tags=%d", generations.current.state_digest, len(moved))


def _finish(target: Registry, store: SatelliteStore, after: Generations) -> tuple[ImageOutcome, ...]:
    current, previous = after.current, after.previous
    if current is None or previous is None:
        return ()
    put_pins(target, after.pins_needed())
    _follow(store, current)
    moved = move_to(target, store, current)
    outcomes = [
        ImageOutcome("copied", str(name), str(standing.digest), _REASON, rule=Rule.ROLLBACK)
        if name in moved
        else ImageOutcome("kept", str(name), str(standing.digest), "the same in both", rule=Rule.ROLLBACK)
        for name, standing in sorted(current.names.items(), key=lambda item: item[0])
    ]
    owned = store.applied().owned
    outcomes += [
        delete_name(target, Deletion(name, standing.digest, _REASON), is_pinned=True)
        for name, standing in sorted(previous.names.items(), key=lambda item: item[0])
        if name not in current.names and not name.is_digest and standing.digest in owned.get(name, frozenset())
    ]
    close_generation(target, store)
    if all(outcome.action != "failed" for outcome in outcomes):
        store.save_applied(replace(store.applied(), is_converged=True))
    _LOG.info("rolled back from=%s to=%s", previous.state_digest, current.state_digest)
    return tuple(outcomes)


def release(store: SatelliteStore) -> bool:
    """Follow the centre again; the caller holds the store's lock. False if nothing was held."""
    generations = load_generations(store)
    if generations.held is None:
        return False
    save_generations(store, replace(generations, held=None))
    return True


def _is_whole(target: Registry, generation: SiteGeneration) -> bool:
    return next(_holes(target, generation), None) is None


def _holes(target: Registry, generation: SiteGeneration) -> Iterator[LocalTag]:
    for name, standing in sorted(generation.names.items(), key=lambda item: item[0]):
        if not is_complete(target, name.repository, standing.digest, standing.platforms):
            yield name


def _follow(store: SatelliteStore, generation: SiteGeneration) -> None:
    """Note that the site follows this generation now, and is not wholly on it yet."""
    applied = store.applied()
    store.save_applied(
        replace(
            applied,
            state_digest=generation.state_digest,
            is_converged=False,
            platforms={name: item.platforms for name, item in generation.names.items() if item.platforms},
            verified={name: mark for name, mark in applied.verified.items() if name in generation.names},
            groups=generation.groups,
            seen=applied.highest(),
            wanted=generation.digests(),
            quarantine=(),
            failures=(),
            next_try_at=None,
            look_at=0,
        )
    )
