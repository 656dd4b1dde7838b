"""The state artifact of a group and the state of a satellite: values and their canonical JSON.

The original's keys stay as they are (``"tag"`` is a list there); ours are added beside them, and a
document of the original, without ours, parses as well. No network, no files, no clock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError, MalformedStateError, SizeLimitError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform
from harbor_satellite.oci.reference import check_repository, check_tag
from harbor_satellite.state.json_values import (
    canonical_json,
    count,
    moment,
    moment_text,
    shown,
    text,
    values,
    whole_number,
)
from harbor_satellite.state.names import GroupName, group_name
from harbor_satellite.state.policy import DEFAULT_POLICY, GroupPolicy, parse_policy, policy_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

STATE_MAX_BYTES: Final = 4 * 1024 * 1024  # bytes of JSON; some ten thousand artifacts


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One artifact that a group's sites shall hold: a repository, its tags and the digest they name."""

    repository: str
    tags: tuple[str, ...]
    digest: Digest
    labels: Mapping[str, str] | tuple[str, ...] | None = field(default=None, hash=False)
    """The original's key; carried, not interpreted."""
    type: str = "IMAGE"
    deleted: bool = False
    """Named, but not to be held: the same as absent for the plan."""
    size: int | None = None
    """bytes of the whole closure, each blob once; None in a state of the original"""
    media_type: str = ""
    platforms: tuple[Platform, ...] = ()
    """What an index offers; empty for other artifacts and in a state of the original."""
    referrers: tuple[Digest, ...] | None = None
    """Signatures, SBOMs and the like found at publishing, sorted; copied with the artifact.
    None in a state of the original, which does not know them: then the site looks for them."""
    priority: int = 0
    """Higher ones cross the link first."""


@dataclass(frozen=True, slots=True)
class StateArtifact:
    """What a group's sites shall hold, as of one generation."""

    group: GroupName
    registry: str
    """The source's URL, or ``host[:port]``, as the original writes it."""
    artifacts: tuple[StateEntry, ...]
    """Sorted by repository and tags."""
    generation: int = 0
    """Counts up with every change of content; 0 in a state of the original."""
    created_at: datetime | None = None
    expires_at: datetime | None = None
    policy: GroupPolicy = DEFAULT_POLICY

    def same_content(self, other: StateArtifact) -> bool:
        """Tell whether only generation and times differ: then there is nothing to publish."""
        return _content_only(self) == _content_only(other)

    def has_expired(self, now: datetime) -> bool:
        """Tell whether a site should no longer act on this state."""
        return self.expires_at is not None and now >= self.expires_at


def parse_state_artifact(raw: bytes, digest: Digest | None, what: str) -> StateArtifact:
    """Read a group's state; the only way to get one from bytes.

    Args:
        raw: canonical JSON or the original's; at most ``STATE_MAX_BYTES``.
        digest: what the bytes must hash to, or None where a verified manifest already vouched for them.
        what: the name to use in messages.

    Raises:
        DigestMismatchError: the bytes are not those of ``digest``.
        MalformedStateError: they do not parse, break a naming rule, or name one tag twice with two digests.
        SizeLimitError: too many bytes.
    """
    document = verified_json(raw, digest, what)
    try:
        entries = tuple(sorted((_entry(item) for item in document.get("artifacts") or ()), key=_entry_order))
        state = StateArtifact(
            group=group_name(document["group"]),
            registry=text(document.get("registry")),
            artifacts=entries,
            generation=count(document.get("generation", 0), "generation"),
            created_at=moment(document.get("created_at")),
            expires_at=moment(document.get("expires_at")),
            policy=parse_policy(document.get("policy")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, InvalidInputError) as error:
        raise MalformedStateError(f"malformed state {what}: {reason_of(error)}") from error
    _check_tags_are_unique(state, what)
    return state


def state_artifact_json(state: StateArtifact) -> bytes:
    """Write a group's state as canonical JSON: the original's keys first, sorted entries, no white space."""
    document: dict[str, object] = {
        "group": state.group,
        "registry": state.registry,
        "artifacts": [_entry_json(entry) for entry in sorted(state.artifacts, key=_entry_order)],
        "generation": state.generation,
        "created_at": moment_text(state.created_at),
        "expires_at": moment_text(state.expires_at),
    }
    return canonical_json(document | dict(policy_json(state.policy)))


def _entry(item: Mapping[str, Any]) -> StateEntry:
    tags = tuple(sorted({check_tag(text(tag)) for tag in values(item.get("tag"))}))
    size = item.get("size")
    deleted = item.get("deleted", False)
    if not isinstance(deleted, bool):
        raise InvalidInputError(f"deleted is neither true nor false: {shown(deleted)}")
    return StateEntry(
        repository=check_repository(text(item["repository"])),
        tags=tags,
        digest=Digest.parse(text(item["digest"])),
        labels=_labels(item.get("labels")),
        type=text(item.get("type") or "IMAGE"),
        deleted=deleted,
        size=None if size is None else count(size, "size"),
        media_type=text(item.get("media_type") or ""),
        platforms=tuple(Platform.parse(text(platform)) for platform in values(item.get("platforms"))),
        referrers=_digests(item.get("referrers")),
        priority=whole_number(item.get("priority", 0), "priority"),
    )


def _entry_json(entry: StateEntry) -> dict[str, object]:
    document: dict[str, object] = {
        "repository": entry.repository,
        "tag": list(entry.tags),
        "labels": entry.labels,
        "type": entry.type,
        "digest": str(entry.digest),
        "deleted": entry.deleted,
        "size": entry.size,
        "media_type": entry.media_type,
        "platforms": [str(platform) for platform in entry.platforms],
        "referrers": None if entry.referrers is None else [str(digest) for digest in sorted(entry.referrers)],
    }
    return document | ({"priority": entry.priority} if entry.priority else {})


def _entry_order(entry: StateEntry) -> tuple[str, tuple[str, ...], Digest]:
    return entry.repository, entry.tags, entry.digest


def _digests(items: Any) -> tuple[Digest, ...] | None:
    return None if items is None else tuple(sorted(Digest.parse(text(item)) for item in values(items)))


def _labels(value: Any) -> Mapping[str, str] | tuple[str, ...] | None:
    return tuple(text(label) for label in value) if isinstance(value, list) else value


def _check_tags_are_unique(state: StateArtifact, what: str) -> None:
    seen: dict[tuple[str, str], Digest] = {}
    for entry in state.artifacts:
        for tag in () if entry.deleted else entry.tags:
            first = seen.setdefault((entry.repository, tag), entry.digest)
            if first != entry.digest:
                message = f"{entry.repository}:{tag} is named with {first} and with {entry.digest}"
                raise MalformedStateError(f"malformed state {what}: {message}")


def verified_json(raw: bytes, digest: Digest | None, what: str) -> dict[str, Any]:
    """Read a state's JSON object, capped and, if there is a digest, held against it."""
    if len(raw) > STATE_MAX_BYTES:
        raise SizeLimitError(f"state {what} has {len(raw)} bytes; at most {STATE_MAX_BYTES} are read")
    if digest is not None:
        digest.verify(raw, what)
    try:
        document = json.loads(raw)
        canonical_json({"": document})  # a lone surrogate is JSON, but no text that could ever be written again
    except (ValueError, RecursionError) as error:
        raise MalformedStateError(f"malformed state {what}: not JSON: {shown(error)}") from error
    if not isinstance(document, dict):
        raise MalformedStateError(f"malformed state {what}: not a JSON object")
    return document


def _content_only(state: StateArtifact) -> StateArtifact:
    return replace(
        state,
        artifacts=tuple(sorted(state.artifacts, key=_entry_order)),
        generation=0,
        created_at=None,
        expires_at=None,
    )


def reason_of(error: Exception) -> str:
    """Say in a message why a state did not parse."""
    if isinstance(error, HarborSatelliteError):
        return str(error)
    return f"missing key {error}" if isinstance(error, KeyError) else shown(error)
