"""Saying why: what was decided about an image, by which rule, what stands at the site, what happens next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import HarborSatelliteError, NotFoundError
from harbor_satellite.satellite.generations import load_generations
from harbor_satellite.satellite.record import DECISIONS_FILE
from harbor_satellite.state.desired import LocalTag, names_of
from harbor_satellite.state.plan import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.applied import Applied
    from harbor_satellite.satellite.generations import Generations
    from harbor_satellite.satellite.store import SatelliteStore

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
    """The digest of the previous generation; empty: none."""
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
        image: ``REPOSITORY``, ``REPOSITORY:TAG`` or ``REPOSITORY@DIGEST``; a registry before it is dropped.

    Raises:
        NotFoundError: nothing is known about it, and it is not at the local registry.
        RemoteError: the local registry cannot be asked.
    """
    applied, generations = store.applied(), load_generations(store)
    decisions = _decisions(store)
    known = {*applied.wanted, *applied.owned, *decisions.rows, *_names(generations)}
    digests = {**(generations.previous.digests() if generations.previous else {}), **applied.wanted}
    found = sorted(name for name in known if _is_meant(name, digests.get(name), image))
    if not found:
        raise NotFoundError(
            f"no group wants {image}, no run has decided anything about it, and this satellite did not put it here"
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
        f"  before   {item.previous or '-'}",
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


def _is_meant(name: LocalTag, digest: Digest | None, image: str) -> bool:
    forms = (str(name), name.repository, f"{name.repository}@{digest}")
    return any(image == form or image.endswith(f"/{form}") for form in forms)


def _explanation(
    name: LocalTag, applied: Applied, generations: Generations, decisions: _Decisions, target: Registry
) -> Explanation:
    row = decisions.rows.get(name, {})
    rule = str(row.get("rule", ""))
    reason = str(row.get("reason", ""))
    if generations.held and generations.current and name in generations.current.names:
        rule, reason = str(Rule.ROLLBACK), RULES[Rule.ROLLBACK]
    elif rule in set(Rule):
        reason = f"{RULES[Rule(rule)]}: {reason}"
    wanted = applied.wanted.get(name)
    digest = wanted or (generations.current and generations.current.digests().get(name))
    retry_at = next(
        (item.retry_at for item in applied.quarantine if (item.repository, item.digest) == (name.repository, digest)),
        None,
    )
    return Explanation(
        reference=str(name),
        action=str(row.get("action", "")),
        rule=rule,
        reason=reason,
        decided_at=decisions.decided_at,
        groups=tuple(row.get("groups", ())),
        wanted=str(wanted or ""),
        here=_here(target, name),
        previous=str((generations.previous and generations.previous.digests().get(name)) or ""),
        retry_at=retry_at.isoformat() if retry_at else "",
    )


def _here(target: Registry, name: LocalTag) -> str:
    try:
        found = target.manifest_head(name.repository, name.tag)
    except HarborSatelliteError as error:
        return f"unknown: {error}"
    return str(found.digest) if found else ""
