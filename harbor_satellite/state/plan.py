"""The plan of a replication: what to copy, keep and delete. Pure: the same input gives the same plan.

Level-triggered: desired states are held against what the local registry really holds, never against
what was done last time. The one thing remembered is which references this satellite copied itself,
because nothing else is ever deleted.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.state.artifact import StateArtifact, StateEntry
    from harbor_satellite.state.names import GroupName


@dataclass(frozen=True, slots=True, order=True)
class LocalTag:
    """What the local registry calls an artifact: a repository and a tag, or its digest where it has no tag."""

    repository: str
    tag: str

    @property
    def is_digest(self) -> bool:
        """Whether the artifact is held by its digest alone."""
        return ":" in self.tag

    def __str__(self) -> str:
        return f"{self.repository}{'@' if self.is_digest else ':'}{self.tag}"


@dataclass(frozen=True, slots=True)
class DesiredArtifact:
    """One artifact that some group wants at this site, and where to get it."""

    name: LocalTag
    digest: Digest
    source: str
    """The registry to copy from, as its state names it."""
    groups: tuple[GroupName, ...]
    referrers: tuple[Digest, ...] | None = None
    """None: unknown, so they are looked for at the source."""
    size: int | None = None
    """bytes, if the state says"""


@dataclass(frozen=True, slots=True)
class Copy:
    """One artifact to bring to the site under one or more names."""

    repository: str
    digest: Digest
    tags: tuple[str, ...]
    """Tags to move once the content is complete."""
    by_digest: bool
    """Whether some group wants it by its digest, without a tag."""
    source: str
    referrers: tuple[Digest, ...] | None
    size: int | None
    reason: str

    @property
    def names(self) -> tuple[LocalTag, ...]:
        """Every name that this copy is to have at the site."""
        digest = (str(self.digest),) if self.by_digest else ()
        return tuple(LocalTag(self.repository, name) for name in (*self.tags, *digest))

    def __str__(self) -> str:
        return f"{self.repository}:{','.join(self.tags)}" if self.tags else f"{self.repository}@{self.digest}"


@dataclass(frozen=True, slots=True, order=True)
class Kept:
    """One name that stays as it is."""

    name: LocalTag
    digest: Digest
    reason: str


@dataclass(frozen=True, slots=True, order=True)
class Deletion:
    """One name to take away; its digest is what must still be there when that happens."""

    name: LocalTag
    digest: Digest
    reason: str


@dataclass(frozen=True, slots=True, order=True)
class Refusal:
    """One name that two groups want with different content: left as it is, and reported."""

    name: LocalTag
    reason: str


@dataclass(frozen=True, slots=True)
class ReplicationPlan:
    """Disjoint sets over desired ∪ owned, each sorted."""

    copy: tuple[Copy, ...] = ()
    keep: tuple[Kept, ...] = ()
    delete: tuple[Deletion, ...] = ()
    refuse: tuple[Refusal, ...] = ()
    forget: tuple[LocalTag, ...] = ()
    """Names that this satellite put there once, and that are neither wanted nor its own any more."""

    @property
    def has_work(self) -> bool:
        """Whether anything is to be copied or deleted."""
        return bool(self.copy or self.delete)


@dataclass(frozen=True, slots=True)
class DesiredSet:
    """All groups of a satellite as one set; what they disagree on is set apart."""

    artifacts: tuple[DesiredArtifact, ...]
    refuse: tuple[Refusal, ...] = ()

    @property
    def names(self) -> frozenset[LocalTag]:
        """Every name that some group wants, disputed ones too."""
        return frozenset(item.name for item in self.artifacts) | frozenset(item.name for item in self.refuse)


def merge_states(states: Iterable[StateArtifact]) -> DesiredSet:
    """Merge the states of all groups: an artifact wanted twice is wanted once, by both groups.

    Entries marked ``deleted`` are left out. Two groups that want one name with different digests are
    a refusal: neither is preferred, and what the site has stays.
    """
    wanted: dict[LocalTag, dict[Digest, list[tuple[StateArtifact, StateEntry]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for state in sorted(states, key=lambda state: state.group):
        for entry in state.artifacts:
            for tag in () if entry.deleted else entry.tags or (str(entry.digest),):
                wanted[LocalTag(entry.repository, tag)][entry.digest].append((state, entry))
    artifacts, refusals = [], []
    for name, by_digest in sorted(wanted.items()):
        if len(by_digest) > 1:
            refusals.append(Refusal(name, _dispute(by_digest)))
            continue
        ((digest, claims),) = by_digest.items()
        first_state, first_entry = claims[0]
        artifacts.append(
            DesiredArtifact(
                name=name,
                digest=digest,
                source=first_state.registry,
                groups=tuple(dict.fromkeys(state.group for state, _ in claims)),
                referrers=_union(entry.referrers for _, entry in claims),
                size=first_entry.size,
            )
        )
    return DesiredSet(tuple(artifacts), tuple(refusals))


def plan_replication(
    desired: DesiredSet,
    present: Mapping[LocalTag, Digest],
    owned: Mapping[LocalTag, Collection[Digest]],
    incomplete: Collection[LocalTag] = (),
) -> ReplicationPlan:
    """Decide what must be copied to, kept in, and deleted from the local registry.

    Args:
        desired: the merged states of all groups.
        present: digest of every name in desired ∪ owned that the local registry really holds; may be empty.
        owned: what this satellite put under each name and has not deleted since; two digests where it was
            stopped while moving a tag.
        incomplete: names whose digest is right but whose content or referrers are not all there.

    Returns:
        Disjoint sets covering desired ∪ owned; names of one artifact are copied together.

    Source: our rule on deletion (delete only what this satellite copied, and only if it is still that).
    """
    copies: dict[tuple[str, Digest], list[tuple[DesiredArtifact, str]]] = defaultdict(list)
    kept = []
    for item in desired.artifacts:
        here = present.get(item.name)
        if here is None:
            copies[item.name.repository, item.digest].append((item, "not there"))
        elif here != item.digest:
            copies[item.name.repository, item.digest].append((item, f"tag moved from {here}"))
        elif item.name in incomplete:
            copies[item.name.repository, item.digest].append((item, "content or referrers missing"))
        else:
            kept.append(Kept(item.name, here, f"wanted by {', '.join(item.groups)}"))
    deletions, forgotten = [], []
    for name in owned.keys() - desired.names:
        here = present.get(name)
        if here is None:
            forgotten.append(name)
        elif here in owned[name]:
            deletions.append(Deletion(name, here, "no group wants it any more"))
        else:
            forgotten.append(name)
            kept.append(Kept(name, here, "changed at the site: not ours to delete"))
    return ReplicationPlan(
        copy=tuple(_copy(items) for _, items in sorted(copies.items())),
        keep=tuple(sorted(kept)),
        delete=tuple(sorted(deletions)),
        refuse=desired.refuse,
        forget=tuple(sorted(forgotten)),
    )


def _copy(items: list[tuple[DesiredArtifact, str]]) -> Copy:
    first, reason = items[0]
    return Copy(
        repository=first.name.repository,
        digest=first.digest,
        tags=tuple(sorted(item.name.tag for item, _ in items if not item.name.is_digest)),
        by_digest=any(item.name.is_digest for item, _ in items),
        source=first.source,
        referrers=_union(item.referrers for item, _ in items),
        size=first.size,
        reason=reason,
    )


def _dispute(by_digest: Mapping[Digest, list[tuple[StateArtifact, StateEntry]]]) -> str:
    sides = (f"{claims[0][0].group} wants {digest}" for digest, claims in sorted(by_digest.items()))
    return f"groups disagree: {', '.join(sides)}"


def _union(sets: Iterable[tuple[Digest, ...] | None]) -> tuple[Digest, ...] | None:
    union: set[Digest] = set()
    for digests in sets:
        if digests is None:
            return None
        union.update(digests)
    return tuple(sorted(union))
