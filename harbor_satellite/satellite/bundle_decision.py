"""The decision that a bundle carries: the satellite state or the group states, as the artifacts that they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harbor_satellite.errors import InvalidInputError, MalformedStateError, SizeLimitError, UntrustedDataError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor, parse_manifest
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.state_pull import pull_state
from harbor_satellite.registry.state_store import state_manifest
from harbor_satellite.satellite.bundle_names import BUNDLE_HOST, BUNDLE_STATE_REPOSITORY
from harbor_satellite.satellite.replication import fetch_state
from harbor_satellite.state.artifact import STATE_MAX_BYTES, StateArtifact, parse_state_artifact
from harbor_satellite.state.names import group_state_repository
from harbor_satellite.state.satellite_state import (
    SatelliteState,
    StatePin,
    parse_satellite_state,
    satellite_state_json,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.connections import Connections
    from harbor_satellite.state.wire import AppliedGroup


@dataclass(frozen=True, slots=True)
class BuiltArtifact:
    """A state's artifact made here, from JSON in a file."""

    content: ManifestContent
    blobs: tuple[tuple[Descriptor, bytes], ...]


@dataclass(frozen=True, slots=True)
class DecisionArtifact:
    """One state's artifact: at a registry, or built here."""

    repository: str
    digest: Digest
    names: tuple[str, ...]
    """Tags and digests under which the bundle lists it."""
    source: Registry | BuiltArtifact
    """Where it is."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the site shall follow, with the artifacts that say so; the satellite state comes last."""

    state: str
    """Reference of the satellite state within the bundle."""
    is_own: bool
    """Whether the centre made that satellite state; else it was put together from group states given by hand."""
    satellite: str
    states: tuple[StateArtifact, ...]
    artifacts: tuple[DecisionArtifact, ...]


def decide(
    connections: Connections, given: Sequence[str], applied: Collection[AppliedGroup], now: datetime
) -> Decision:
    """Fetch what a bundle is to carry the decision of.

    Args:
        connections: where references are read.
        given: references of states, or files with the JSON of a group's state. One satellite state alone is
            carried as it is.
        applied: the generations that the site follows; older ones are not exported.
        now: this moment, for expiry.

    Raises:
        InvalidInputError: neither a file nor a reference.
        UntrustedDataError: one is malformed, expired, or older than what the site follows.
        RemoteError: one cannot be had.
    """
    pulled = [_pull(connections, item) for item in given]
    if len(pulled) == 1 and isinstance(pulled[0], _SatelliteReference):
        return _own(connections, pulled[0], applied, now)
    groups = [group for item in pulled for group in _flat(connections, item)]
    for state, _ in groups:
        _check(state, applied, now)
    return _made_here(groups)


@dataclass(frozen=True, slots=True)
class _SatelliteReference:
    """A satellite state at a registry."""

    url: str
    reference: Reference
    source: Registry
    digest: Digest
    state: SatelliteState


_Group = tuple[StateArtifact, DecisionArtifact]


def _pull(connections: Connections, given: str) -> _SatelliteReference | _Group:
    path = Path(given)
    if path.is_file():
        return _from_file(path)
    if given.endswith(".json") or given.startswith(("/", "./", "../")):
        raise InvalidInputError(f"no such file: {given}")
    scheme, separator, _ = given.rpartition("://")
    reference = Reference.parse(given)
    source = connections.source(f"{scheme}{separator}{reference.registry}")
    pulled = pull_state(source, reference.repository, reference.target)
    if _is_satellite_state(pulled.raw, given):
        return _SatelliteReference(
            given, reference, source, pulled.digest, parse_satellite_state(pulled.raw, None, given)
        )
    state = parse_state_artifact(pulled.raw, None, given)
    names = (str(pulled.digest), *([reference.tag] if reference.tag else []))
    return state, DecisionArtifact(reference.repository, pulled.digest, names, source)


def _from_file(path: Path) -> _Group:
    try:
        if path.stat().st_size > STATE_MAX_BYTES:
            raise SizeLimitError(f"state {path} has more than {STATE_MAX_BYTES} bytes")
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    state = parse_state_artifact(raw, None, str(path))
    return state, _built(group_state_repository(state.group), raw)


def _flat(connections: Connections, item: _SatelliteReference | _Group) -> tuple[_Group, ...]:
    if not isinstance(item, _SatelliteReference):
        return (item,)
    scheme, separator, _ = item.url.rpartition("://")
    pulled = [_pull(connections, f"{scheme}{separator}{pin.state}") for pin in item.state.groups]
    for pin, group in zip(item.state.groups, pulled, strict=True):
        if isinstance(group, _SatelliteReference):
            raise MalformedStateError(f"{pin.state} is a satellite state, not that of group {pin.group}")
    return tuple(group for group in pulled if not isinstance(group, _SatelliteReference))


def _own(
    connections: Connections, own: _SatelliteReference, applied: Collection[AppliedGroup], now: datetime
) -> Decision:
    # By digest: the tag may move between two requests, and everything must be of one decision.
    scheme, separator, _ = own.url.rpartition("://")
    url = f"{scheme}{separator}{own.reference.with_digest(own.digest)}"
    fetched = fetch_state(connections, url, {group.group: group.generation for group in applied}, now)
    artifacts = [
        DecisionArtifact(pin.state.repository, digest, _names(pin.state, digest), own.source)
        for pin, digest in zip(own.state.groups, fetched.group_digests, strict=True)
    ]
    last = DecisionArtifact(own.reference.repository, own.digest, _names(own.reference, own.digest), own.source)
    return Decision(
        state=str(own.reference),
        is_own=True,
        satellite=own.state.satellite or "",
        states=fetched.groups,
        artifacts=(*artifacts, last),
    )


def _made_here(groups: Sequence[_Group]) -> Decision:
    pins = [
        StatePin(state.group, Reference(BUNDLE_HOST, item.repository, "", item.digest), state.generation)
        for state, item in groups
    ]
    raw = satellite_state_json(SatelliteState(None, tuple(sorted(pins, key=lambda pin: pin.group))))
    what = "the states given"
    parse_satellite_state(raw, None, what)  # refuses a group that is given twice
    whole = _built(BUNDLE_STATE_REPOSITORY, raw)
    return Decision(
        state=f"{BUNDLE_HOST}/{BUNDLE_STATE_REPOSITORY}:latest",
        is_own=False,
        satellite="",
        states=tuple(state for state, _ in groups),
        artifacts=(*(item for _, item in groups), whole),
    )


def _names(reference: Reference, digest: Digest) -> tuple[str, ...]:
    return (str(digest), *((reference.tag,) if reference.tag else ()))


def _built(repository: str, raw: bytes) -> DecisionArtifact:
    manifest, packed = state_manifest(raw)
    content = ManifestContent(media_types.OCI_MANIFEST, json.dumps(manifest).encode())
    parsed = parse_manifest(content.raw, content.media_type, repository)
    blobs = tuple(zip(parsed.blobs, packed, strict=True))
    names = (str(content.digest), "latest")
    return DecisionArtifact(repository, content.digest, names, BuiltArtifact(content, blobs))


def _check(state: StateArtifact, applied: Collection[AppliedGroup], now: datetime) -> None:
    if state.has_expired(now):
        raise MalformedStateError(f"the state of group {state.group} expired at {state.expires_at}")
    latest = max((group.generation for group in applied if group.group == state.group), default=0)
    if 0 < state.generation < latest:
        raise UntrustedDataError(
            f"the site follows generation {latest} of group {state.group} already; this is {state.generation}"
        )


def _is_satellite_state(raw: bytes, what: str) -> bool:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedStateError(f"malformed state {what}: not JSON: {error}") from error
    return isinstance(document, dict) and "states" in document
