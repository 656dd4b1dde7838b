"""A site and a centre in one folder: layouts on disk, a registry that counts, states pushed as the centre does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from harbor_satellite.demo.images import AMD64, layer, push_image, tag_image
from harbor_satellite.errors import HarborSatelliteError, RemoteError, StorageError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.reference import Reference
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.state_store import state_manifest
from harbor_satellite.satellite.engine import Engine
from harbor_satellite.satellite.options import ReplicationOptions
from harbor_satellite.satellite.replication import FetchedState
from harbor_satellite.satellite.state_input import states_digest
from harbor_satellite.satellite.sync import Watcher, sync_fetched, sync_satellite
from harbor_satellite.state.artifact import StateArtifact, StateEntry, state_artifact_json
from harbor_satellite.state.names import (
    GroupName,
    SatelliteName,
    group_state_repository,
    satellite_state_repository,
)
from harbor_satellite.state.satellite_state import SatelliteState, StatePin, satellite_state_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.connections import Connections
    from harbor_satellite.satellite.outcome import ImageOutcome, RunOutcome
    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.state.config import SatelliteConfig

OPTIONS = ReplicationOptions(disk_reserve_bytes=0, is_asked_for=True)
SCHEDULED = replace(OPTIONS, is_asked_for=False)
"""A run that nobody asked for: what is in quarantine waits."""
SHOP = SatelliteName("shop")
HOST = "centre.test"
STATE_URL = f"https://{HOST}/{satellite_state_repository(SHOP)}:latest"


class Counting(LayoutRegistry):
    """The centre's registry; counts what is asked of it."""

    requests = 0
    is_cut_for: str = ""
    """The repository for which the link is down."""
    refusals: Mapping[str, HarborSatelliteError] = {}
    """What is answered instead of a repository's manifests."""

    def manifest_head(self, repository: str, reference: str) -> Descriptor | None:
        self.requests += 1
        self._refuse(repository)
        return super().manifest_head(repository, reference)

    def manifest_get(self, repository: str, reference: str) -> ManifestContent:
        self.requests += 1
        if repository == self.is_cut_for:
            raise RemoteError("the link is cut", retryable=True)
        self._refuse(repository)
        return super().manifest_get(repository, reference)

    def _refuse(self, repository: str) -> None:
        if refusal := self.refusals.get(repository):
            raise refusal


class Killed(BaseException):
    """Stands for a process that ends at this very place."""


class Local(LayoutRegistry):
    """The site's registry; fails or "dies" where a test wants it."""

    killed_at: str = ""
    """The tag at whose move the process ends; prefixed with ``after:`` it ends once the tag has moved."""
    refuses: str = ""
    """The tag that cannot be moved."""
    refuses_once: str = ""
    """The tag that cannot be moved now, and can be the next time."""

    def manifest_put(self, repository: str, reference: str, content: ManifestContent) -> None:
        if self.killed_at == reference:
            raise Killed
        if self.refuses_once == reference:
            self.refuses_once = ""
            raise StorageError(f"no space left for {reference}")
        if self.refuses == reference:
            raise StorageError(f"no space left for {reference}")
        super().manifest_put(repository, reference, content)
        if self.killed_at == f"after:{reference}":
            raise Killed


class WithoutTagDeletion(Local):
    """A site's registry that deletes manifests only, by their digest (distribution-spec, "Deleting tags")."""

    def __init__(self, root: Path, name: str) -> None:
        super().__init__(root, name)
        self.deleted: list[str] = []
        """What was to be deleted by digest."""

    def manifest_delete(self, repository: str, reference: str) -> bool:
        if ":" not in reference:
            raise RemoteError("tags cannot be deleted", status=405)
        self.deleted.append(reference)
        return super().manifest_delete(repository, reference)


@dataclass
class FakeConnections:
    """What a run needs of ``Connections``, on layouts."""

    home: Counting
    target: Registry
    bytes_read: int = 0
    local_access: None = None

    def source(self, _url: str) -> Counting:
        return self.home

    @property
    def requests(self) -> int:
        return self.home.requests


@dataclass
class Site:
    """One satellite with its centre."""

    folder: Path
    home: Counting
    local: Local
    store: SatelliteStore
    images: dict[str, Descriptor] = field(default_factory=dict)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def connections(self) -> Connections:
        return cast("Connections", FakeConnections(self.home, self.local))

    def engine(self, options: ReplicationOptions | None = None) -> Engine:
        return Engine(self.connections, self.store, options or OPTIONS, now=lambda: self.now)

    def sync(self, options: ReplicationOptions | None = None) -> RunOutcome:
        self.home.requests = 0
        return sync_satellite(self.engine(options), STATE_URL, Watcher(sleep=lambda _: None))

    def sync_states(
        self,
        states: Sequence[StateArtifact],
        options: ReplicationOptions | None = None,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> tuple[ImageOutcome, ...]:
        fetched = FetchedState(states_digest(tuple(states)), tuple(states))
        return sync_fetched(self.engine(options), fetched, Watcher(on_bytes, sleep=lambda _: None)).images

    def pass_time(self, wait: timedelta) -> None:
        self.now += wait

    def image(self, repository: str, content: str, *tags: str) -> Digest:
        """Push an image to the centre; the same content, the same digest."""
        found = push_image(self.home, repository, AMD64, [layer(content, 2000)])
        for tag in tags:
            tag_image(self.home, repository, tag, found)
        return found.digest

    def publish(
        self,
        groups: Mapping[str, list[StateEntry]],
        *,
        generation: int = 1,
        is_rollback: bool = False,
        expires_at: datetime | None = None,
        serial: int = 0,
        settings: SatelliteConfig | None = None,
    ) -> Digest:
        """Publish groups and the satellite state that follows them; gives the satellite state's digest."""
        pins = []
        for name, entries in groups.items():
            group = GroupName(name)
            artifacts = tuple(sorted(entries, key=lambda item: (item.repository, item.tags)))
            state = StateArtifact(group, f"https://{HOST}", artifacts, generation, expires_at=expires_at)
            digest = put_state(self.home, group_state_repository(group), state_artifact_json(state))
            reference = Reference(HOST, group_state_repository(group), "latest", digest)
            pins.append(StatePin(group, reference, generation, is_rollback))
        whole = SatelliteState(SHOP, tuple(pins), serial=serial, settings=settings)
        return put_state(self.home, satellite_state_repository(SHOP), satellite_state_json(whole))

    def replay(self, state: Digest) -> None:
        """Make an earlier satellite state the current one again, as whoever can write at the centre could."""
        content = self.home.manifest_get(satellite_state_repository(SHOP), str(state))
        self.home.manifest_put(satellite_state_repository(SHOP), "latest", content)

    def follow(
        self, groups: Mapping[str, list[StateEntry]], options: ReplicationOptions | None = None, *, generation: int = 1
    ) -> RunOutcome:
        """Publish groups, and let the site follow."""
        self.publish(groups, generation=generation)
        return self.sync(options)

    def local_tags(self, repository: str) -> dict[str, Digest]:
        """Return what each tag names that is no pin."""
        tags = (tag for tag in self.local.tag_list(repository) if not tag.startswith("satellite-pin-"))
        return {tag: self.local.manifest_get(repository, tag).digest for tag in tags}

    def pinned(self, repository: str) -> set[Digest]:
        tags = (tag for tag in self.local.tag_list(repository) if tag.startswith("satellite-pin-"))
        return {self.local.manifest_get(repository, tag).digest for tag in tags}


def put_state(registry: LayoutRegistry, repository: str, raw: bytes) -> Digest:
    """Push a state as ``StatePusher`` does."""
    manifest, blobs = state_manifest(raw)
    for part, packed in zip([manifest["config"], manifest["layers"][0]], blobs, strict=True):
        registry.blob_put(repository, Descriptor("", Digest.parse(part["digest"]), part["size"]), [packed])
    content = ManifestContent(media_types.OCI_MANIFEST, json.dumps(manifest).encode())
    registry.manifest_put(repository, "latest", content)
    return content.digest


def wanted(repository: str, digest: Digest, *tags: str, deleted: bool = False) -> StateEntry:
    """Write one entry of a group."""
    return StateEntry(repository, tags, digest, deleted=deleted, referrers=())
