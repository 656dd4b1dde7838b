"""Publishing satellites: the generations of its groups that a satellite may have → its state at the source.

Level-triggered and safe to repeat; the row and the push stand or fall together.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import select

from harbor_satellite.ground_control import satellite_states
from harbor_satellite.ground_control.models import Satellite
from harbor_satellite.ground_control.satellites import group_names_of, show_satellite
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.state_store import state_digest
from harbor_satellite.state.names import group_state_repository, satellite_name, satellite_state_repository
from harbor_satellite.state.satellite_state import SatelliteState, StatePin, satellite_state_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.signing import Pusher
    from harbor_satellite.registry.api import Registry

_LOG = logging.getLogger(__name__)


def publish_satellite(
    session: Session, pusher: Pusher, satellite: str, *, registry: str, now: datetime, is_lost: bool = False
) -> bool:
    """Push a satellite's state if it is not what its groups' last generations ask for.

    Args:
        session: open; committed by the caller.
        pusher: to the source; one that signs, if states are signed.
        satellite: its name.
        registry: the source's URL as the sites reach it.
        now: this moment.
        is_lost: the source has lost it, so it is pushed in any case.

    Returns:
        Whether it was pushed.
    """
    # Locked before its groups are read: of two publishers, the later one has read the later generations.
    session.execute(select(Satellite.id).where(Satellite.name == satellite).with_for_update())
    row = show_satellite(session, satellite)
    pins = satellite_states.satellite_pins(session, satellite)
    if row.state_digest is None and len(pins) < len(group_names_of(session, [row.id])[row.id]):
        # Its first state waits for the first generation of all its groups: a site must not take "not published
        # yet" for "holds nothing", and a site registered anew not delete what it has.
        return False
    raw = satellite_state_json(compose_satellite_state(satellite, pins, registry))
    digest = state_digest(raw)
    if row.state_digest == str(digest) and not is_lost:
        return False
    satellite_states.record_satellite_state(session, satellite, digest, now)
    pusher.push(satellite_state_repository(satellite_name(satellite)), ("latest",), raw)
    _LOG.info("published satellite state satellite=%s digest=%s", satellite, digest)
    return True


def is_satellite_lost(source: Registry, satellite: str, published: str | None) -> bool:
    """Tell whether the source no longer has the satellite state that was published last."""
    repository = satellite_state_repository(satellite_name(satellite))
    return published is not None and source.manifest_head(repository, published) is None


def compose_satellite_state(satellite: str, pins: Iterable[satellite_states.GroupPin], registry: str) -> SatelliteState:
    """Build a satellite's state from the generations it may have."""
    host = registry.split("://", 1)[-1].partition("/")[0]
    return SatelliteState(
        satellite=satellite_name(satellite),
        groups=tuple(
            StatePin(
                pin.group, Reference(host, group_state_repository(pin.group), "latest", pin.digest), pin.generation
            )
            for pin in pins
        ),
        scheme="http" if registry.startswith("http://") else "https",
    )
