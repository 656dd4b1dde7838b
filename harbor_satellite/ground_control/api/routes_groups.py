"""Handlers for groups. They parse, call a use case and serialise."""

from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter
from sqlalchemy.orm import Session

from harbor_satellite.ground_control.api.callers import Admin, Editor, Person, SharedContext, SystemAdmin
from harbor_satellite.ground_control.api.context import Context
from harbor_satellite.ground_control.api.schemas import MessageBody, SatelliteBody, UnresolvedBody
from harbor_satellite.ground_control.api.schemas_groups import (
    ArtifactBody,
    GroupBody,
    GroupCreation,
    GroupDetail,
    GroupPatch,
    GroupSync,
    Membership,
)
from harbor_satellite.ground_control.api.schemas_rules import SelectorBody
from harbor_satellite.ground_control.groups import (
    group_audit,
    group_changes,
    group_states,
    groups,
    harbor_rules,
    rules,
    unresolved,
)
from harbor_satellite.ground_control.models import Group
from harbor_satellite.ground_control.people.audit_log import difference
from harbor_satellite.ground_control.satellites import satellites

router: Final = APIRouter(prefix="/api/groups", tags=["groups"])


@router.get("", summary="List groups")
def list_groups(context: SharedContext, person: Person) -> list[GroupBody]:
    """List all groups by name."""
    del person
    with context.reading() as session:
        return _bodies(session, groups.list_groups(session))


@router.post("", summary="Make a group that names nothing yet", status_code=201)
def create_group(context: SharedContext, editor: Admin, body: GroupCreation) -> GroupBody:
    """Make an empty group, to be filled by selectors, a replication rule or a list."""
    with context.writing() as session:
        registry = body.registry or context.options.source_url
        group = group_changes.create_group(session, body.group, registry, context.clock())
        editor.record(session, "group.create", f"group:{body.group}", {"registry": [None, registry]})
        return _bodies(session, [group])[0]


@router.post("/sync", summary="Create a group, or replace what it lists")
def sync_group(context: SharedContext, editor: Admin, body: GroupSync) -> GroupBody:
    """Make what the group lists exactly what the body says; it is published soon after.

    Its selectors and what its replication rule pushed stay. Of its policy (``publish``, ``platforms``,
    ``signature_keys``), what the body leaves out stays as it is.
    """
    return replace_group(context, editor, body)


def replace_group(context: Context, editor: Editor, body: GroupSync) -> GroupBody:
    """Replace what a group lists, for either of the two paths that the original's clients know."""
    entries = [item.entry() for item in body.artifacts or ()]
    with context.writing() as session:
        before = group_audit.listed_values(session, body.group)
        group = groups.sync_group(
            session,
            body.group,
            registry=body.registry or context.options.source_url,
            entries=entries,
            expires_after_seconds=body.expires_after_seconds,
            change_policy=body.change_policy,
            now=context.clock(),
        )
        session.flush()
        changes = difference(before, group_audit.listed_values(session, body.group))
        editor.record(session, "group.sync", f"group:{body.group}", changes)
        return _bodies(session, [group])[0]


@router.post("/satellite", summary="Let a satellite follow a group")
def add_satellite(context: SharedContext, editor: Admin, body: Membership) -> MessageBody:
    """Add a satellite to a group; again is fine."""
    with context.writing() as session:
        groups.add_satellite(session, body.satellite, body.group, context.clock())
        editor.record(session, "group.follow", f"group:{body.group}", {body.satellite: [None, "member"]})
    return MessageBody(message=f"satellite {body.satellite} follows group {body.group}")


@router.delete("/satellite", summary="Let a satellite follow a group no more")
def remove_satellite(context: SharedContext, editor: Admin, body: Membership) -> MessageBody:
    """Remove a satellite from a group; again is fine."""
    with context.writing() as session:
        groups.remove_satellite(session, body.satellite, body.group, context.clock())
        editor.record(session, "group.unfollow", f"group:{body.group}", {body.satellite: ["member", None]})
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
            selectors=[SelectorBody.of(selector) for selector in spec.selectors],
            members=[ArtifactBody.of(entry) for entry in spec.members],
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


@router.patch("/{group}", summary="Change a group")
def change_group(context: SharedContext, editor: Admin, group: str, body: GroupPatch) -> GroupBody:
    """Stage a group, or end that; change the config that its satellites get from it, or its expiry.

    A staged group's generations reach sites by rollouts only. Ending that moves all its satellites to its newest
    generation, but for those that are held.
    """
    with context.writing() as session:
        before = group_changes.group_values(groups.show_group(session, group))
        row = group_changes.change_group(session, group, body.change(), context.clock())
        editor.record(session, "group.change", f"group:{group}", difference(before, group_changes.group_values(row)))
        return _bodies(session, [row])[0]


@router.delete("/{group}", summary="Delete a group")
def delete_group(
    context: SharedContext, editor: SystemAdmin, group: str, *, keep_in_harbor: bool = False
) -> dict[str, str]:
    """Delete a group; its satellites lose its artifacts with their next state.

    What Ground Control made at Harbor for its replication rule is deleted there first; with ``keep_in_harbor`` it
    stays there, refused from now on: for a Harbor that is gone.
    """
    with context.reading() as session:
        made = rules.made_at_harbor(session, group)
    if made is not None and not keep_in_harbor:
        harbor_rules.remove_rule(context.source.harbor, *made)
    with context.writing() as session:
        groups.delete_group(session, group, context.clock())
        editor.record(session, "group.delete", f"group:{group}")
    return {}


def _bodies(session: Session, rows: Sequence[Group]) -> list[GroupBody]:
    ids = [row.id for row in rows]
    projects, counts = groups.projects_of(session, ids), unresolved.count_unresolved(session, ids)
    return [GroupBody.of(row, projects[row.id], counts[row.id]) for row in rows]
