"""Publishing a group: its rows → a state artifact at the source.

Each step is level-triggered and safe to repeat: it compares what should be published with what was, and
pushes only what differs. The row of a new generation and its push stand or fall together.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError
from harbor_satellite.ground_control.groups import group_states, groups
from harbor_satellite.ground_control.groups.group_entries import GroupEntry, merge_ways
from harbor_satellite.ground_control.groups.selection import REFERRER, Evaluation, Selection, without_tags
from harbor_satellite.ground_control.groups.unresolved import Unresolved
from harbor_satellite.ground_control.rollouts import pins
from harbor_satellite.registry.resolve import cosign_tags, describe, resolve_tag
from harbor_satellite.registry.state_pull import pull_state
from harbor_satellite.registry.state_store import state_digest
from harbor_satellite.state.artifact import (
    STATE_MAX_BYTES,
    StateArtifact,
    StateEntry,
    parse_state_artifact,
    state_artifact_json,
)
from harbor_satellite.state.names import group_name, group_state_repository

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.groups.group_states import GroupSpec
    from harbor_satellite.ground_control.groups.signing import Pusher
    from harbor_satellite.harbor.client import HarborClient
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.registry.closure import Closure

_LOG = logging.getLogger(__name__)
_GENERATION_LIMIT: Final = 2_000_000_000  # no centre gets there by counting; the database's column ends soon after
_RESOLVE_WORKERS: Final = 8
"""Artifacts walked at once; the source is near."""


@dataclass(frozen=True, slots=True)
class ResolvedGroup:
    """A group's entries as they are at the source now."""

    entries: tuple[StateEntry, ...]
    unresolved: tuple[Unresolved, ...]


_Found: TypeAlias = "tuple[StateEntry | None, Closure | None, Unresolved | None]"
"""One entry as it shall be published, what hangs on it at the source, and what was wrong with it."""
_Published: TypeAlias = "dict[tuple[str, str], StateEntry]"
"""What was published last, by repository and tag."""
NO_SELECTION: Final = Selection()


def resolve_group(source: Registry, spec: GroupSpec, selection: Selection = NO_SELECTION) -> ResolvedGroup:
    """Turn a group's entries into what its sites shall hold.

    A tag is resolved to the digest it names now. An entry that cannot be resolved stays as it was last
    published, so that a source which lost an image takes it from no site; one with a digest of its own is
    published all the same: the site, too, will say what is wrong with it.

    Args:
        source: where the group's artifacts are.
        spec: the group as it was read.
        selection: what its selectors give; see ``selection.Evaluation``.
    """
    asked = merge_ways(spec.entries, spec.members, selection.entries)
    wanted = [(entry, tag) for entry in asked if not entry.deleted for tag in entry.tags or ("",)]
    published = _by_tag(spec)
    with ThreadPoolExecutor(_RESOLVE_WORKERS, "resolve") as pool:
        found = list(pool.map(lambda item: _resolve(source, spec, published, *item), wanted))
    closures: dict[str, list[Closure]] = {}
    for entry, closure, _ in found:
        if entry and closure:
            closures.setdefault(entry.repository, []).append(closure)
    entries = [entry for entry, _, _ in found if entry]
    beside = _cosign_entries(source, spec, published, closures, entries)
    entries += [entry for entry, _, _ in beside if entry]
    # Tags that are named but not to be held, too, are not what a selector may keep.
    named = {(entry.repository, tag) for entry in asked for tag in entry.tags}
    named |= {(entry.repository, tag) for entry in entries for tag in entry.tags}
    entries += without_tags(selection.kept, named)
    unresolved = tuple(problem for _, _, problem in [*found, *beside] if problem)
    return ResolvedGroup(_merge_tags(entries), (*unresolved, *selection.problems))


def look_up_group(source: Registry, harbor: HarborClient | None, spec: GroupSpec) -> ResolvedGroup:
    """Look up what a group shall hold now: what its selectors give, and then all of it at the source.

    Args:
        source: where the group's artifacts are.
        harbor: whom its selectors are looked up at; None where the source is no Harbor.
        spec: the group as it was read.
    """
    selection = Evaluation(harbor, source, spec.published).run(spec.selectors) if spec.selectors else NO_SELECTION
    return resolve_group(source, spec, selection)


def publish_group(
    session: Session,
    pusher: Pusher,
    spec: GroupSpec,
    resolved: ResolvedGroup,
    *,
    registry: str,
    now: datetime,
    is_lost: bool = False,
    shown: int = 0,
) -> StateArtifact | None:
    """Push the next generation of a group's state if its content changed, or it would expire too soon.

    The group's row is locked first and read again: what was resolved from older rows, or beside another
    publisher, is not published.

    Args:
        session: open; the row of the new generation is flushed before the push and committed by the caller.
        pusher: to the source; one that signs, if states are signed.
        spec: the group as it was read before resolving.
        resolved: its entries at the source.
        registry: the source's URL as the sites reach it.
        now: this moment.
        is_lost: the source has lost what was published last, so it is published anew.
        shown: the generation that the source shows; the next one is behind neither.

    Returns:
        What was published, or None if nothing had to be.

    Raises:
        NotFoundError: the group was deleted meanwhile.
        ConflictError: the group was changed or published meanwhile; read it and resolve it again.
        InvalidInputError: it names more than a state can hold; nothing is recorded.
        RemoteError: the source refused the push; nothing is recorded.
        SignatureError: it could not be signed; nothing is recorded.
    """
    group_states.lock_unchanged(session, spec)
    lifetime = timedelta(seconds=spec.expires_after_seconds) if spec.expires_after_seconds else None
    state = StateArtifact(
        group=spec.name,
        registry=registry,
        artifacts=resolved.entries,
        generation=max(spec.generation, shown) + 1,
        created_at=now,
        expires_at=now + lifetime if lifetime else None,
        policy=spec.policy,
    )
    is_same = spec.published is not None and spec.published.same_content(state)
    if is_same and not is_lost and not _expires_soon(spec.published, lifetime, now):
        return None
    raw = state_artifact_json(state)
    if len(raw) > STATE_MAX_BYTES:  # a pattern may take more than it was meant to; no site reads so much
        message = f"the state of group {spec.name} has {len(raw)} bytes; at most {STATE_MAX_BYTES} can be published"
        raise InvalidInputError(message)
    group_states.record_group_state(session, spec.name, state.generation, state_digest(raw), raw, now=now)
    pusher.push(group_state_repository(spec.name), (str(state.generation), "latest"), raw)
    _LOG.info("published group=%s generation=%d artifacts=%d", spec.name, state.generation, len(state.artifacts))
    return state


def is_group_lost(source: Registry, spec: GroupSpec) -> bool:
    """Tell whether the source does not show sites the generation that was published last."""
    found = source.manifest_head(group_state_repository(spec.name), "latest")
    return (found.digest if found else None) != spec.published_digest


def shown_generation(source: Registry, spec: GroupSpec) -> int:
    """Return the generation of a group that the source shows; 0 if there is none that can be read.

    It is ahead of ours after a restore of the centre's database, and sites take none that is behind what they had.
    """
    repository = group_state_repository(spec.name)
    try:
        state = parse_state_artifact(pull_state(source, repository, "latest").raw, None, repository)
    except HarborSatelliteError as error:
        _LOG.warning("no generation at the source group=%s reason=%s", spec.name, error)
        return 0
    return state.generation if state.group == spec.name and state.generation < _GENERATION_LIMIT else 0


def drop_generation(session: Session, source: Registry, group: str, generation: int) -> None:
    """Take the tag of a generation away that is past the limit; one that is gone already is fine.

    One that a pin, a staged group or a rollout still names stays: sites may yet have to pull it.
    """
    too_old = generation - group_states.KEPT_GENERATIONS
    if too_old > 0 and not pins.is_generation_needed(session, groups.show_group(session, group).id, too_old):
        source.manifest_delete(group_state_repository(group_name(group)), str(too_old))


def _resolve(source: Registry, spec: GroupSpec, published: _Published, entry: GroupEntry, tag: str) -> _Found:
    tags = (tag,) if tag else ()
    reference = f"{entry.repository}:{tag}" if tag else f"{entry.repository}@{entry.digest}"
    digest: Digest | None = entry.digest
    try:
        digest = digest or resolve_tag(source, entry.repository, tag)
        described, closure = describe(source, _entry(entry, tags, digest))
    except HarborSatelliteError as error:
        problem = Unresolved(reference, str(error))
        _LOG.warning("not resolved group=%s reference=%s reason=%s", spec.name, reference, error)
        before = published.get((entry.repository, tag))
        if before is not None and entry.digest in {None, before.digest}:
            return replace(before, tags=tags, priority=entry.priority), None, problem
        return (_entry(entry, tags, entry.digest) if entry.digest else None), None, problem
    return described, closure, None


def _entry(entry: GroupEntry, tags: tuple[str, ...], digest: Digest) -> StateEntry:
    return StateEntry(entry.repository, tags, digest, labels=entry.labels, type=entry.type, priority=entry.priority)


def _by_tag(spec: GroupSpec) -> _Published:
    published = spec.published.artifacts if spec.published else ()
    return {(entry.repository, tag): entry for entry in published for tag in entry.tags}


def _cosign_entries(
    source: Registry,
    spec: GroupSpec,
    published: _Published,
    closures: dict[str, list[Closure]],
    entries: list[StateEntry],
) -> list[_Found]:
    """Find what older cosign keeps under tags of its own, as entries beside the artifacts they belong to.

    A signature that cannot be read holds up its image no more than an image the others.
    """
    named = {(entry.repository, tag) for entry in entries for tag in entry.tags}
    priorities: dict[str, int] = {}
    for entry in entries:
        # A signature comes no later than the first image that it may belong to.
        priorities[entry.repository] = max(entry.priority, priorities.get(entry.repository, entry.priority))

    def beside(repository: str) -> list[_Found]:
        found = []
        for tag in cosign_tags(source, repository, closures[repository]):
            if (repository, tag) not in named:
                wanted = GroupEntry(repository, (tag,), type=REFERRER, priority=priorities[repository])
                found.append(_resolve(source, spec, published, wanted, tag))
        return found

    with ThreadPoolExecutor(_RESOLVE_WORKERS, "cosign") as pool:
        return [found for each in pool.map(beside, closures) for found in each]


def _merge_tags(entries: Iterable[StateEntry]) -> tuple[StateEntry, ...]:
    """Give an artifact with several tags one entry, as the original does; its highest priority counts."""
    merged: dict[tuple[str, Digest, str], StateEntry] = {}
    for entry in entries:
        key = (entry.repository, entry.digest, entry.type)
        first = merged.get(key, entry)
        tags = tuple(sorted({*first.tags, *entry.tags}))
        merged[key] = replace(first, tags=tags, priority=max(first.priority, entry.priority))
    return tuple(sorted(merged.values(), key=lambda entry: (entry.repository, entry.tags, entry.digest)))


def _expires_soon(published: StateArtifact | None, lifetime: timedelta | None, now: datetime) -> bool:
    """Tell whether less than half of the life is left, or the wish for one changed."""
    if published is None:
        return True
    if lifetime is None or published.expires_at is None:
        return (lifetime is None) != (published.expires_at is None)
    return published.expires_at - now < lifetime / 2
