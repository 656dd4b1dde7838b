"""Handlers for groups. They parse, call a use case and serialise."""

from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter
from sqlalchemy.orm import Session

from harbor_satellite.ground_control import group_states, groups, satellites, unresolved
from harbor_satellite.ground_control.callers import Admin, Person, SharedContext, SystemAdmin
from harbor_satellite.ground_control.models import Group
from harbor_satellite.ground_control.schemas import MessageBody, SatelliteBody, UnresolvedBody
from harbor_satellite.ground_control.schemas_groups import ArtifactBody, GroupBody, GroupDetail, GroupSync, Membership

router: Final = APIRouter(prefix="/api/groups", tags=["groups"])


@router.get("", summary="List groups")
def list_groups(context: SharedContext, person: Person) -> list[GroupBody]:
    """List all groups by name."""
    del person
    with context.reading() as session:
        return _bodies(session, groups.list_groups(session))


@router.post("/sync", summary="Create a group, or replace all of it")
def sync_group(context: SharedContext, person: Admin, body: GroupSync) -> GroupBody:
    """Make the group exactly what the body says; it is published soon after.

    Of its policy (``publish``, ``platforms``, ``signature_keys``), what the body leaves out stays as it is.
    """
    del person
    entries = [
        groups.group_entry(
            item.repository,
            item.tags or (),
            item.digest,
            item.labels,
            item.type,
            deleted=item.deleted,
            priority=item.priority,
        )
        for item in body.artifacts or ()
    ]
    with context.writing() as session:
        group = groups.sync_group(
            session,
            body.group,
            registry=body.registry or context.options.source_url,
            entries=entries,
            expires_after_seconds=body.expires_after_seconds,
            change_policy=body.change_policy,
            now=context.clock(),
        )
        return _bodies(session, [group])[0]


@router.post("/satellite", summary="Let a satellite follow a group")
def add_satellite(context: SharedContext, person: Admin, body: Membership) -> MessageBody:
    """Add a satellite to a group; again is fine."""
    del person
    with context.writing() as session:
        groups.add_satellite(session, body.satellite, body.group, context.clock())
    return MessageBody(message=f"satellite {body.satellite} follows group {body.group}")


@router.delete("/satellite", summary="Let a satellite follow a group no more")
def remove_satellite(context: SharedContext, person: Admin, body: Membership) -> MessageBody:
    """Remove a satellite from a group; again is fine."""
    del person
    with context.writing() as session:
        groups.remove_satellite(session, body.satellite, body.group, context.clock())
    return MessageBody(message=f"satellite {body.satellite} no longer follows group {body.group}")


@router.get("/{group}", summary="Show a group")
def show_group(context: SharedContext, person: Person, group: str) -> GroupDetail:
    """Show a group with its artifacts, what was last published of it, and what the source did not have."""
    del person
    with context.reading() as session:
        row = groups.show_group(session, group)
        spec = group_states.group_spec(session, group)
        (head,) = _bodies(session, [row])
        return GroupDetail(
            **head.model_dump(),
            artifacts=[ArtifactBody.of(entry) for entry in spec.entries],
            generation=spec.generation,
            digest=str(spec.published_digest) if spec.published_digest else None,
            unresolved=[UnresolvedBody.of(known) for known in unresolved.unresolved_of_group(session, row)],
        )


@router.get("/{group}/satellites", summary="List the satellites that follow a group")
def list_members(context: SharedContext, person: Person, group: str) -> list[SatelliteBody]:
    """List a group's satellites by name."""
    del person
    with context.reading() as session:
        members = groups.satellites_of(session, groups.show_group(session, group))
        names = satellites.group_names_of(session, [satellite.id for satellite in members])
        return [SatelliteBody.of(satellite, names[satellite.id], context.clock()) for satellite in members]


@router.delete("/{group}", summary="Delete a group")
def delete_group(context: SharedContext, person: SystemAdmin, group: str) -> dict[str, str]:
    """Delete a group; its satellites lose its artifacts with their next state."""
    del person
    with context.writing() as session:
        groups.delete_group(session, group, context.clock())
    return {}


def _bodies(session: Session, rows: Sequence[Group]) -> list[GroupBody]:
    ids = [row.id for row in rows]
    projects, counts = groups.projects_of(session, ids), unresolved.count_unresolved(session, ids)
    return [GroupBody.of(row, projects[row.id], counts[row.id]) for row in rows]
