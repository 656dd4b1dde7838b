"""The record of what the site follows and how its last run went, and its JSON. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform
from harbor_satellite.state.desired import LocalTag
from harbor_satellite.state.quarantine import Quarantined
from harbor_satellite.state.wire import AppliedGroup, ImageFailure

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class LastRun:
    """How the last run went, for the next report."""

    finished_at: datetime
    seconds: float
    bytes_from_source: int
    copied_count: int
    deleted_count: int
    summary: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What the site follows now, and how the last run went."""

    state_digest: Digest | None = None
    """Digest of the satellite state that was applied last; None before the first run."""
    is_converged: bool = False
    """Whether the site is wholly on that state, with nothing failed or refused."""
    applied_at: datetime | None = None
    groups: tuple[AppliedGroup, ...] = ()
    seen: Mapping[str, int] = field(default_factory=dict)
    """The highest generation of each group that was ever followed here: neither leaving nor going back lowers it."""
    wanted: Mapping[LocalTag, Digest] = field(default_factory=dict)
    """Every name that this state asks for, whoever put it there: what the next look is held against."""
    look_at: int = 0
    """Where among the names at the site the next cheap look begins."""
    owned: Mapping[LocalTag, frozenset[Digest]] = field(default_factory=dict)
    """What this satellite put under each name; two digests while a tag is being moved."""
    sizes: Mapping[LocalTag, int] = field(default_factory=dict)
    """Bytes of each artifact, where its state says."""
    sources: Mapping[LocalTag, str] = field(default_factory=dict)
    """The registry that a name comes from, as its state names it."""
    platforms: Mapping[LocalTag, tuple[Platform, ...]] = field(default_factory=dict)
    """Children of the index under a name that were brought, where not all were."""
    verified: Mapping[LocalTag, str] = field(default_factory=dict)
    """What was checked about the signatures of a name's content: a digest over content and keys."""
    quarantine: tuple[Quarantined, ...] = ()
    """What could not be brought, and when it is tried again."""
    next_try_at: datetime | None = None
    """Not converged, and nothing to be done about it before this moment unless the state changes."""
    choices: str = ""
    """The site's own choices under which it was applied; others make it look again."""
    failures: tuple[ImageFailure, ...] = ()
    last_run: LastRun | None = None
    failing_since: datetime | None = None
    """When the first of the runs ended that failed as a whole, one after the other; counts if the last one did."""

    def highest(self) -> dict[str, int]:
        """Return the highest generation of each group that was ever followed here."""
        now = {group.group: group.generation for group in self.groups}
        return {group: max(self.seen.get(group, 0), now.get(group, 0)) for group in {**self.seen, **now}}


def applied_of(document: Mapping[str, Any]) -> Applied:
    """Read the record from its JSON; raises whatever a missing key or a wrong value raises."""
    owned = {
        LocalTag(item["repository"], item["tag"]): frozenset(Digest.parse(text) for text in item["digests"])
        for item in document["owned"]
    }
    digest, applied_at, last_run = document["state_digest"], document["applied_at"], document["last_run"]
    return Applied(
        state_digest=Digest.parse(digest) if digest else None,
        is_converged=bool(document["is_converged"]),
        applied_at=datetime.fromisoformat(applied_at) if applied_at else None,
        groups=tuple(AppliedGroup.model_validate(item) for item in document["groups"]),
        wanted={LocalTag(item["repository"], item["tag"]): Digest.parse(item["digest"]) for item in document["wanted"]},
        owned=owned,
        sizes={LocalTag(item["repository"], item["tag"]): int(item["size"]) for item in document["sizes"]},
        seen={str(group): int(generation) for group, generation in document.get("seen", {}).items()},
        look_at=int(document.get("look_at", 0)),
        sources={
            LocalTag(item["repository"], item["tag"]): str(item["source"]) for item in document.get("sources", ())
        },
        platforms={
            LocalTag(item["repository"], item["tag"]): tuple(Platform.parse(one) for one in item["platforms"])
            for item in document.get("platforms", ())
        },
        verified={
            LocalTag(item["repository"], item["tag"]): str(item["verified"]) for item in document.get("verified", ())
        },
        quarantine=tuple(_quarantined(item) for item in document.get("quarantine", ())),
        next_try_at=datetime.fromisoformat(next_try) if (next_try := document.get("next_try_at")) else None,
        choices=str(document.get("choices", "")),
        failures=tuple(ImageFailure.model_validate(item) for item in document["failures"]),
        last_run=_last_run(last_run) if last_run else None,
        failing_since=datetime.fromisoformat(since) if (since := document.get("failing_since")) else None,
    )


def applied_json(applied: Applied) -> dict[str, Any]:
    """Write the record as JSON, sorted."""
    return {
        "state_digest": str(applied.state_digest) if applied.state_digest else None,
        "is_converged": applied.is_converged,
        "applied_at": applied.applied_at.isoformat() if applied.applied_at else None,
        "groups": [group.model_dump() for group in applied.groups],
        "wanted": [
            {"repository": name.repository, "tag": name.tag, "digest": str(digest)}
            for name, digest in sorted(applied.wanted.items())
        ],
        "seen": dict(sorted(applied.seen.items())),
        "look_at": applied.look_at,
        "owned": [
            {"repository": name.repository, "tag": name.tag, "digests": sorted(map(str, digests))}
            for name, digests in sorted(applied.owned.items())
        ],
        "sizes": [
            {"repository": name.repository, "tag": name.tag, "size": size}
            for name, size in sorted(applied.sizes.items())
        ],
        "sources": [
            {"repository": name.repository, "tag": name.tag, "source": source}
            for name, source in sorted(applied.sources.items())
        ],
        "platforms": [
            {"repository": name.repository, "tag": name.tag, "platforms": [str(one) for one in platforms]}
            for name, platforms in sorted(applied.platforms.items(), key=lambda item: item[0])
        ],
        "verified": [
            {"repository": name.repository, "tag": name.tag, "verified": verified}
            for name, verified in sorted(applied.verified.items())
        ],
        "quarantine": [
            asdict(item)
            | {"digest": str(item.digest), "since": item.since.isoformat(), "retry_at": item.retry_at.isoformat()}
            for item in applied.quarantine
        ],
        "next_try_at": applied.next_try_at.isoformat() if applied.next_try_at else None,
        "choices": applied.choices,
        "failures": [failure.model_dump() for failure in applied.failures],
        "last_run": _last_run_json(applied.last_run) if applied.last_run else None,
        "failing_since": applied.failing_since.isoformat() if applied.failing_since else None,
    }


def with_rest(applied: Applied, rest: Mapping[str, Any] | None) -> Applied:
    """Add how the last run went that changed nothing, if that was later."""
    last_run = _last_run(rest["last_run"]) if rest else None
    if rest is None or last_run is None or (applied.last_run and last_run.finished_at <= applied.last_run.finished_at):
        return applied
    return replace(applied, last_run=last_run, look_at=int(rest["look_at"]))


def rest_json(last_run: LastRun, look_at: int) -> dict[str, Any]:
    """Write how a run went that changed nothing."""
    return {"last_run": _last_run_json(last_run), "look_at": look_at}


def _last_run(item: Mapping[str, Any]) -> LastRun:
    values: dict[str, Any] = {**item, "finished_at": datetime.fromisoformat(item["finished_at"])}
    return LastRun(**values)


def _last_run_json(run: LastRun) -> dict[str, Any]:
    return asdict(run) | {"finished_at": run.finished_at.isoformat()}


def _quarantined(item: Mapping[str, Any]) -> Quarantined:
    return Quarantined(
        repository=str(item["repository"]),
        digest=Digest.parse(item["digest"]),
        reason=str(item["reason"]),
        failures=int(item["failures"]),
        since=datetime.fromisoformat(item["since"]),
        retry_at=datetime.fromisoformat(item["retry_at"]),
        is_set_aside=bool(item["is_set_aside"]),
    )
