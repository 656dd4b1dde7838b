"""Configs: how satellites shall work, named, and given to satellites and groups. Use cases over a ``Session``.

What a satellite is told is laid together from several: the configs of its groups in the order of the groups' names,
then its own above them. Its schedule has a last word of its own: a schedule that an operator gave the satellite
itself stands above every config, the default schedule below them all.
"""

from __future__ import annotations

import functools
import json
import logging
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from harbor_satellite.errors import ConflictError, InvalidInputError, NotFoundError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.groups import groups
from harbor_satellite.ground_control.models import DEFAULT_SCHEDULE, Group, Satellite, SatelliteGroup
from harbor_satellite.ground_control.models import SatelliteConfig as ConfigRow
from harbor_satellite.ground_control.satellites.satellites import show_satellite
from harbor_satellite.inputs import refuse_user
from harbor_satellite.state.config import SatelliteConfig, config_json, merge_configs, parse_config, read_config
from harbor_satellite.state.names import check_name
from harbor_satellite.state.secret_check import refuse_secrets

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)

ORIGINAL_KEYS: Final = ("state_config", "app_config", "zot_config")
"""The original's sections of a config: carried for its satellites, not interpreted."""
_CONTENT_MAX_BYTES: Final = 64 * 1024  # it is in the state of every satellite that has it
_REGISTRY_MAX_LENGTH: Final = 512  # characters


def list_configs(session: Session) -> Sequence[ConfigRow]:
    """Return all configs by name."""
    return session.scalars(select(ConfigRow).order_by(ConfigRow.name)).all()


def show_config(session: Session, name: str, *, is_locked: bool = False) -> ConfigRow:
    """Return a config; raises ``NotFoundError``, or ``InvalidInputError`` for what cannot be a name."""
    query = select(ConfigRow).where(ConfigRow.name == check_name("config", name))
    config = session.scalar(query.with_for_update() if is_locked else query)
    if config is None:
        raise NotFoundError(f"no config {name!r}")
    return config


def create_config(session: Session, name: str, registry: str, content: Mapping[str, Any], now: datetime) -> ConfigRow:
    """Make a config.

    Args:
        session: open; committed by the caller.
        name: of the config.
        registry: the original's; carried, not interpreted.
        content: our fields and the original's sections, side by side.
        now: this moment.

    Raises:
        InvalidInputError: a value breaks its rule or looks like a secret; the message names the field.
        ConflictError: the name is taken.
    """
    check_name("config", name)
    refuse_user(registry, "the registry", "credentials stay out of configs")
    if len(registry) > _REGISTRY_MAX_LENGTH:
        raise InvalidInputError(f"the registry has more than {_REGISTRY_MAX_LENGTH} characters")
    checked = checked_content(content, name)
    config = ConfigRow(name=name, source_registry=registry, content=checked, created_at=now, updated_at=now)
    session.add(config)
    try:
        session.flush()
    except IntegrityError as error:
        raise ConflictError(f"config {name!r} already exists") from error
    # A satellite may have been registered with a config that was still to come.
    if sum(count_users(session, [name])[name]):
        outbox.enqueue_config_changed(session, name, now)
    logger.info("config created config=%s", name)
    return config


def change_config(session: Session, name: str, patch: Mapping[str, Any], now: datetime) -> ConfigRow:
    """Change a config by a JSON merge patch (RFC 7396): null takes a field away; its satellites are told.

    Raises:
        NotFoundError: there is no such config.
        InvalidInputError: what would come of it breaks a rule; nothing is changed.
    """
    config = show_config(session, name, is_locked=True)
    try:
        content = checked_content(_patched(config.content, patch), name)
    except RecursionError as error:
        raise InvalidInputError(f"config {name}: nested too deeply") from error
    if content != config.content:
        config.content = content
        config.updated_at = now
        outbox.enqueue_config_changed(session, name, now)
        logger.info("config changed config=%s", name)
    return config


def delete_config(session: Session, name: str) -> None:
    """Delete a config that nobody has.

    Raises:
        NotFoundError: there is no such config.
        InvalidInputError: a satellite or group has it.
    """
    config = show_config(session, name, is_locked=True)
    satellites, members = count_users(session, [name])[name]
    if satellites or members:
        raise InvalidInputError(f"config {name!r} is in use by {satellites} satellites and {members} groups")
    session.delete(config)
    logger.info("config deleted config=%s", name)


def assign_to_satellite(session: Session, satellite: str, config: str, now: datetime) -> str:
    """Give a satellite a config, or take its own away with an empty name; returns the one it had.

    Raises:
        NotFoundError: one of them does not exist.
    """
    row = show_satellite(session, satellite)
    if config:
        show_config(session, config, is_locked=True)
    before, row.config_name = row.config_name, config
    if before != config:
        row.updated_at = now
        outbox.enqueue_fleet_changed(session, satellite, now)
    return before


def assign_to_group(session: Session, group: str, config: str, now: datetime) -> str:
    """Give all satellites of a group a config, or take it away with an empty name; returns the one it had.

    Raises:
        NotFoundError: one of them does not exist.
    """
    row = groups.show_group(session, group)
    if config:
        show_config(session, config, is_locked=True)
    before, row.config_name = row.config_name, config
    if before != config:
        row.updated_at = now
        outbox.enqueue_group_changed(session, group, now)  # one event, however many satellites follow it
    return before


def count_users(session: Session, names: Collection[str]) -> dict[str, tuple[int, int]]:
    """Return, of each config, how many satellites have it as their own and how many groups have it."""
    found: dict[str, tuple[int, int]] = dict.fromkeys(names, (0, 0))
    of_satellites = select(Satellite.config_name, func.count()).where(Satellite.config_name.in_(names))
    for name, count in session.execute(of_satellites.group_by(Satellite.config_name)):
        found[name] = count, 0
    of_groups = select(Group.config_name, func.count()).where(Group.config_name.in_(names))
    for name, count in session.execute(of_groups.group_by(Group.config_name)):
        found[name] = found[name][0], count
    return found


def effective_config(session: Session, satellite: Satellite) -> SatelliteConfig | None:
    """Return what a satellite is told; None: nothing, and its state says nothing of settings."""
    config = effective_configs(session, [satellite.id])[satellite.id]
    return None if config == SatelliteConfig() else config


def effective_configs(session: Session, satellite_ids: Collection[int]) -> dict[int, SatelliteConfig]:
    """Return what satellites are told, by their ids; an empty config for one that is told nothing. Three queries.

    A config that is named and not there says nothing.
    """
    names: dict[int, list[str]] = defaultdict(list)
    of_groups = (
        select(SatelliteGroup.satellite_id, Group.config_name)
        .join(Group, Group.id == SatelliteGroup.group_id)
        .where(SatelliteGroup.satellite_id.in_(satellite_ids), Group.config_name != "")
        .order_by(Group.name)
    )
    for satellite_id, name in session.execute(of_groups):
        names[satellite_id].append(name)
    rows = select(Satellite.id, Satellite.config_name, Satellite.schedule).where(Satellite.id.in_(satellite_ids))
    schedules: dict[int, str] = {}
    for satellite_id, name, schedule in session.execute(rows):
        names[satellite_id].append(name)
        schedules[satellite_id] = schedule
    known = _configs(session, {name for listed in names.values() for name in listed})

    @functools.cache  # most satellites of a fleet have the same few configs
    def laid_together(listed: tuple[str, ...], own: str) -> SatelliteConfig:
        return _with_schedule(merge_configs(*(known[name] for name in listed if name in known)), own)

    return {satellite_id: laid_together(tuple(names[satellite_id]), own) for satellite_id, own in schedules.items()}


def checked_content(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a config's content as it is kept: our fields in their one form, the original's sections as they are.

    Raises:
        InvalidInputError: a value breaks its rule or looks like a secret; the message names the field.
    """
    what = f"config {name}"
    theirs = {key: content[key] for key in ORIGINAL_KEYS if content.get(key) is not None}
    refuse_secrets(theirs, what)
    kept = config_json(parse_config(_ours(content), what)) | theirs
    try:
        text = json.dumps(kept, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{what}: not JSON that can be kept: {error}") from error
    if len(text) > _CONTENT_MAX_BYTES or "\\u0000" in text:
        raise InvalidInputError(f"{what}: more than {_CONTENT_MAX_BYTES} bytes, or a NUL in it")
    return kept


def _configs(session: Session, names: Collection[str]) -> dict[str, SatelliteConfig]:
    rows = session.execute(select(ConfigRow.name, ConfigRow.content).where(ConfigRow.name.in_(names)))
    # Read leniently: what an earlier release accepted must not keep a satellite from its state.
    return {name: read_config(_ours(content))[0] for name, content in rows}


def _ours(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in ORIGINAL_KEYS}


def _with_schedule(config: SatelliteConfig, own: str) -> SatelliteConfig:
    """Put a satellite's own schedule on top; the default is what it has when nobody gave it one."""
    return config if own == DEFAULT_SCHEDULE else replace(config, schedule=own)


def _patched(document: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    found = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _patched(found.get(key), value)
    return found
