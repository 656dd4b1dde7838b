"""Labels of satellites: how operators name parts of the fleet. Use cases over a ``Session``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, insert, select

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.ground_control.models import SatelliteLabel
from harbor_satellite.ground_control.satellites.satellites import show_satellite

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.orm import Session

LABELS_LIMIT: Final = 64
"""Of each satellite."""
_VALUE_LONGEST: Final = 63  # characters
_KEY: Final = re.compile(r"[a-z0-9](?:[a-z0-9._/-]{0,61}[a-z0-9])?")


def check_label(key: str, value: str) -> tuple[str, str]:
    """Return a label that holds to the rules.

    Raises:
        InvalidInputError: another key or value; the message names it.
    """
    if _KEY.fullmatch(key) is None:
        raise InvalidInputError(f"not a key of a label: {key[:100]!r} (a-z, 0-9, inside also . _ / -; at most 63)")
    if len(value) > _VALUE_LONGEST or not value.isprintable():
        raise InvalidInputError(f"not a value of label {key}: {value[:100]!r} (at most {_VALUE_LONGEST} characters)")
    return key, value


def parse_label(text: str) -> tuple[str, str]:
    """Read ``key=value``, as filters name a label; raises ``InvalidInputError``."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidInputError(f"not a label such as region=north: {text[:100]!r}")
    return check_label(key, value)


def labels_of(session: Session, satellite_ids: Collection[int]) -> dict[int, dict[str, str]]:
    """Return the labels of satellites, by key, by the satellite's id."""
    row = SatelliteLabel
    found: dict[int, dict[str, str]] = {satellite_id: {} for satellite_id in satellite_ids}
    query = select(row.satellite_id, row.key, row.value).where(row.satellite_id.in_(satellite_ids)).order_by(row.key)
    for satellite_id, key, value in session.execute(query):
        found[satellite_id][key] = value
    return found


def show_labels(session: Session, name: str) -> dict[str, str]:
    """Return a satellite's labels by key; raises ``NotFoundError``."""
    satellite = show_satellite(session, name)
    return labels_of(session, [satellite.id])[satellite.id]


def replace_labels(session: Session, name: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Make a satellite's labels these and no others.

    Returns:
        What they were.

    Raises:
        InvalidInputError: a label breaks a rule, or there are too many; nothing is changed.
        NotFoundError: there is no such satellite.
    """
    if len(labels) > LABELS_LIMIT:
        raise InvalidInputError(f"a satellite has at most {LABELS_LIMIT} labels, not {len(labels)}")
    wanted = dict(check_label(key, value) for key, value in labels.items())
    satellite = show_satellite(session, name)
    before = labels_of(session, [satellite.id])[satellite.id]
    if wanted != before:
        session.execute(delete(SatelliteLabel).where(SatelliteLabel.satellite_id == satellite.id))
        rows = [{"satellite_id": satellite.id, "key": key, "value": value} for key, value in wanted.items()]
        if rows:
            session.execute(insert(SatelliteLabel), rows)
    return before
