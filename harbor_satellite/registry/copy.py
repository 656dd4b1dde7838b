"""Copying one artifact between any two registries: walk → plan blobs → transfer → commit.

Content is staged by digest, blobs before manifests and children before indexes; a tag moves only
afterwards, in a step of its own, so that no tag ever points at a hole. Bytes are never changed.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import DigestMismatchError, RemoteError
from harbor_satellite.oci.descriptor import Descriptor, parse_manifest
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.media_types import is_nondistributable
from harbor_satellite.registry.closure import Closure, FoundManifest, Walker, is_wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.registry.api import ManifestContent, Registry

BLOB_WORKERS: Final = 4
"""Blobs of one artifact on their way at once."""
_HTTP_NOT_FOUND: Final = 404
_INCOMPLETE_INDEX_REFUSED: Final = frozenset({400, 404})
"""How registries refuse an index whose children are missing (MANIFEST_BLOB_UNKNOWN, MANIFEST_INVALID)."""


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What copying one artifact came to."""

    digest: Digest
    bytes_copied: int = 0
    """Bytes of blobs and manifests read from the source."""
    blobs_copied: int = 0
    blobs_mounted: int = 0
    """Blobs taken from another repository of the target."""
    manifests_copied: int = 0


@dataclass
class KnownBlobs:
    """Which repositories of a target hold a blob, and a lock per blob; shared by all copies of a run."""

    lookup: Callable[[], dict[Digest, str]] = field(default=dict)
    """Builds the map of what was there before; called once, when the first blob is missing."""
    _repositories: dict[Digest, str] | None = None
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _locks: defaultdict[Digest, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    def repository_of(self, digest: Digest) -> str | None:
        """Return a repository of the target that holds the blob, if one is known."""
        with self._guard:
            if self._repositories is None:
                self._repositories = self.lookup()
            return self._repositories.get(digest)

    def add(self, digest: Digest, repository: str) -> None:
        """Remember that the repository holds the blob now."""
        with self._guard:
            if self._repositories is not None:
                self._repositories[digest] = repository

    def lock(self, digest: Digest) -> threading.Lock:
        """Return the lock under which this blob is brought, so that it crosses the WAN once."""
        with self._guard:
            return self._locks[digest]


@dataclass(frozen=True, slots=True)
class Copier:
    """Copies artifacts from one registry to another under one policy."""

    source: Registry
    target: Registry
    known: KnownBlobs = field(default_factory=KnownBlobs)
    platforms: tuple[Platform, ...] = ()
    """Children of an index to bring; empty: all of them."""
    on_bytes: Callable[[int], None] = lambda _: None
    """Told of every chunk that came from the source (bytes)."""

    def stage(self, repository: str, digest: Digest, referrers: tuple[Digest, ...] | None) -> CopyResult:
        """Bring an artifact with its referrers to the target by digest, moving no tag.

        Args:
            repository: its name at both registries.
            digest: its manifest or index.
            referrers: what belongs to it besides; None: ask the source, recursively.

        Raises:
            RemoteError: either registry refused or could not be reached.
            UntrustedDataError: the source sent something else than the digests promise.
        """
        closure = self.walk(repository, digest, referrers)
        transferred, mounted = self._transfer(repository, self._plan_blobs(repository, closure))
        for child in closure.absent:
            self._put_absent_child(repository, child)
        try:
            manifests = self._commit(repository, closure)
        except RemoteError as error:
            if not closure.absent or error.status not in _INCOMPLETE_INDEX_REFUSED:
                raise
            # This registry takes no index with children missing: then every platform comes.
            return replace(self, platforms=()).stage(repository, digest, referrers)
        return CopyResult(
            digest=digest,
            bytes_copied=sum(blob.size for blob in transferred) + sum(len(item.content.raw) for item in manifests),
            blobs_copied=len(transferred),
            blobs_mounted=mounted,
            manifests_copied=len(manifests),
        )

    def walk(self, repository: str, digest: Digest, referrers: tuple[Digest, ...] | None) -> Closure:
        """Read every manifest that the artifact consists of; those that the target has are read there."""
        walker = Walker(
            read=lambda each: self._manifest(repository, each),
            referrers_of=lambda each: self.source.referrer_list(repository, each),
            platforms=self.platforms,
        )
        return walker.walk(digest, referrers)

    def _manifest(self, repository: str, digest: Digest) -> FoundManifest:
        what = f"{self.source.name}/{repository}@{digest}"
        content = self._local_manifest(repository, digest)
        is_local = content is not None
        if content is None:
            content = self.source.manifest_get(repository, str(digest))
            self.on_bytes(len(content.raw))
        return FoundManifest(digest, content, parse_manifest(content.raw, content.media_type, what), is_local)

    def _local_manifest(self, repository: str, digest: Digest) -> ManifestContent | None:
        if self.target.manifest_head(repository, str(digest)) is None:
            return None
        try:
            return self.target.manifest_get(repository, str(digest))
        except DigestMismatchError:
            return None  # damaged at the site: take it from the source again

    def _plan_blobs(self, repository: str, closure: Closure) -> tuple[Descriptor, ...]:
        # A registry's word for a manifest is no proof of its blobs (Zot takes some without), so each is asked for.
        return tuple(blob for blob in closure.blobs if self.target.blob_head(repository, blob.digest) != blob.size)

    def _transfer(self, repository: str, blobs: tuple[Descriptor, ...]) -> tuple[list[Descriptor], int]:
        if len(blobs) <= 1:
            outcomes = [self._bring_blob(repository, blob) for blob in blobs]
        else:
            with ThreadPoolExecutor(BLOB_WORKERS, "blob") as pool:
                outcomes = list(pool.map(lambda blob: self._bring_blob(repository, blob), blobs))
        copied = [blob for blob, outcome in zip(blobs, outcomes, strict=True) if outcome == "copied"]
        return copied, outcomes.count("mounted")

    def _bring_blob(self, repository: str, blob: Descriptor) -> str:
        with self.known.lock(blob.digest):
            other = self.known.repository_of(blob.digest)
            if other and other != repository and self.target.blob_mount(repository, blob.digest, other):
                return "mounted"
            try:
                self._copy_blob(repository, blob)
            except RemoteError as error:
                # image-spec: such layers may stay where their licence keeps them.
                if error.status == _HTTP_NOT_FOUND and is_nondistributable(blob.media_type):
                    return "absent"
                raise
            self.known.add(blob.digest, repository)
            return "copied"

    def _copy_blob(self, repository: str, blob: Descriptor) -> None:
        with self.source.blob_get(repository, blob.digest) as stream:
            self.target.blob_put(repository, blob, self._counted(stream))

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.on_bytes(len(chunk))
            yield chunk

    def _commit(self, repository: str, closure: Closure) -> list[FoundManifest]:
        missing = [item for item in closure.manifests if not item.is_local]
        for item in missing:
            self.target.manifest_put(repository, str(item.digest), item.content)
        return missing

    def _put_absent_child(self, repository: str, child: Descriptor) -> None:
        """Store the manifest of a platform that stays away as a plain blob, about 1 kB.

        Zot and the embedded registry look for an index's children among the blobs: so the index keeps its
        digest while its other platforms' layers never cross the WAN.
        """
        if self.target.blob_head(repository, child.digest) == child.size:
            return
        content = self.source.manifest_get(repository, str(child.digest))
        self.on_bytes(len(content.raw))
        self.target.blob_put(repository, child, [content.raw])


def publish_tags(target: Registry, repository: str, digest: Digest, tags: tuple[str, ...]) -> None:
    """Point tags at content that is already staged at the target."""
    content = target.manifest_get(repository, str(digest))
    for tag in tags:
        target.manifest_put(repository, tag, content)


def is_complete(target: Registry, repository: str, digest: Digest, platforms: tuple[Platform, ...] = ()) -> bool:
    """Tell whether a manifest, its wanted children and its blobs are all at the registry, with the right sizes."""
    pending, seen = [digest], set[Digest]()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        try:
            content = target.manifest_get(repository, str(current))
        except RemoteError as error:
            if error.status == _HTTP_NOT_FOUND:
                return False
            raise
        except DigestMismatchError:
            return False
        manifest = parse_manifest(content.raw, content.media_type, f"{repository}@{current}")
        pending.extend(child.digest for child in manifest.manifests if is_wanted(child, platforms))
        for blob in manifest.blobs:
            size = target.blob_head(repository, blob.digest)
            if size != blob.size and not (size is None and is_nondistributable(blob.media_type)):
                return False
    return True
