"""What a site is to hold: the states of all its groups merged into one set. Pure: the same input, the same set."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
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


def names_of(reference: str) -> tuple[LocalTag, ...]:
    """Return the names behind a reference as outcomes write it: ``REPOSITORY:TAG,TAG…`` or ``REPOSITORY@DIGEST``."""
    if "@" in reference:
        repository, _, digest = reference.partition("@")
        return (LocalTag(repository, digest),)
    repository, _, tags = reference.rpartition(":")
    return tuple(LocalTag(repository, tag) for tag in tags.split(","))


@dataclass(frozen=True, slots=True)
class Wish:
    """How an artifact is to be brought: what all groups that want it ask for, taken together."""

    platforms: tuple[Platform, ...] = ()
    """Children of an index to bring, sorted; empty: all."""
    required_keys: tuple[tuple[str, ...], ...] = ()
    """For each group that asks for signatures: keys, one of which must have signed."""
    priority: int = 0
    """Higher ones cross the link first."""


REFERRER_TYPE: Final = "REFERRER"
"""Of a state's entry that is not run but says something about another."""
NO_WISH: Final = Wish()


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
    wish: Wish = NO_WISH
    is_referrer: bool = False
    """Whether the centre found it under a tag by which older cosign keeps what it says about an image."""


@dataclass(frozen=True, slots=True, order=True)
class Refusal:
    """One name that two groups want with different content: left as it is, and reported."""

    name: LocalTag
    reason: str
    groups: tuple[GroupName, ...] = ()


@dataclass(frozen=True, slots=True)
class DesiredSet:
    """All groups of a satellite as one set; what they disagree on is set apart."""

    artifacts: tuple[DesiredArtifact, ...]
    refuse: tuple[Refusal, ...] = ()

    @property
    def names(self) -> frozenset[LocalTag]:
        """Every name that some group wants, disputed ones too."""
        return frozenset(item.name for item in self.artifacts) | frozenset(item.name for item in self.refuse)


def merge_states(states: Iterable[StateArtifact], site_platforms: tuple[Platform, ...] = ()) -> DesiredSet:
    """Merge the states of all groups: an artifact wanted twice is wanted once, by both groups.

    Entries marked ``deleted`` are left out. Two groups that want one name with different digests are
    a refusal: neither is preferred, and what the site has stays.

    Args:
        states: one of each group.
        site_platforms: what the site chooses for groups that choose no platforms themselves; empty: all.
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
            groups = {state.group for claims in by_digest.values() for state, _ in claims}
            refusals.append(Refusal(name, _dispute(by_digest), tuple(sorted(groups))))
            continue
        ((digest, claims),) = by_digest.items()
        first_state, first_entry = claims[0]
        artifacts.append(
            DesiredArtifact(
                name=name,
                digest=digest,
                source=first_state.registry,
                groups=tuple(dict.fromkeys(state.group for state, _ in claims)),
                referrers=union(entry.referrers for _, entry in claims),
                size=first_entry.size,
                wish=_wish(claims, site_platforms),
                is_referrer=all(entry.type == REFERRER_TYPE for _, entry in claims),
            )
        )
    return DesiredSet(tuple(artifacts), tuple(refusals))


def _wish(claims: Iterable[tuple[StateArtifact, StateEntry]], site_platforms: tuple[Platform, ...]) -> Wish:
    return joined(
        [
            Wish(
                platforms=state.policy.platforms or site_platforms,
                required_keys=(state.policy.signature_keys,) if state.policy.signature_keys else (),
                priority=entry.priority,
            )
            for state, entry in claims
        ]
    )


def joined(wishes: list[Wish]) -> Wish:
    """Take wishes together: every platform that any wants, every signature that any asks for, the highest priority."""
    if len(wishes) == 1:
        return wishes[0]
    wants_all = any(not wish.platforms for wish in wishes)
    platforms = () if wants_all else sorted({platform for wish in wishes for platform in wish.platforms})
    return Wish(
        platforms=tuple(platforms),
        required_keys=tuple(sorted({keys for wish in wishes for keys in wish.required_keys})),
        priority=max(wish.priority for wish in wishes),
    )


def _dispute(by_digest: Mapping[Digest, list[tuple[StateArtifact, StateEntry]]]) -> str:
    sides = (f"{claims[0][0].group} wants {digest}" for digest, claims in sorted(by_digest.items()))
    return f"groups disagree: {', '.join(sides)}"


def union(sets: Iterable[tuple[Digest, ...] | None]) -> tuple[Digest, ...] | None:
    """Join sets of referrers; None, not known, wins: then all are looked for."""
    union: set[Digest] = set()
    for digests in sets:
        if digests is None:
            return None
        union.update(digests)
    return tuple(sorted(union))
