"""What the fake Harbor knows of its repositories: artifacts, tags, labels."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from harbor_satellite.oci import media_types
from harbor_satellite.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

ZERO_TIME = "0001-01-01T00:00:00.000Z"
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_INDEXES = media_types.INDEXES
_IMAGE_CONFIGS = (media_types.OCI_CONFIG, media_types.DOCKER_CONFIG)


@dataclass
class FakeArtifact:
    id: int
    repository: str
    """With its project."""
    digest: str
    media_type: str
    raw: bytes
    manifest: dict[str, Any]
    config: dict[str, Any]
    pushed: datetime
    tags: list[dict[str, Any]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    @property
    def is_index(self) -> bool:
        return self.media_type in _INDEXES

    @property
    def is_referrer(self) -> bool:
        return "subject" in self.manifest

    @property
    def children(self) -> list[str]:
        return [child["digest"] for child in self.manifest.get("manifests", [])]

    @property
    def blobs(self) -> list[str]:
        described = [self.manifest.get("config"), *self.manifest.get("layers", [])]
        return [one["digest"] for one in described if one]

    @property
    def tag_names(self) -> list[str]:
        """Newest first, as Harbor gives them."""
        return [tag["name"] for tag in reversed(self.tags)]


@dataclass
class Content:
    artifacts: dict[tuple[str, str], FakeArtifact] = field(default_factory=dict)  # (repository, digest)
    labels: dict[int, dict[str, Any]] = field(default_factory=dict)
    next_id: int = 1
    last_push: datetime = _LONG_AGO

    def repositories(self, project: str) -> list[str]:
        return sorted({name for name, _ in self.artifacts if name.partition("/")[0] == project})

    def all_of(self, repository: str) -> list[FakeArtifact]:
        return [one for (name, _), one in self.artifacts.items() if name == repository]

    def listed(self, repository: str) -> list[FakeArtifact]:
        """Newest first; children without a tag and referrers are not listed."""
        everything = self.all_of(repository)
        children = {digest for one in everything for digest in one.children}
        shown = [one for one in everything if not one.is_referrer and (one.tags or one.digest not in children)]
        return sorted(shown, key=lambda one: (one.pushed, one.id), reverse=True)

    def find(self, repository: str, reference: str) -> FakeArtifact | None:
        for one in self.all_of(repository):
            if reference == one.digest or reference in one.tag_names:
                return one
        return None

    def record(
        self, repository: str, raw: bytes, media_type: str, config: dict[str, Any], *, tag: str, now: datetime
    ) -> FakeArtifact:
        """Note a push; the same bytes keep their id and time, and a tag moves."""
        digest = str(Digest.of(raw))
        key = (repository, digest)
        if key not in self.artifacts:
            # Milliseconds are all that Harbor shows: no two pushes of a test come at the same time.
            now = self.last_push = max(now, self.last_push + timedelta(milliseconds=1))
            self.artifacts[key] = FakeArtifact(
                self._id(), repository, digest, media_type, raw, json.loads(raw), config, now
            )
        if tag:
            self.tag(self.artifacts[key], tag, now)
        return self.artifacts[key]

    def tag(self, artifact: FakeArtifact, name: str, now: datetime) -> None:
        if name in artifact.tag_names:
            return
        for other in self.all_of(artifact.repository):
            other.tags = [tag for tag in other.tags if tag["name"] != name]
        tag = {"artifact_id": artifact.id, "id": self._id(), "immutable": False, "name": name, "repository_id": 1}
        artifact.tags.append(tag | {"pull_time": ZERO_TIME, "push_time": stamp(now)})

    def referrers(self, artifact: FakeArtifact) -> Iterator[FakeArtifact]:
        for one in self.all_of(artifact.repository):
            if one.manifest.get("subject", {}).get("digest") == artifact.digest:
                yield one

    def remove(self, artifact: FakeArtifact) -> None:
        del self.artifacts[artifact.repository, artifact.digest]

    def add_label(self, body: dict[str, Any], now: datetime) -> int:
        number = self._id()
        kept = {key: body[key] for key in ("name", "color", "scope", "project_id", "description") if key in body}
        self.labels[number] = kept | {"id": number, "creation_time": stamp(now), "update_time": stamp(now)}
        return number

    def document(self, one: FakeArtifact, project_id: int, *, with_tag: bool, with_label: bool) -> dict[str, Any]:
        document: dict[str, Any] = {
            "accessories": None,
            "digest": one.digest,
            "id": one.id,
            "icon": "",
            "labels": [self.labels[number] for number in one.labels] or None if with_label else None,
            "manifest_media_type": one.media_type,
            "media_type": one.media_type if one.is_index else one.manifest.get("config", {}).get("mediaType", ""),
            "project_id": project_id,
            "pull_time": ZERO_TIME,
            "push_time": stamp(one.pushed),
            "references": [_reference(one, child) for child in one.manifest.get("manifests", [])] or None,
            "repository_id": 1,
            "repository_name": one.repository,
            "size": self._size(one),
            "tags": list(reversed(one.tags)) or None if with_tag else None,
            "type": "IMAGE" if one.is_index or _config_type(one) in _IMAGE_CONFIGS else "UNKNOWN",
        }
        if not one.is_index:
            document["artifact_type"] = one.manifest.get("artifactType") or _config_type(one)
        if one.config:
            keys = ("architecture", "os", "variant", "config", "author")
            document["extra_attrs"] = {key: one.config[key] for key in keys if key in one.config}
        return document

    def _size(self, one: FakeArtifact) -> int:
        parts = [one.manifest.get("config"), *one.manifest.get("layers", [])]
        own = len(one.raw) + sum(part["size"] for part in parts if part)
        children = (self.find(one.repository, digest) for digest in one.children)
        return own + sum(self._size(child) for child in children if child is not None)

    def _id(self) -> int:
        number, self.next_id = self.next_id, self.next_id + 1
        return number


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _config_type(one: FakeArtifact) -> str:
    return str(one.manifest.get("config", {}).get("mediaType", ""))


def _reference(parent: FakeArtifact, child: dict[str, Any]) -> dict[str, Any]:
    platform = {"OsFeatures": None, **child.get("platform", {})}
    return {"child_digest": child["digest"], "child_id": 1, "parent_id": parent.id, "platform": platform, "urls": None}
