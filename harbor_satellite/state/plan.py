"""The plan of a replication: what to copy, keep and delete. Pure: the same input gives the same plan.

Level-triggered: desired states are held against what the local registry really holds, never against
what was done last time. The one thing remembered is which references this satellite copied itself,
because nothing else is ever deleted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from harbor_satellite.state.desired import NO_WISH, DesiredArtifact, DesiredSet, LocalTag, Refusal, Wish, joined, union
from harbor_satellite.state.quarantine import is_ahead

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.state.names import GroupName
    from harbor_satellite.state.quarantine import Quarantined

_COSIGN_TAG: Final = re.compile(r"sha(256|512)-[0-9a-f]{64,128}\.(sig|att|sbom)")


class Rule(StrEnum):
    """The rules by which an image's fate is decided; each decision names the one that decided."""

    ABSENT = "absent"
    MOVED = "moved"
    INCOMPLETE = "incomplete"
    WANTED = "wanted"
    UNWANTED = "unwanted"
    FOREIGN = "foreign"
    DISPUTED = "disputed"
    FAILED = "failed"
    SIGNATURE = "signature"
    QUARANTINE = "quarantine"
    WAITING = "waiting"
    PAUSED = "paused"
    UNCHANGED = "unchanged"
    ROLLBACK = "rollback"


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
    rule: Rule = Rule.ABSENT
    groups: tuple[GroupName, ...] = ()
    wish: Wish = NO_WISH
    is_signature: bool = False
    """Whether it is what older cosign keeps about an image, under tags made of that image's digest."""

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
    rule: Rule = Rule.WANTED
    groups: tuple[GroupName, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Deletion:
    """One name to take away; its digest is what must still be there when that happens."""

    name: LocalTag
    digest: Digest
    reason: str


@dataclass(frozen=True, slots=True)
class ReplicationPlan:
    """Disjoint sets over desired ∪ owned, each sorted."""

    copy: tuple[Copy, ...] = ()
    keep: tuple[Kept, ...] = ()
    delete: tuple[Deletion, ...] = ()
    refuse: tuple[Refusal, ...] = ()
    wait: tuple[tuple[Copy, Quarantined], ...] = ()
    """Artifacts in quarantine, not to be tried in this run."""
    forget: tuple[LocalTag, ...] = ()
    """Names that this satellite put there once, and that are neither wanted nor its own any more."""


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
        Disjoint sets covering desired ∪ owned; names of one artifact are copied together, higher priority first.

    Source: our rule on deletion (delete only what this satellite copied, and only if it is still that).
    """
    copies: dict[tuple[str, Digest], list[tuple[DesiredArtifact, Rule, str]]] = defaultdict(list)
    kept = []
    for item in desired.artifacts:
        here = present.get(item.name)
        if here is None:
            copies[item.name.repository, item.digest].append((item, Rule.ABSENT, "not there"))
        elif here != item.digest:
            copies[item.name.repository, item.digest].append((item, Rule.MOVED, f"tag moved from {here}"))
        elif item.name in incomplete:
            copies[item.name.repository, item.digest].append(
                (item, Rule.INCOMPLETE, "content or referrers missing, or not checked under its policy")
            )
        else:
            kept.append(Kept(item.name, here, f"wanted by {', '.join(item.groups)}", groups=item.groups))
    deletions, forgotten = [], []
    for name in owned.keys() - desired.names:
        here = present.get(name)
        if here is None:
            forgotten.append(name)
        elif here in owned[name]:
            deletions.append(Deletion(name, here, "no group wants it any more"))
        else:
            forgotten.append(name)
            kept.append(Kept(name, here, "changed at the site: not ours to delete", Rule.FOREIGN))
    return ReplicationPlan(
        copy=tuple(sorted((_copy(items) for _, items in sorted(copies.items())), key=lambda copy: -copy.wish.priority)),
        keep=tuple(sorted(kept)),
        delete=tuple(sorted(deletions)),
        refuse=desired.refuse,
        forget=tuple(sorted(forgotten)),
    )


def _copy(items: list[tuple[DesiredArtifact, Rule, str]]) -> Copy:
    first, rule, reason = items[0]
    artifacts = [item for item, _, _ in items]
    return Copy(
        repository=first.name.repository,
        digest=first.digest,
        tags=tuple(sorted(item.name.tag for item in artifacts if not item.name.is_digest)),
        by_digest=any(item.name.is_digest for item in artifacts),
        source=first.source,
        referrers=union(item.referrers for item in artifacts),
        size=first.size,
        reason=reason,
        rule=rule,
        groups=tuple(sorted({group for item in artifacts for group in item.groups})),
        wish=joined([item.wish for item in artifacts]),
        is_signature=all(is_signature(item) for item in artifacts),
    )


def is_signature(item: DesiredArtifact) -> bool:
    """Tell whether it is what older cosign keeps about an image: nobody signs that, and its tag moves early."""
    return item.is_referrer and _COSIGN_TAG.fullmatch(item.name.tag) is not None


def set_aside(plan: ReplicationPlan, quarantine: Iterable[Quarantined], now: datetime) -> ReplicationPlan:
    """Leave out of a plan what is in quarantine and not to be tried yet."""
    until = {
        (item.repository, item.digest): item
        for item in quarantine
        if item.is_set_aside and is_ahead(item.retry_at, now)
    }
    wait = tuple((copy, until[copy.repository, copy.digest]) for copy in plan.copy if _key(copy) in until)
    return replace(plan, copy=tuple(copy for copy in plan.copy if _key(copy) not in until), wait=wait)


def _key(copy: Copy) -> tuple[str, Digest]:
    return copy.repository, copy.digest
