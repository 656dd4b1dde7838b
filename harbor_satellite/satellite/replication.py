"""The steps of a replication up to publishing: fetch the states, look at what is here, stage.

The flow runs each step as a task; ``edge sync`` and an agent without Prefect run them as they are. No
step tries twice.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError, RemoteError, UntrustedDataError
from harbor_satellite.oci.descriptor import Manifest, parse_manifest
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.copy import Copier, KnownBlobs, is_complete
from harbor_satellite.registry.state_store import pull_state
from harbor_satellite.satellite.outcome import ImageOutcome
from harbor_satellite.state.artifact import parse_state_artifact
from harbor_satellite.state.desired import DesiredArtifact, LocalTag, merge_states
from harbor_satellite.state.plan import Copy, ReplicationPlan, plan_replication
from harbor_satellite.state.satellite_state import SatelliteState, parse_satellite_state

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.connections import Connections
    from harbor_satellite.satellite.store import Applied
    from harbor_satellite.state.artifact import StateArtifact
    from harbor_satellite.state.satellite_state import StatePin
    from harbor_satellite.state.wire import AppliedGroup

_LOG = logging.getLogger(__name__)
_LOOK_WORKERS: Final = 8
"""Requests to the local registry at once while looking at what is there."""
_NOT_FOUND: Final = 404


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


def fetch_state(
    connections: Connections, state_url: str, applied: Collection[AppliedGroup], now: datetime
) -> FetchedState:
    """Fetch the satellite state and the state of each of its groups, verified.

    Args:
        connections: the run's registries.
        state_url: where the satellite state is.
        applied: the generations that the site follows now; older ones are not taken.
        now: this moment, for expiry.

    Raises:
        RemoteError: one of them is not there, or the source refused or could not be reached.
        UntrustedDataError: one of them is damaged, malformed, has expired, or is older than what is applied.
    """
    latest = {group.group: group.generation for group in applied}
    reference = Reference.parse(state_url)
    source = connections.source(_registry_url(state_url))
    pulled = pull_state(source, reference.repository, reference.target)
    satellite = parse_satellite_state(pulled.raw, None, str(reference))
    groups, digests = [], []
    for pin in satellite.groups:
        # The state's own registry name may be the centre's inside address: the way the site came in is known to work.
        group = pull_state(source, pin.state.repository, pin.state.target)
        state = parse_state_artifact(group.raw, None, str(pin.state))
        _check_trust(state, pin, latest.get(pin.group, 0), now)
        groups.append(state)
        digests.append(group.digest)
    return FetchedState(pulled.digest, satellite, tuple(groups), tuple(digests))


def _check_trust(state: StateArtifact, pin: StatePin, latest: int, now: datetime) -> None:
    if state.group != pin.group:
        raise UntrustedDataError(f"{pin.state} holds the state of group {state.group}, not of {pin.group}")
    if state.has_expired(now):
        raise UntrustedDataError(f"the state of group {pin.group} expired at {state.expires_at}; keeping what is here")
    if 0 < state.generation < latest:
        raise UntrustedDataError(
            f"the state of group {pin.group} went back from generation {latest} to {state.generation}; "
            "keeping what is here"
        )


def is_unchanged(target: Registry, applied: Applied, current: Digest) -> bool:
    """Tell whether there is nothing to do: the state is the one applied, and what it asked for is still here.

    One look at each name is enough, held against the digest that the state asked for.
    """
    if not applied.is_converged or applied.state_digest != current:
        return False
    with ThreadPoolExecutor(_LOOK_WORKERS, "look") as pool:
        found = pool.map(lambda name: target.manifest_head(name.repository, name.tag), applied.wanted)
        digests = applied.wanted.values()
        return all(item is not None and item.digest == digest for item, digest in zip(found, digests, strict=True))


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


def _registry_url(state_url: str) -> str:
    """Cut a state's URL down to its registry's, keeping the scheme."""
    scheme, separator, rest = state_url.rpartition("://")
    return f"{scheme}{separator}{rest.partition('/')[0]}"


def utc_now() -> datetime:
    """Return the time now; the one clock of the site's library code."""
    return datetime.now(UTC)
