"""Publishing satellites: the generations of its groups that a satellite may have → its state at the source.

Level-triggered and safe to repeat; the row, the push and the event that tells the site stand or fall together.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import select

from harbor_satellite.errors import ConflictError, HarborSatelliteError
from harbor_satellite.ground_control.models import Satellite
from harbor_satellite.ground_control.satellites import satellite_states
from harbor_satellite.ground_control.satellites.satellites import show_satellite
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.state_store import state_digest
from harbor_satellite.state.names import group_state_repository, satellite_name, satellite_state_repository
from harbor_satellite.state.satellite_state import SatelliteState, StatePin, satellite_state_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.groups.signing import Pusher
    from harbor_satellite.ground_control.satellites.satellite_states import WantedState
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import Registry

_LOG = logging.getLogger(__name__)
_WORKERS: Final = 8  # satellites served at once; the source is near, and each holds a database connection
_T = TypeVar("_T")


def publish_satellite(
    session: Session, pusher: Pusher, satellite: str, *, registry: str, now: datetime, is_lost: bool = False
) -> bool:
    """Push a satellite's state if it is not what its pins, groups and configs ask for.

    Args:
        session: open; committed by the caller.
        pusher: to the source; one that signs, if states are signed.
        satellite: its name.
        registry: the source's URL as the sites reach it.
        now: this moment.
        is_lost: the source has lost it or shows another one, so it is pushed in any case, under the next serial.

    Returns:
        Whether it was pushed.

    Raises:
        NotFoundError: there is no such satellite.
        ConflictError: it follows a generation that is no longer kept; its state stays as it was.
        RemoteError: the source refused the push; nothing is recorded.
    """
    # Locked before its groups are read: of two publishers, the later one has read the later generations.
    session.execute(select(Satellite.id).where(Satellite.name == satellite).with_for_update())
    row = show_satellite(session, satellite)
    (wanted,) = satellite_states.wanted_states(session, [row.id])
    if wanted.dropped:
        raise ConflictError(f"satellite {satellite} follows {', '.join(wanted.dropped)}, which is no longer kept")
    if not _is_due(wanted, registry) and not (is_lost and wanted.state_digest):
        return False
    serial = next_serial(wanted.serial, now)  # which makes it another state, even of the same content
    raw, digest = _compose(wanted, serial, registry)
    satellite_states.record_satellite_state(session, satellite, digest, now, serial=serial)
    satellite_states.ask_for_runs(session, (satellite,), now)
    pusher.push(satellite_state_repository(satellite_name(satellite)), ("latest",), raw)
    _LOG.info("published satellite state satellite=%s digest=%s", satellite, digest)
    return True


def next_serial(last: int, now: datetime) -> int:
    """Return the serial of a state that is published now: higher than any before it.

    It is the time in seconds and not a count: a centre whose database is restored from a backup does not know how far
    it had counted, and sites take nothing behind what they had. Only a clock that goes back makes it count.
    """
    return max(last + 1, int(now.timestamp()))


def due_satellites(session: Session, names: Collection[str], registry: str) -> tuple[str, ...]:
    """Return which of these satellites have a state that is not what it should be, sorted; the source is not asked.

    One that follows a generation that is no longer kept is among them, so that publishing it says what is wrong.
    """
    wanted = satellite_states.wanted_states(session, satellite_states.satellite_ids_of(session, names))
    return tuple(str(state.satellite) for state in wanted if state.dropped or _is_due(state, registry))


def for_each(
    names: Sequence[str], serve: Callable[[str], _T], *, is_one_by_one: bool = False
) -> Iterator[tuple[str, _T | HarborSatelliteError]]:
    """Serve satellites, a few at once, and give what came of each, in order: one never holds up the others."""

    def attempt(name: str) -> _T | HarborSatelliteError:
        try:
            return serve(name)
        except HarborSatelliteError as error:
            return error

    with ThreadPoolExecutor(1 if is_one_by_one else _WORKERS, "publish") as pool:
        yield from zip(names, pool.map(attempt, names), strict=True)


def is_satellite_lost(source: Registry, satellite: str, published: str | None) -> bool:
    """Tell whether the source no longer shows sites the satellite state that was published last.

    It may show another one: after a restore of the centre's database or of the source, the two are not of one time.
    """
    if published is None:
        return False
    found = source.manifest_head(satellite_state_repository(satellite_name(satellite)), "latest")
    return found is None or str(found.digest) != published


def compose_satellite_state(wanted: WantedState, serial: int, registry: str) -> SatelliteState:
    """Build a satellite's state from the generations it may have."""
    host = registry.split("://", 1)[-1].partition("/")[0]
    return SatelliteState(
        satellite=wanted.satellite,
        groups=tuple(
            StatePin(
                pin.group,
                Reference(host, group_state_repository(pin.group), "latest", pin.digest),
                pin.generation,
                pin.is_rollback,
            )
            for pin in wanted.pins
        ),
        scheme="http" if registry.startswith("http://") else "https",
        serial=serial,
        settings=wanted.settings,
    )


def _is_due(wanted: WantedState, registry: str) -> bool:
    if wanted.state_digest is None:
        # Its first state waits for the first generation of all its groups: a site must not take "not published
        # yet" for "holds nothing", and a site registered anew not delete what it has.
        return not wanted.unpublished
    return wanted.state_digest != str(_compose(wanted, wanted.serial, registry)[1])


def _compose(wanted: WantedState, serial: int, registry: str) -> tuple[bytes, Digest]:
    raw = satellite_state_json(compose_satellite_state(wanted, serial, registry))
    return raw, state_digest(raw)
