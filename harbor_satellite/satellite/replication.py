"""The steps of a replication: fetch the states, look at what is here, stage, publish, prune.

The flow runs each step as a task; ``edge sync`` and an agent without Prefect run them as they are. No
step tries twice, and none leaves anything half-published: a tag moves only after all its content is here.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError, RemoteError, UntrustedDataError
from harbor_satellite.oci.descriptor import Manifest, parse_manifest
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.copy import Copier, KnownBlobs, is_complete, publish_tags
from harbor_satellite.registry.state_store import pull_state
from harbor_satellite.satellite.outcome import ImageOutcome, failed_outcome
from harbor_satellite.state.artifact import SatelliteState, parse_satellite_state, parse_state_artifact
from harbor_satellite.state.plan import (
    Copy,
    DesiredArtifact,
    LocalTag,
    ReplicationPlan,
    merge_states,
    plan_replication,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.connections import Connections
    from harbor_satellite.satellite.store import Applied, SatelliteStore
    from harbor_satellite.state.artifact import StateArtifact
    from harbor_satellite.state.plan import Deletion

_LOG = logging.getLogger(__name__)
_LOOK_WORKERS: Final = 8
"""Requests to the local registry at once while looking at what is there."""
_NOT_FOUND: Final = 404
_NO_TAG_DELETION: Final = frozenset({400, 405, 501})
"""How a registry answers that deletes manifests by digest only (distribution-spec, "Deleting tags")."""


@dataclass(frozen=True, slots=True)
class FetchedState:
    """What the centre decided, as of one fetch."""

    digest: Digest
    """Of the satellite state; the whole decision hangs on it."""
    state: SatelliteState
    groups: tuple[StateArtifact, ...]
    group_digests: tuple[Digest, ...]
    """Of each group's state artifact, in the order of ``groups``."""


def current_state_digest(connections: Connections, state_url: str) -> Digest:
    """Ask the source which satellite state is current: the one request of a run without changes.

    Raises:
        RemoteError: there is none (404), or the source refused or could not be reached.
    """
    reference = Reference.parse(state_url)
    source = connections.source(_registry_url(state_url))
    found = source.manifest_head(reference.repository, reference.target)
    if found is None:
        raise RemoteError(f"no satellite state at {reference}", status=_NOT_FOUND)
    return found.digest


def fetch_state(connections: Connections, state_url: str, now: datetime) -> FetchedState:
    """Fetch the satellite state and the state of each of its groups, verified.

    Raises:
        RemoteError: one of them is not there, or the source refused or could not be reached.
        UntrustedDataError: one of them is damaged, malformed, or has expired.
    """
    reference = Reference.parse(state_url)
    source = connections.source(_registry_url(state_url))
    pulled = pull_state(source, reference.repository, reference.target)
    satellite = parse_satellite_state(pulled.raw, None, str(reference))
    groups, digests = [], []
    for pin in satellite.groups:
        # The state's own registry name may be the centre's inside address: the way the site came in is known to work.
        group = pull_state(source, pin.state.repository, pin.state.target)
        state = parse_state_artifact(group.raw, None, str(pin.state))
        if state.group != pin.group:
            raise UntrustedDataError(f"{pin.state} holds the state of group {state.group}, not of {pin.group}")
        if state.has_expired(now):
            raise UntrustedDataError(
                f"the state of group {pin.group} expired at {state.expires_at}; keeping what is here"
            )
        groups.append(state)
        digests.append(group.digest)
    return FetchedState(pulled.digest, satellite, tuple(groups), tuple(digests))


def is_unchanged(target: Registry, applied: Applied, current: Digest) -> bool:
    """Tell whether there is nothing to do: the state is the one applied, and what it asked for is still here.

    A site that is converged owns exactly the names it should hold, so one look at each of them is enough.
    """
    if not applied.is_converged or applied.state_digest != current:
        return False
    with ThreadPoolExecutor(_LOOK_WORKERS, "look") as pool:
        found = pool.map(lambda name: target.manifest_head(name.repository, name.tag), applied.owned)
        return all(
            item is not None and item.digest in applied.owned[name]
            for name, item in zip(applied.owned, found, strict=True)
        )


def make_plan(
    target: Registry,
    states: Iterable[StateArtifact],
    owned: Mapping[LocalTag, frozenset[Digest]],
    *,
    is_deep: bool = False,
    platforms: tuple[Platform, ...] = (),
) -> ReplicationPlan:
    """Look at the local registry and decide what to copy, keep and delete.

    Args:
        target: the local registry.
        states: the states of all groups.
        owned: what this satellite copied.
        is_deep: also ask for every blob of what seems to be there already.
        platforms: children of indexes that shall be there; empty: all.
    """
    desired = merge_states(states)
    names = sorted(desired.names | owned.keys())
    with ThreadPoolExecutor(_LOOK_WORKERS, "look") as pool:
        found = pool.map(lambda name: target.manifest_head(name.repository, name.tag), names)
        present = {name: item.digest for name, item in zip(names, found, strict=True) if item is not None}
        here = [item for item in desired.artifacts if present.get(item.name) == item.digest]
        lacking = pool.map(lambda item: _is_lacking(target, item, platforms, is_deep=is_deep), here)
        incomplete = {item.name for item, is_lacking in zip(here, lacking, strict=True) if is_lacking}
    return plan_replication(desired, present, owned, incomplete)


def _is_lacking(target: Registry, item: DesiredArtifact, platforms: tuple[Platform, ...], *, is_deep: bool) -> bool:
    repository = item.name.repository
    if is_deep and not is_complete(target, repository, item.digest, platforms):
        return True
    return any(target.manifest_head(repository, str(referrer)) is None for referrer in item.referrers or ())


def known_blobs(target: Registry, owned: Mapping[LocalTag, frozenset[Digest]]) -> KnownBlobs:
    """Prepare the map of blobs that the site holds already; read from the local registry when first asked."""

    def lookup() -> dict[Digest, str]:
        repositories: dict[Digest, str] = {}
        pending = [(name.repository, digest) for name, digests in owned.items() for digest in digests]
        seen: set[tuple[str, Digest]] = set()
        while pending:
            repository, digest = pending.pop()
            if (repository, digest) in seen:
                continue
            seen.add((repository, digest))
            manifest = _peek(target, repository, digest)
            pending.extend((repository, child.digest) for child in manifest.manifests)
            for blob in manifest.blobs:
                repositories.setdefault(blob.digest, repository)
        return repositories

    return KnownBlobs(lookup)


def _peek(target: Registry, repository: str, digest: Digest) -> Manifest:
    try:
        content = target.manifest_get(repository, str(digest))
        return parse_manifest(content.raw, content.media_type, f"{repository}@{digest}")
    except HarborSatelliteError:
        return Manifest("")  # only a hint is lost: what is not known here is copied


def stage(
    connections: Connections,
    copy: Copy,
    known: KnownBlobs,
    platforms: tuple[Platform, ...] = (),
    on_bytes: Callable[[int], None] = lambda _: None,
) -> ImageOutcome:
    """Bring one artifact to the site by digest, moving no tag yet.

    Raises:
        HarborSatelliteError: why it could not be brought; nothing that was here is touched.
    """
    started = time.monotonic()
    copier = Copier(connections.source(copy.source), connections.target, known, platforms, on_bytes)
    result = copier.stage(copy.repository, copy.digest, copy.referrers)
    seconds = time.monotonic() - started
    _LOG.info(
        "copied reference=%s digest=%s bytes=%d blobs=%d mounted=%d seconds=%.2f",
        copy,
        copy.digest,
        result.bytes_copied,
        result.blobs_copied,
        result.blobs_mounted,
        seconds,
    )
    return ImageOutcome("copied", str(copy), str(copy.digest), copy.reason, result.bytes_copied, seconds)


def publish_and_prune(
    target: Registry, store: SatelliteStore, plan: ReplicationPlan, staged: Mapping[Copy, ImageOutcome]
) -> tuple[ImageOutcome, ...]:
    """Move tags to what is staged, then take away what no group wants; one pass, deletions last.

    Each name is recorded as this satellite's own *before* its tag moves, so that nothing it put there is
    ever forgotten, whenever it is killed.

    Args:
        target: the local registry.
        store: keeps the record.
        plan: what was decided.
        staged: outcome of each copy of the plan; only those that were copied are published.
    """
    ready = [copy for copy in plan.copy if staged[copy].action == "copied"]
    _record(store, {name: copy.digest for copy in ready for name in copy.names}, settle=False)
    outcomes = {copy: staged[copy] for copy in plan.copy}
    for copy in ready:
        try:
            publish_tags(target, copy.repository, copy.digest, copy.tags or (pin_tag(copy.digest),))
        except HarborSatelliteError as error:
            outcomes[copy] = failed_outcome(str(copy), copy.digest, error)
    published = {name: copy.digest for copy in ready if outcomes[copy].action == "copied" for name in copy.names}
    _record(store, published, settle=True)
    deleted = tuple(_delete(target, deletion) for deletion in plan.delete)
    _forget(store, plan, deleted)
    kept = (ImageOutcome("kept", str(item.name), str(item.digest), item.reason) for item in plan.keep)
    refused = (ImageOutcome("failed", str(item.name), "", item.reason) for item in plan.refuse)
    return (*outcomes.values(), *kept, *deleted, *refused)


def pin_tag(digest: Digest) -> str:
    """Return the tag that keeps an artifact without one from a registry's garbage collection."""
    return f"satellite-pin-{digest.hex[:40]}"


def _delete(target: Registry, deletion: Deletion) -> ImageOutcome:
    name = deletion.name
    is_pin = ":" in name.tag
    try:
        _delete_tag(target, name.repository, pin_tag(deletion.digest) if is_pin else name.tag, deletion.digest)
        if is_pin:
            target.manifest_delete(name.repository, str(deletion.digest))
    except HarborSatelliteError as error:
        return failed_outcome(str(name), deletion.digest, error)
    _LOG.info("deleted reference=%s digest=%s reason=%s", name, deletion.digest, deletion.reason)
    return ImageOutcome("deleted", str(name), str(deletion.digest), deletion.reason)


def _delete_tag(target: Registry, repository: str, tag: str, digest: Digest) -> None:
    """Delete a tag; where the registry cannot, its manifest, unless another tag needs it."""
    try:
        target.manifest_delete(repository, tag)
    except RemoteError as error:
        if error.status not in _NO_TAG_DELETION:
            raise
        for other in target.tag_list(repository):
            found = target.manifest_head(repository, other) if other != tag else None
            if found is not None and found.digest == digest:
                raise
        target.manifest_delete(repository, str(digest))


def _record(store: SatelliteStore, names: Mapping[LocalTag, Digest], *, settle: bool) -> None:
    if not names:
        return
    applied = store.applied()
    owned = dict(applied.owned)
    for name, digest in names.items():
        owned[name] = frozenset({digest}) if settle else owned.get(name, frozenset()) | {digest}
    store.save_applied(replace(applied, owned=owned))


def _forget(store: SatelliteStore, plan: ReplicationPlan, deleted: tuple[ImageOutcome, ...]) -> None:
    gone = {item.name for item, outcome in zip(plan.delete, deleted, strict=True) if outcome.action == "deleted"}
    if gone:
        applied = store.applied()
        owned = {name: digests for name, digests in applied.owned.items() if name not in gone}
        store.save_applied(replace(applied, owned=owned))


def _registry_url(state_url: str) -> str:
    """Cut a state's URL down to its registry's, keeping the scheme."""
    scheme, separator, rest = state_url.rpartition("://")
    return f"{scheme}{separator}{rest.partition('/')[0]}"


def utc_now() -> datetime:
    """Return the time now; the one clock of the site's library code."""
    return datetime.now(UTC)
