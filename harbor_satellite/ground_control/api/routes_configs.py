"""Handlers for satellite configs. They parse, call a use case and serialise."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy.orm import Session

from harbor_satellite.ground_control.api.callers import Admin, Person, SharedContext
from harbor_satellite.ground_control.api.schemas import MessageBody
from harbor_satellite.ground_control.api.schemas_configs import (
    ConfigBody,
    ConfigCreation,
    GroupAssignment,
    SatelliteAssignment,
)
from harbor_satellite.ground_control.models import SatelliteConfig
from harbor_satellite.ground_control.people.audit_log import difference
from harbor_satellite.ground_control.satellites import configs

router: Final = APIRouter(prefix="/api/configs", tags=["configs"])


@router.get("", summary="List configs")
def list_configs(context: SharedContext, person: Person) -> list[ConfigBody]:
    """List all configs by name."""
    del person
    with context.reading() as session:
        return _bodies(session, configs.list_configs(session))


@router.post("", summary="Create a config", status_code=201)
def create_config(context: SharedContext, editor: Admin, body: ConfigCreation) -> ConfigBody:
    """Make a config; satellites that were registered with its name have it from then on."""
    with context.writing() as session:
        row = configs.create_config(session, body.config_name, body.registry, body.config, context.clock())
        editor.record(session, "config.create", f"config:{row.name}", difference({}, row.content))
        return _bodies(session, [row])[0]


@router.post("/satellite", summary="Give a satellite a config")
def assign_to_satellite(context: SharedContext, editor: Admin, body: SatelliteAssignment) -> MessageBody:
    """Give a satellite a config of its own, above those of its groups; an empty name takes it away."""
    with context.writing() as session:
        before = configs.assign_to_satellite(session, body.satellite, body.config_name, context.clock())
        changes = difference({"config_name": before}, {"config_name": body.config_name})
        editor.record(session, "config.assign", f"satellite:{body.satellite}", changes)
    return MessageBody(message=_said("satellite", body.satellite, body.config_name))


@router.post("/group", summary="Give the satellites of a group a config")
def assign_to_group(context: SharedContext, editor: Admin, body: GroupAssignment) -> MessageBody:
    """Give all satellites of a group a config, below their own; an empty name takes it away."""
    with context.writing() as session:
        before = configs.assign_to_group(session, body.group, body.config_name, context.clock())
        changes = difference({"config_name": before}, {"config_name": body.config_name})
        editor.record(session, "config.assign", f"group:{body.group}", changes)
    return MessageBody(message=_said("group", body.group, body.config_name))


@router.get("/{config}", summary="Show a config")
def show_config(context: SharedContext, person: Person, config: str) -> ConfigBody:
    """Show one config."""
    del person
    with context.reading() as session:
        return _bodies(session, [configs.show_config(session, config)])[0]


@router.patch("/{config}", summary="Change a config by a JSON merge patch")
def change_config(context: SharedContext, editor: Admin, config: str, body: dict[str, Any]) -> ConfigBody:
    """Lay a JSON merge patch (RFC 7396) over the config's content: null takes a field away."""
    with context.writing() as session:
        before = dict(configs.show_config(session, config, is_locked=True).content)
        row = configs.change_config(session, config, body, context.clock())
        editor.record(session, "config.change", f"config:{config}", difference(before, row.content))
        return _bodies(session, [row])[0]


@router.delete("/{config}", summary="Delete a config that nobody has")
def delete_config(context: SharedContext, editor: Admin, config: str) -> dict[str, str]:
    """Delete a config; 400 while a satellite or a group has it."""
    with context.writing() as session:
        configs.delete_config(session, config)
        editor.record(session, "config.delete", f"config:{config}")
    return {}


def _bodies(session: Session, rows: Sequence[SatelliteConfig]) -> list[ConfigBody]:
    users = configs.count_users(session, [row.name for row in rows])
    return [ConfigBody.of(row, users[row.name]) for row in rows]


def _said(kind: str, name: str, config: str) -> str:
    return f"{kind} {name} has config {config}" if config else f"{kind} {name} has no config of its own"
