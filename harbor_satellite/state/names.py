"""Names of satellites, groups and configs, and the repositories in which their states are kept."""

from __future__ import annotations

import re
from typing import Final, NewType

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.reference import check_repository

SatelliteName = NewType("SatelliteName", str)
GroupName = NewType("GroupName", str)

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_NAME_MAX_LENGTH: Final = 128  # characters; repository names built from it stay under 255

WORKER_TYPE: Final = "harbor-satellite"
"""Prefect's name for our worker type, which every work pool of the product has."""

STATE_PROJECT: Final = "satellite"
"""The Harbor project (first part of the repository) that holds every state; private."""


def check_name(kind: str, name: str) -> str:
    """Return a name that is safe in a path, a repository and a work pool's name.

    Args:
        kind: ``"satellite"``, ``"group"`` or ``"config"``; used in the message.
        name: 1..128 characters of ``a-z 0-9 . _ -``; starts and ends with a letter or digit, and no two
            separators follow each other, so that it is also a component of a repository's name.

    Raises:
        InvalidInputError: it is not.
    """
    if len(name) > _NAME_MAX_LENGTH or _NAME.fullmatch(name) is None:
        raise InvalidInputError(f"not a {kind} name: {name[:200]!r} (a-z, 0-9, '.', '_', '-'; at most 128 characters)")
    try:
        check_repository(name)
    except InvalidInputError as error:
        raise InvalidInputError(f"not a {kind} name: {name[:200]!r} (separators must stand alone)") from error
    return name


def satellite_name(name: str) -> SatelliteName:
    """Check and type a satellite's name; raises ``InvalidInputError``."""
    return SatelliteName(check_name("satellite", name))


def group_name(name: str) -> GroupName:
    """Check and type a group's name; raises ``InvalidInputError``."""
    return GroupName(check_name("group", name))


def group_state_repository(group: GroupName) -> str:
    """Return the repository of a group's state artifact (the original's layout)."""
    return f"{STATE_PROJECT}/group-state/{group}/state"


def satellite_state_repository(satellite: SatelliteName) -> str:
    """Return the repository of a satellite state (the original's layout)."""
    return f"{STATE_PROJECT}/satellite-state/{satellite}/state"


def config_state_repository(config: str) -> str:
    """Return the repository of a satellite config (the original's layout)."""
    return f"{STATE_PROJECT}/config-state/{config}/state"


def work_pool_name(satellite: SatelliteName) -> str:
    """Return the name of the satellite's own Prefect work pool."""
    return f"satellite-{satellite}"
