"""Going back to the previous generation at the site itself: everything for it is here, so no link is needed."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from harbor_satellite.errors import ConflictError, NotFoundError
from harbor_satellite.registry.copy import is_complete, publish_tags
from harbor_satellite.satellite.generations import load_generations, save_generations
from harbor_satellite.satellite.outcome import ImageOutcome
from harbor_satellite.satellite.pins import drop_pins, pin_tag, put_pins
from harbor_satellite.satellite.publication import delete_name
from harbor_satellite.state.plan import Deletion, Rule

if TYPE_CHECKING:
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.generations import Generations, SiteGeneration
    from harbor_satellite.satellite.store import SatelliteStore

_LOG = logging.getLogger(__name__)
_REASON = "rolled back at the site"


def roll_back(target: Registry, store: SatelliteStore) -> tuple[ImageOutcome, ...]:
    """Publish the previous generation again, and stay with it until the centre publishes another state.

    The caller holds the store's lock. Nothing is touched unless every image of the previous generation is whole.

    Returns:
        What became of each name of either generation.

    Raises:
        NotFoundError: there is no previous generation.
        ConflictError: an image of it is not wholly at the site any more.
        RemoteError: the local registry refused.
    """
    before = load_generations(store)
    current, previous = before.current, before.previous
    if current is None or previous is None:
        raise NotFoundError("there is no previous generation to go back to")
    _check_whole(target, previous)
    after = before.rolled_back(store.applied().state_digest)
    save_generations(store, replace(after, pins=before.pins | after.pins_needed(), is_open=True))
    put_pins(target, after.pins_needed())
    _record(store, after, previous)
    outcomes = _publish(target, current, previous)
    left = drop_pins(target, before.pins - after.pins_kept())
    save_generations(store, replace(after, pins=after.pins_needed() | left, is_open=False))
    if all(outcome.action != "failed" for outcome in outcomes):
        store.save_applied(replace(store.applied(), is_converged=True))
    _LOG.info("rolled back from=%s to=%s", current.state_digest, previous.state_digest)
    return tuple(outcomes)


def release(store: SatelliteStore) -> bool:
    """Follow the centre again; the caller holds the store's lock. False if nothing was held."""
    generations = load_generations(store)
    if generations.held is None:
        return False
    save_generations(store, replace(generations, held=None))
    return True


def _check_whole(target: Registry, previous: SiteGeneration) -> None:
    for name, standing in sorted(previous.names.items(), key=lambda item: item[0]):
        if not is_complete(target, name.repository, standing.digest, standing.platforms):
            raise ConflictError(f"{name} of the previous generation is not wholly here any more ({standing.digest})")


def _record(store: SatelliteStore, after: Generations, previous: SiteGeneration) -> None:
    """Note what is about to stand, before any tag moves: nothing that is put under a name is ever forgotten."""
    applied = store.applied()
    owned = dict(applied.owned)
    for name, standing in previous.names.items():
        owned[name] = owned.get(name, frozenset()) | {standing.digest}
    store.save_applied(
        replace(
            applied,
            state_digest=previous.state_digest,
            is_converged=False,
            platforms={name: item.platforms for name, item in previous.names.items() if item.platforms},
            verified={name: mark for name, mark in applied.verified.items() if previous.names.get(name)},
            groups=previous.groups,
            wanted=previous.digests(),
            owned=owned,
            quarantine=(),
            failures=(),
            next_try_at=None,
            look_at=0,
        )
    )
    _LOG.debug("held state=%s", after.held)


def _publish(target: Registry, current: SiteGeneration, previous: SiteGeneration) -> list[ImageOutcome]:
    outcomes = []
    for name, standing in sorted(previous.names.items(), key=lambda item: item[0]):
        digest = standing.digest
        stood = current.names.get(name)
        if stood is None or stood.digest != digest:
            publish_tags(target, name.repository, digest, (pin_tag(digest) if name.is_digest else name.tag,))
            outcomes.append(ImageOutcome("copied", str(name), str(digest), _REASON, rule=Rule.ROLLBACK))
        else:
            outcomes.append(ImageOutcome("kept", str(name), str(digest), "the same in both", rule=Rule.ROLLBACK))
    outcomes += [
        delete_name(target, Deletion(name, standing.digest, _REASON), is_pinned=True)
        for name, standing in sorted(current.names.items(), key=lambda item: item[0])
        if name not in previous.names and not name.is_digest
    ]
    return outcomes
