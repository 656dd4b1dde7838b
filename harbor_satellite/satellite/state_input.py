"""States given by hand, as a file or a reference: what ``edge sync --state`` takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from harbor_satellite.errors import InvalidInputError, MalformedStateError, SizeLimitError, UntrustedDataError
from harbor_satellite.inputs import SOURCE_VARIABLES, refuse_user
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.state_pull import pull_state
from harbor_satellite.satellite.connections import registry_host
from harbor_satellite.satellite.replication import FetchedState, registry_url, utc_now
from harbor_satellite.state.artifact import STATE_MAX_BYTES, StateArtifact, parse_state_artifact
from harbor_satellite.state.satellite_state import parse_satellite_state

if TYPE_CHECKING:
    from harbor_satellite.satellite.connections import Connections
    from harbor_satellite.satellite.replication import Verify


def load_states(connections: Connections, given: tuple[str, ...], verify: Verify | None = None) -> FetchedState:
    """Read every state given by hand: files of JSON, references of group states or of satellite states.

    A reference is held to what the site asks of signatures; a file is the word of whoever runs the command.

    Raises:
        InvalidInputError: neither a file nor a reference, or a file that is no state.
        UntrustedDataError: a referenced state is malformed or oversized; any of them has expired.
        RemoteError: a referenced state cannot be had.
    """
    states = [state for item in given for state in _load(connections, item, verify)]
    for state in states:
        if state.has_expired(utc_now()):
            raise MalformedStateError(f"the state of group {state.group} expired at {state.expires_at}")
    return FetchedState(states_digest(tuple(states)), tuple(states))


def states_digest(states: tuple[StateArtifact, ...]) -> Digest:
    """Return one digest for states given together, for the run's record."""
    return Digest.of("".join(f"{state.group}={state.generation};{state.artifacts}" for state in states).encode())


def home_of(given: tuple[str, ...]) -> str:
    """Tell which registry credentials go to: that of the first reference, else the one that all files name.

    Returns:
        Its URL; empty if files name several.

    Raises:
        InvalidInputError: a file is no state, or there is a user in a URL.
    """
    for item in given:
        if not Path(item).is_file() and "/" in item:
            return registry_url(_without_user(item, "the reference"))
    named = {state.registry for item in given if Path(item).is_file() for state in (_load_file(Path(item)),)}
    hosts = {registry_host(registry) if registry else "" for registry in named}
    return registry_url(min(named)) if len(hosts) == 1 else ""


def _load(connections: Connections, given: str, verify: Verify | None) -> tuple[StateArtifact, ...]:
    path = Path(given)
    if path.is_file():
        return (_load_file(path),)
    if given.endswith(".json") or given.startswith(("/", "./", "../")):
        raise InvalidInputError(f"no such file: {given}")
    scheme, separator, _ = given.rpartition("://")
    reference = Reference.parse(_without_user(given, "the reference"))
    url = f"{scheme}{separator}{reference.registry}"
    pulled = pull_state(connections.source(url), reference.repository, reference.target)
    if verify:
        verify(url, reference.repository, pulled.digest)
    raw = pulled.raw
    if not _is_satellite_state(raw, given):
        return (parse_state_artifact(raw, None, given),)
    pins = parse_satellite_state(raw, None, given).groups
    return tuple(state for pin in pins for state in _load(connections, f"{scheme}{separator}{pin.state}", verify))


def _load_file(path: Path) -> StateArtifact:
    """Read a file that somebody at hand has written, and can correct."""
    try:
        state = parse_state_artifact(_read(path), None, str(path))
    except UntrustedDataError as error:
        raise InvalidInputError(str(error)) from error
    _without_user(state.registry, f"{path}: registry")
    return state


def _without_user(url: str, what: str) -> str:
    return refuse_user(url, what, f"say {SOURCE_VARIABLES}")


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > STATE_MAX_BYTES:
            raise SizeLimitError(f"state {path} has {size} bytes; at most {STATE_MAX_BYTES} are read")
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error


def _is_satellite_state(raw: bytes, what: str) -> bool:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedStateError(f"malformed state {what}: not JSON: {error}") from error
    return isinstance(document, dict) and "states" in document
