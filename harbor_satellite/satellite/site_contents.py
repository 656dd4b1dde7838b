"""What the local registry really holds, read from itself: manifests, whole or not, and blobs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import InvalidInputError, RemoteError, UntrustedDataError
from harbor_satellite.oci.descriptor import parse_manifest
from harbor_satellite.oci.media_types import is_nondistributable
from harbor_satellite.oci.platform import Platform
from harbor_satellite.registry.closure import DEPTH_LIMIT
from harbor_satellite.satellite.receipt import RECEIPT_MAX_DIGESTS, HeldRepository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harbor_satellite.oci.descriptor import Descriptor, Manifest
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import Registry

_WORKERS: Final = 8
"""Repositories read at once; each asks one thing at a time."""
_NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True)
class SiteContents:
    """What a local registry holds."""

    repositories: dict[str, HeldRepository] = field(default_factory=dict)
    blobs: dict[Digest, tuple[str, int]] = field(default_factory=dict)
    """Of each blob a repository that has it, and its size in bytes."""

    def largest_blobs(self) -> frozenset[Digest]:
        """Return as many blobs as a receipt has room for, the largest first."""
        room = RECEIPT_MAX_DIGESTS - sum(len(held.manifests) for held in self.repositories.values())
        if len(self.blobs) <= room:
            return frozenset(self.blobs)
        return frozenset(sorted(self.blobs, key=lambda digest: -self.blobs[digest][1])[: max(room, 0)])


def read_site(
    target: Registry, besides: Iterable[str] = (), on_repository: Callable[[str], None] = lambda _: None
) -> SiteContents:
    """Read a whole local registry: every tag, what it leads to, who refers to that, and which blobs are there.

    Args:
        target: the local registry.
        besides: repositories to read although the registry does not list them: some have no catalog.
        on_repository: told of each repository that was read.

    Raises:
        RemoteError: it refused or could not be reached. What is only missing or damaged is not held, and no error.
    """
    names = sorted({*target.repository_list(), *besides})
    contents = SiteContents()

    def read(name: str) -> _Reading:
        reading = _Reading(target, name)
        reading.read_tags()
        on_repository(name)
        return reading

    with ThreadPoolExecutor(_WORKERS, "receipt") as pool:
        for name, reading in zip(names, pool.map(read, names), strict=True):
            held = reading.held()
            if held.manifests or held.sparse:
                contents.repositories[name] = held
            for digest, size in reading.blobs.items():
                contents.blobs.setdefault(digest, (name, size))
    return contents


class _Reading:
    """One repository while it is read."""

    def __init__(self, target: Registry, repository: str) -> None:
        self._target = target
        self._repository = repository
        self._absent: dict[Digest, tuple[Platform, ...] | None] = {}
        """Of each manifest that is there: platforms that are not; None: something else is missing."""
        self.blobs: dict[Digest, int] = {}
        self._sizes: dict[Digest, int | None] = {}

    def held(self) -> HeldRepository:
        whole = frozenset(digest for digest, absent in self._absent.items() if absent == ())
        return HeldRepository(whole, {digest: absent for digest, absent in self._absent.items() if absent})

    def read_tags(self) -> None:
        pending = []
        for tag in self._target.tag_list(self._repository):
            head = self._target.manifest_head(self._repository, tag)
            if head is not None:
                pending.append(head.digest)
        while pending:
            digest = pending.pop()
            before = set(self._absent)
            self._visit(digest, 0)
            for fresh in self._absent.keys() - before:
                pending.extend(item.digest for item in self._target.referrer_list(self._repository, fresh))

    def _visit(self, digest: Digest, depth: int) -> bool:
        """Read a manifest and what is below it; False if it is not there."""
        if digest in self._absent:
            return True
        manifest = self._manifest(digest) if depth <= DEPTH_LIMIT else None
        if manifest is None:
            return False
        is_whole = True
        for blob in manifest.blobs:  # each of them, as it may be there though another is not
            is_whole &= self._has_blob(blob) or is_nondistributable(blob.media_type)
        absent: list[Platform] = []
        for child in manifest.manifests:
            if self._visit(child.digest, depth + 1):
                below = self._absent[child.digest]
                is_whole &= below is not None
                absent += below or ()
            else:
                # A sparse index: the manifest of a platform that stays away is kept as a blob.
                platform = _sayable(child.platform)
                is_whole &= platform is not None and self._has_blob(child)
                absent += [platform] if platform else []
        self._absent[digest] = tuple(sorted(set(absent))) if is_whole else None
        return True

    def _manifest(self, digest: Digest) -> Manifest | None:
        try:
            content = self._target.manifest_get(self._repository, str(digest))
            return parse_manifest(content.raw, content.media_type, f"{self._repository}@{digest}")
        except UntrustedDataError:
            return None
        except RemoteError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def _has_blob(self, blob: Descriptor) -> bool:
        if blob.digest not in self._sizes:
            self._sizes[blob.digest] = self._target.blob_head(self._repository, blob.digest)
        is_there = self._sizes[blob.digest] == blob.size
        if is_there:
            self.blobs[blob.digest] = blob.size
        return is_there


def _sayable(platform: Platform | None) -> Platform | None:
    """Return a platform that survives being written as text, as an index may name odd ones."""
    try:
        return platform if platform and Platform.parse(str(platform)) == platform else None
    except InvalidInputError:
        return None
