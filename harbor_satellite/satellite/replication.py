"""What the centre decided: asking for it, fetching it, and whether it may be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import RemoteError, UntrustedDataError
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.state_pull import pull_state
from harbor_satellite.satellite.site_config import check_serial
from harbor_satellite.state.artifact import parse_state_artifact
from harbor_satellite.state.names import group_name, group_state_repository
from harbor_satellite.state.satellite_state import parse_satellite_state
from harbor_satellite.state.wire import AppliedGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.satellite.connections import Connections
    from harbor_satellite.satellite.generations import SiteGeneration
    from harbor_satellite.state.artifact import StateArtifact
    from harbor_satellite.state.satellite_state import SatelliteState, StatePin

    Verify = Callable[[str, str, Digest], None]

_NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True)
class FetchedState:
    """What the centre decided, as of one fetch."""

    digest: Digest
    """Of the satellite state; the whole decision hangs on it."""
    groups: tuple[StateArtifact, ...]
    group_digests: tuple[Digest, ...] = ()
    """Of each group's state artifact, in the order of ``groups``; none for states given by hand."""
    state: SatelliteState | None = None
    """The satellite state itself; None for states given by hand, and for a generation of the past."""

    def applied_groups(self) -> tuple[AppliedGroup, ...]:
        """Return each group with its generation, as records and reports name them."""
        digests = self.group_digests or (None,) * len(self.groups)
        return tuple(
            AppliedGroup(group=state.group, generation=state.generation, digest=str(digest or ""))
            for state, digest in zip(self.groups, digests, strict=True)
        )


def current_state_digest(connections: Connections, state_url: str) -> Digest:
    """Ask the source which satellite state is current: the one request of a run without changes.

    Raises:
        RemoteError: there is none (404), or the source refused or could not be reached.
    """
    reference = Reference.parse(state_url)
    source = connections.source(registry_url(state_url))
    found = source.manifest_head(reference.repository, reference.target)
    if found is None:
        raise RemoteError(f"no satellite state at {reference}", status=_NOT_FOUND)
    return found.digest


def fetch_state(
    connections: Connections,
    state_url: str,
    seen: Mapping[str, int],
    now: datetime,
    *,
    verify: Verify | None = None,
    accepted: Digest | None = None,
    serial: int = 0,
) -> FetchedState:
    """Fetch the satellite state and the state of each of its groups, verified.

    Args:
        connections: the run's registries.
        state_url: where the satellite state is.
        seen: the highest generation of each group that was followed here; older ones are not taken.
        now: this moment, for expiry.
        verify: checks who signed a state, given its registry's URL, repository and digest; None: nobody must have.
        accepted: the satellite state that is applied already: what was taken in time may be healed after its time.
        serial: of the last satellite state that was taken; lower ones are not.

    Raises:
        RemoteError: one of them is not there, or the source refused or could not be reached.
        UntrustedDataError: one of them is damaged, malformed, has expired, is not signed as it must be, or is
            older than what is applied.
    """
    url = registry_url(state_url)
    source = connections.source(url)
    satellite, satellite_digest = fetch_satellite_state(connections, state_url, verify=verify, serial=serial)
    groups, digests = [], []
    for pin in satellite.groups:
        # The state's own registry name may be the centre's inside address: the way the site came in is known to work.
        group = pull_state(source, pin.state.repository, pin.state.target)
        if verify:
            verify(url, pin.state.repository, group.digest)
        state = parse_state_artifact(group.raw, None, str(pin.state))
        _check_trust(state, pin, seen.get(pin.group, 0), None if satellite_digest == accepted else now)
        groups.append(state)
        digests.append(group.digest)
    return FetchedState(satellite_digest, tuple(groups), tuple(digests), satellite)


def fetch_satellite_state(
    connections: Connections, state_url: str, *, verify: Verify | None = None, serial: int = 0
) -> tuple[SatelliteState, Digest]:
    """Fetch the satellite state alone, verified, with its digest; see ``fetch_state``.

    Raises:
        RemoteError: it is not there, or the source refused or could not be reached.
        UntrustedDataError: it is damaged, malformed, not signed as it must be, or older than the last one taken.
    """
    reference = Reference.parse(state_url)
    url = registry_url(state_url)
    pulled = pull_state(connections.source(url), reference.repository, reference.target)
    if verify:
        verify(url, reference.repository, pulled.digest)
    state = parse_satellite_state(pulled.raw, None, str(reference))
    check_serial(state, serial, str(reference))
    return state, pulled.digest


def fetch_generation(connections: Connections, state_url: str, generation: SiteGeneration) -> FetchedState:
    """Fetch the group states of a generation that the site has had before, by their digests.

    Raises:
        RemoteError: the source no longer has one of them, refused or could not be reached.
        UntrustedDataError: one of them is damaged.
    """
    source = connections.source(registry_url(state_url))
    states = []
    for group in generation.groups:
        repository = group_state_repository(group_name(group.group))
        pulled = pull_state(source, repository, group.digest)
        states.append((parse_state_artifact(pulled.raw, None, f"{repository}@{group.digest}"), pulled.digest))
    return FetchedState(
        generation.state_digest, tuple(state for state, _ in states), tuple(digest for _, digest in states)
    )


def _check_trust(state: StateArtifact, pin: StatePin, latest: int, now: datetime | None) -> None:
    if state.group != pin.group:
        raise UntrustedDataError(f"{pin.state} holds the state of group {state.group}, not of {pin.group}")
    if now and state.has_expired(now):
        raise UntrustedDataError(f"the state of group {pin.group} expired at {state.expires_at}; keeping what is here")
    if state.generation < latest and not pin.is_rollback:
        raise UntrustedDataError(
            f"the state of group {pin.group} went back from generation {latest} to {state.generation}; "
            "keeping what is here"
        )


def registry_url(state_url: str) -> str:
    """Cut a state's URL down to its registry's, keeping the scheme."""
    scheme, separator, rest = state_url.rpartition("://")
    return f"{scheme}{separator}{rest.partition('/')[0]}"


def utc_now() -> datetime:
    """Return the time now; the one clock of the site's library code."""
    return datetime.now(UTC)
