"""What a group asks for, entry by entry: checking, and how an entry is kept as a row. No queries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.ground_control.groups.policies import check_priority
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.reference import check_repository, check_tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from harbor_satellite.ground_control.models import GroupArtifact

_TYPE_LONGEST: Final = 64  # characters


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """One artifact of a group as it was asked for; see ``group_entry``."""

    repository: str
    tags: tuple[str, ...]
    """Sorted; empty for an artifact that is held by digest alone."""
    digest: Digest | None = None
    """None: whatever the tags name when the group is published."""
    labels: Mapping[str, str] | tuple[str, ...] | None = field(default=None, hash=False)
    type: str = "IMAGE"
    deleted: bool = False
    priority: int = 0
    """Higher ones cross the link first."""

    @property
    def harbor_project(self) -> str:
        """The first component of the repository."""
        return self.repository.partition("/")[0]


def group_entry(
    repository: str,
    tags: Iterable[str],
    digest: str,
    labels: Mapping[str, str] | Iterable[str] | None = None,
    type: str = "",  # noqa: A002 - the original's key
    *,
    deleted: bool = False,
    priority: int = 0,
) -> GroupEntry:
    """Check one entry of a group; an empty digest means that the tags decide.

    Raises:
        InvalidInputError: a name, tag, digest or priority breaks its rule, or there is neither tag nor digest.
    """
    entry = GroupEntry(
        repository=check_repository(repository),
        tags=tuple(sorted({check_tag(tag) for tag in tags})),
        digest=Digest.parse(digest) if digest else None,
        labels=labels if labels is None or isinstance(labels, dict) else tuple(labels),
        type=type or "IMAGE",
        deleted=deleted,
        priority=check_priority(priority, repository),
    )
    if not entry.tags and entry.digest is None:
        raise InvalidInputError(f"{repository} has neither tag nor digest")
    if len(entry.type) > _TYPE_LONGEST or not entry.type.isprintable():
        raise InvalidInputError(f"{repository}: type has more than {_TYPE_LONGEST} characters")
    return entry


def entry_row(group_id: int, entry: GroupEntry) -> dict[str, object]:
    """Return an entry as a row of its group."""
    return {
        "group_id": group_id,
        "repository": entry.repository,
        "tags": list(entry.tags),
        "digest": str(entry.digest) if entry.digest else None,
        "labels": list(entry.labels) if isinstance(entry.labels, tuple) else entry.labels,
        "type": entry.type,
        "deleted": entry.deleted,
        "priority": entry.priority,
    }


def row_entry(row: GroupArtifact) -> GroupEntry:
    """Return the entry that a row holds."""
    return GroupEntry(
        repository=row.repository,
        tags=tuple(row.tags),
        digest=Digest.parse(row.digest) if row.digest else None,
        labels=tuple(row.labels) if isinstance(row.labels, list) else row.labels,
        type=row.type,
        deleted=row.deleted,
        priority=row.priority,
    )


def check_tags_agree(entries: Iterable[GroupEntry]) -> None:
    """Raise ``InvalidInputError`` if two entries want one tag with different digests."""
    seen: dict[tuple[str, str], Digest | None] = {}
    for entry in entries:
        for tag in () if entry.deleted else entry.tags:
            first = seen.setdefault((entry.repository, tag), entry.digest)
            if first != entry.digest:
                named = " and ".join(str(digest or "no digest") for digest in (first, entry.digest))
                raise InvalidInputError(f"{entry.repository}:{tag} is named with {named}")


def merge_ways(*ways: Sequence[GroupEntry]) -> tuple[GroupEntry, ...]:
    """Unite what the ways of filling a group give; of one tag, what an earlier way says counts.

    So an operator who pins a tag to a digest is not overruled by a listing, and no tag is named with two digests.
    """
    seen: dict[tuple[str, str], tuple[int, Digest | None]] = {}
    united: list[GroupEntry] = []
    for number, entries in enumerate(ways):
        for entry in entries:
            mine = (number, entry.digest)
            tags = tuple(tag for tag in entry.tags if seen.setdefault((entry.repository, tag), mine) == mine)
            if tags or not entry.tags:
                united.append(replace(entry, tags=tags))
    return tuple(sorted(united, key=lambda entry: (entry.repository, entry.tags)))
