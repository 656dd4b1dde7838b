"""What a replication rule has pushed to a group's sink: membership records, no content. Use cases over a ``Session``.

A row is a tag and the digest that it names at the source. What was pushed by digest alone (a child of an index, a
signature) has its digest in the tag's place: it belongs to some member, and is known so that it is not sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from harbor_satellite.ground_control.groups.group_entries import GroupEntry
from harbor_satellite.ground_control.models import RuleMember
from harbor_satellite.oci.digest import Digest

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

_FORGOTTEN_AFTER: Final = timedelta(days=30)  # what no tag names; Harbor sends it again if it still matters: a kilobyte


@dataclass(frozen=True, slots=True)
class PushedManifest:
    """One manifest as it was pushed."""

    repository: str
    """As at the source, without the group in front."""
    reference: str
    """A tag, or its own digest."""
    digest: Digest
    media_type: str
    size: int
    """bytes"""


def members_of(session: Session, group_id: int) -> tuple[GroupEntry, ...]:
    """Return a rule's members as entries of the group, sorted by repository and tags."""
    row = RuleMember
    query = (
        select(row.repository, row.tag, row.digest)
        .where(row.group_id == group_id, row.tag != row.digest)
        .order_by(row.repository, row.tag)
    )
    return tuple(
        GroupEntry(repository, (tag,), Digest.parse(digest)) for repository, tag, digest in session.execute(query)
    )


def count_members(session: Session, group_id: int) -> int:
    """Return how many tags a rule has pushed."""
    row = RuleMember
    query = select(func.count()).select_from(row).where(row.group_id == group_id, row.tag != row.digest)
    return session.scalar(query) or 0


def find_manifest(session: Session, group_id: int, repository: str, reference: str) -> PushedManifest | None:
    """Return what is known under a tag or a digest; None means that it is to be sent."""
    row = RuleMember
    is_named = row.digest == reference if ":" in reference else row.tag == reference
    query = select(row).where(row.group_id == group_id, row.repository == repository, is_named).limit(1)
    found = session.scalar(query)
    if found is None:
        return None
    return PushedManifest(repository, found.tag, Digest.parse(found.digest), found.media_type, found.size)


def put_manifest(session: Session, group_id: int, manifest: PushedManifest, now: datetime) -> str | None:
    """Take note of a push; the same again, or at the same time, is fine.

    Returns:
        What the tag named before: another digest, or "" for nothing; None if nothing changed for the group.
    """
    row, is_tag = RuleMember, manifest.reference != str(manifest.digest)
    place = (
        row.group_id == group_id,
        row.repository == manifest.repository,
        row.tag == manifest.reference,
    )
    before = session.scalar(select(row.digest).where(*place).with_for_update())
    dialect = session.get_bind().dialect.name
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(row)
    changed = {name: statement.excluded[name] for name in ("digest", "media_type", "size", "pushed_at")}
    values = {
        "group_id": group_id,
        "repository": manifest.repository,
        "tag": manifest.reference,
        "digest": str(manifest.digest),
        "media_type": manifest.media_type,
        "size": manifest.size,
        "pushed_at": now,
    }
    keys = [row.group_id, row.repository, row.tag]
    session.execute(statement.values(values).on_conflict_do_update(index_elements=keys, set_=changed))
    if not is_tag or before == str(manifest.digest):
        return None
    _forget(session, group_id, manifest.repository, now)
    return before or ""


def delete_reference(
    session: Session, group_id: int, repository: str, reference: str, now: datetime
) -> dict[str, str] | None:
    """Take one tag away, or a manifest by its digest and with it every tag on it.

    Returns:
        The tags that are members no more, each with its digest; None if nothing was known by that reference.
    """
    row = RuleMember
    is_named = row.digest == reference if ":" in reference else row.tag == reference
    mine = (row.group_id == group_id, row.repository == repository, is_named)
    gone = session.execute(delete(row).where(*mine).returning(row.tag, row.digest)).all()
    _forget(session, group_id, repository, now)
    return {tag: digest for tag, digest in gone if tag != digest} if gone else None


def list_tags(session: Session, group_id: int, repository: str) -> tuple[str, ...]:
    """Return the tags of one repository that are members, sorted."""
    row = RuleMember
    mine = (row.group_id == group_id, row.repository == repository, row.tag != row.digest)
    return tuple(sorted(session.scalars(select(row.tag).where(*mine))))


def _forget(session: Session, group_id: int, repository: str, now: datetime) -> None:
    row = RuleMember
    mine = (row.group_id == group_id, row.repository == repository, row.tag == row.digest)
    session.execute(delete(row).where(*mine, row.pushed_at < now - _FORGOTTEN_AFTER))
