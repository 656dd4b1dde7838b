"""Saying why: what was decided about an image, by which rule, what stands at the site, what happens next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError, NotFoundError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.reference import check_repository, check_tag
from harbor_satellite.satellite.generations import load_generations
from harbor_satellite.satellite.record import DECISIONS_FILE
from harbor_satellite.state.desired import LocalTag, names_of
from harbor_satellite.state.plan import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.applied import Applied
    from harbor_satellite.satellite.generations import Generations, SiteGeneration
    from harbor_satellite.satellite.store import SatelliteStore

_SUGGESTIONS: Final = 10
"""Names of a repository that a message lists at most."""
RULES: Final[Mapping[Rule, str]] = {
    Rule.ABSENT: "a group wants it and the local registry did not have it",
    Rule.MOVED: "a group wants other content under this name than stood there",
    Rule.INCOMPLETE: "it stood there, but not all of it, or its signatures were not checked under today's policy",
    Rule.WANTED: "a group wants it and it is there",
    Rule.UNWANTED: "this satellite put it there and no group wants it any more",
    Rule.FOREIGN: "somebody else changed it at the site, so it is not this satellite's to delete",
    Rule.DISPUTED: "two groups want different content under this name, so neither is preferred",
    Rule.FAILED: "it could not be brought, published or deleted",
    Rule.SIGNATURE: "it is not signed as its policy wants",
    Rule.QUARANTINE: "it failed before and is not tried again yet",
    Rule.WAITING: "it waits until its group is complete, because the group is published together",
    Rule.PAUSED: "bytes may not move now: outside the sync windows, or a cap is reached",
    Rule.UNCHANGED: "the state has not changed, and it is there",
    Rule.ROLLBACK: "an operator went back to the previous generation at this site",
}

_SAYS_MORE: Final = frozenset(
    {Rule.MOVED, Rule.DISPUTED, Rule.FAILED, Rule.SIGNATURE, Rule.QUARANTINE, Rule.WAITING, Rule.PAUSED}
)
"""Rules whose reasons say more than the rule does."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known at the site about one name."""

    reference: str
    action: str
    """What the last run that decided something did; empty: nothing is known."""
    rule: str
    reason: str
    decided_at: str
    groups: tuple[str, ...]
    wanted: str
    """The digest that the applied state asks for; empty: it does not."""
    here: str
    """The digest that the local registry names now; empty: it is not there."""
    previous: str
    """The digest of the generation before; empty: none, or the site went back and stands on it."""
    newer: str
    """The digest of the generation that the site went back from; empty: it did not."""
    retry_at: str
    """When it is tried again, if it is in quarantine."""

    def document(self) -> dict[str, Any]:
        """Return it as JSON's values."""
        return {name: getattr(self, name) for name in self.__slots__} | {"groups": list(self.groups)}


def explain(store: SatelliteStore, target: Registry, image: str) -> tuple[Explanation, ...]:
    """Explain every name that an operator may mean.

    Args:
        store: the site's record.
        target: the local registry.
        image: ``REPOSITORY[:TAG][@DIGEST]``; a registry before it is dropped.

    Raises:
        InvalidInputError: that is no name of an image.
        NotFoundError: nothing is known about it, and it is not at the local registry.
        RemoteError: the local registry cannot be asked.
    """
    applied, generations = store.applied(), load_generations(store)
    decisions = _decisions(store)
    known = {*applied.wanted, *applied.owned, *decisions.rows, *_names(generations)}
    asked = _asked(image)
    found = sorted(
        name for name in known if asked.names(name) and asked.is_any_of(_digests(name, applied, generations))
    )
    if not found:
        others = sorted(name for name in known if name.repository in asked.repositories)
        hint = f"; known of that repository: {', '.join(map(str, others[:_SUGGESTIONS]))}" if others else ""
        raise NotFoundError(
            f"no group wants {image}, no run has decided anything about it, "
            f"and this satellite did not put it here{hint}"
        )
    return tuple(_explanation(name, applied, generations, decisions, target) for name in found)


def explanation_text(item: Explanation) -> str:
    """Say it in a few lines."""
    lines = [
        f"{item.reference}",
        f"  decided  {item.action or 'nothing yet'}  rule={item.rule or '-'}  at {item.decided_at or '-'}",
        f"  because  {item.reason or '-'}",
        f"  wanted   {item.wanted or 'no'}  groups: {', '.join(item.groups) or '-'}",
        f"  here     {item.here or 'not there'}",
        f"  newer    {item.newer}" if item.newer else f"  before   {item.previous or '-'}",
    ]
    return "\n".join(lines + ([f"  again    {item.retry_at}"] if item.retry_at else []))


@dataclass(frozen=True, slots=True)
class _Decisions:
    decided_at: str
    rows: Mapping[LocalTag, Mapping[str, Any]]


def _decisions(store: SatelliteStore) -> _Decisions:
    document = store.read_document(DECISIONS_FILE) or {}
    rows: dict[LocalTag, Mapping[str, Any]] = {}
    for row in document.get("images", ()):
        for name in names_of(str(row.get("reference", ""))):
            rows[name] = row
    return _Decisions(str(document.get("decided_at", "")), rows)


def _names(generations: Generations) -> set[LocalTag]:
    both = (generations.current, generations.previous)
    return {name for generation in both if generation for name in generation.names}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an operator asks about."""

    repositories: frozenset[str]
    """As it was written, and without what may be a registry."""
    tag: str
    digest: Digest | None

    def names(self, name: LocalTag) -> bool:
        return name.repository in self.repositories and self.tag in {"", name.tag}

    def is_any_of(self, digests: set[Digest]) -> bool:
        return self.digest is None or self.digest in digests


def _asked(image: str) -> _Asked:
    """Read what an operator asks about; unlike a reference, a name alone is none of Docker Hub's."""
    rest, at, digest = image.partition("://")[2 if "://" in image else 0].partition("@")
    head, colon, tag = rest.rpartition(":")
    path, tag = (head, tag) if tag and colon and "/" not in tag else (rest, "")
    first, slash, below = path.partition("/")
    is_registry = bool(slash) and ("." in first or ":" in first or first == "localhost")
    try:
        repositories = {check_repository(below if is_registry else path)}
        if is_registry and ":" not in first:
            repositories.add(path)  # a repository may begin so, too
        return _Asked(frozenset(repositories), check_tag(tag) if tag else "", Digest.parse(digest) if at else None)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"not the name of an image, which is [REGISTRY/]REPOSITORY[:TAG][@DIGEST]: {error}"
        ) from error


def _digests(name: LocalTag, applied: Applied, generations: Generations) -> set[Digest]:
    """Return every digest that the site knows under a name."""
    both = (generations.current, generations.previous)
    found = {generation.names[name].digest for generation in both if generation and name in generation.names}
    found |= applied.owned.get(name, frozenset())
    found |= {applied.wanted[name]} if name in applied.wanted else set()
    return found | ({Digest.parse(name.tag)} if name.is_digest else set())


def _explanation(
    name: LocalTag, applied: Applied, generations: Generations, decisions: _Decisions, target: Registry
) -> Explanation:
    row = decisions.rows.get(name, {})
    wanted = applied.wanted.get(name)
    digest = wanted or _standing(generations.current, name)
    action, decided_at = str(row.get("action", "")), decisions.decided_at
    rule, reason = str(row.get("rule", "")), str(row.get("reason", ""))
    if generations.held and name in _names(generations):
        if row.get("digest") != str(digest):  # decided before the site went back
            action, decided_at = "rolled back", ""
        rule, reason = str(Rule.ROLLBACK), RULES[Rule.ROLLBACK]
    elif rule in set(Rule):
        said = RULES[Rule(rule)]
        reason = f"{said}: {reason}" if reason and Rule(rule) in _SAYS_MORE else said
    retry_at = next(
        (item.retry_at for item in applied.quarantine if (item.repository, item.digest) == (name.repository, digest)),
        None,
    )
    other = str(_standing(generations.previous, name) or "")
    return Explanation(
        reference=str(name),
        action=action,
        rule=rule,
        reason=reason,
        decided_at=decided_at,
        groups=tuple(row.get("groups", ())),
        wanted=str(wanted or ""),
        here=_here(target, name),
        previous="" if generations.held else other,
        newer=other if generations.held else "",
        retry_at=retry_at.isoformat() if retry_at else "",
    )


def _standing(generation: SiteGeneration | None, name: LocalTag) -> Digest | None:
    standing = generation.names.get(name) if generation else None
    return standing.digest if standing else None


def _here(target: Registry, name: LocalTag) -> str:
    try:
        found = target.manifest_head(name.repository, name.tag)
    except HarborSatelliteError as error:
        return f"unknown: {error}"
    return str(found.digest) if found else ""
