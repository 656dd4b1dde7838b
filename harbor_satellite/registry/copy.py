"""Copying one artifact between any two registries: walk → plan blobs → transfer → commit.

Content is staged by digest, blobs before manifests and children before indexes; a tag moves only
afterwards, in a step of its own, so that no tag ever points at a hole. Bytes are never changed.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import DigestMismatchError, RemoteError, UntrustedDataError
from harbor_satellite.oci.descriptor import Descriptor, parse_manifest
from harbor_satellite.oci.media_types import is_nondistributable
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.closure import Closure, FoundManifest, Walker
from harbor_satellite.registry.known_blobs import KnownBlobs
from harbor_satellite.registry.transfer import Transfer

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.registry.api import ManifestContent, Registry
    from harbor_satellite.registry.client_blobs import Upload
    from harbor_satellite.registry.partials import PartialFolder

__all__ = ["BLOB_WORKERS", "Copier", "CopyResult", "KnownBlobs", "is_complete", "publish_tags"]

_log = logging.getLogger(__name__)

BLOB_WORKERS: Final = 4
"""Blobs of one artifact on their way at once."""
_HEAD_WORKERS: Final = 4
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


@dataclass(frozen=True, slots=True)
class _Brought:
    """What bringing one blob came to."""

    is_copied: bool = False
    is_mounted: bool = False
    bytes_read: int = 0


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
    partials: PartialFolder | None = None
    """Keeps blobs that arrived in part, and what arrived in runs that did not finish; None: nothing is kept."""
    slots: threading.Semaphore | None = None
    """Limits the blobs of all artifacts that are on their way at once; None: ``BLOB_WORKERS`` for each artifact."""
    reserve: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext()
    """Entered with the bytes of each blob while it moves; raises ``StorageError`` where the disk has no room."""
    sleep: Callable[[float], None] = time.sleep
    """Waits before a body that was cut goes on (seconds)."""

    def stage(self, repository: str, digest: Digest, referrers: tuple[Digest, ...] | None) -> CopyResult:
        """Bring an artifact with its referrers to the target by digest, moving no tag.

        Args:
            repository: its name at both registries.
            digest: its manifest or index.
            referrers: what belongs to it besides; None: ask the source, recursively.

        Raises:
            RemoteError: either registry refused or could not be reached.
            UntrustedDataError: the source sent something else than the digests promise.
            PausedError: bytes may not move now; with ``partials`` nothing that has arrived is lost.
            StorageError: the disk has no room.
        """
        closure = self.walk(repository, digest, referrers)
        brought = self._bring(repository, closure)
        try:
            manifests = self._commit(repository, closure)
        except RemoteError as error:
            if not closure.absent or error.status not in _INCOMPLETE_INDEX_REFUSED:
                raise
            return self._stage_every_platform(repository, digest, referrers)
        return CopyResult(
            digest=digest,
            bytes_copied=sum(item.bytes_read for item in brought) + sum(len(item.content.raw) for item in manifests),
            blobs_copied=sum(item.is_copied for item in brought),
            blobs_mounted=sum(item.is_mounted for item in brought),
            manifests_copied=len(manifests),
        )

    def _stage_every_platform(
        self, repository: str, digest: Digest, referrers: tuple[Digest, ...] | None
    ) -> CopyResult:
        what = f"{self.target.name} takes no index without all its children, so {repository}@{digest} needs every one"
        try:
            return replace(self, platforms=()).stage(repository, digest, referrers)
        except RemoteError as error:
            raise RemoteError(
                f"{what}: {error}",
                status=error.status,
                retryable=error.retryable,
                retry_after_seconds=error.retry_after_seconds,
            ) from error
        except UntrustedDataError as error:
            raise type(error)(f"{what}: {error}") from error

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
        try:
            return self.target.manifest_get(repository, str(digest))
        except DigestMismatchError:
            return None  # damaged at the site: take it from the source again
        except RemoteError as error:
            if error.status != _HTTP_NOT_FOUND:
                raise
            return None

    def _bring(self, repository: str, closure: Closure) -> list[_Brought]:
        # A registry's word for a manifest is no proof of its blobs (Zot takes some without), so each is asked for.
        doubted = {blob.digest for item in closure.manifests if item.is_local for blob in item.manifest.blobs}

        def bring(blob: Descriptor) -> _Brought:
            if blob in absent:
                return self._put_absent_child(repository, blob)
            return self._bring_blob(repository, blob, is_doubted=blob.digest in doubted)

        absent = frozenset(closure.absent)
        wanted = (*closure.blobs, *closure.absent)
        if len(wanted) <= 1:
            return [bring(blob) for blob in wanted]
        with ThreadPoolExecutor(BLOB_WORKERS, "blob") as pool:
            return list(pool.map(bring, wanted))

    def _bring_blob(self, repository: str, blob: Descriptor, *, is_doubted: bool) -> _Brought:
        """Bring a blob the cheapest way; ``is_doubted`` tells that the target should have it already."""
        with self.known.lock(blob.digest):
            if repository in self.known.seen_at(blob.digest) or (is_doubted and self._is_here(repository, blob)):
                return _Brought()
            # Where another repository surely has it, a mount answers sooner than a look at this one.
            if any(self._take_from(repository, blob, other) for other in self._near(repository, blob.digest)):
                return _Brought(is_mounted=True)
            upload = None
            if not is_doubted and isinstance(self.target, HttpRegistry):
                upload = self.target.blob_upload(repository, blob.digest)
            with upload or nullcontext():
                if not is_doubted and upload is None and self._is_here(repository, blob):
                    return _Brought()
                before = self.known.repository_of(blob.digest)
                if before and before != repository and self._take_from(repository, blob, before):
                    return _Brought(is_mounted=True)
                return self._copy_blob(repository, blob, upload)

    def _near(self, repository: str, digest: Digest) -> Iterator[str]:
        """Give the other repositories of which this run, or one that did not finish, knows that they have a blob."""
        seen = self.known.seen_at(digest)
        yield from (other for other in seen if other != repository)
        arrived = self.partials.arrival(digest) if self.partials else None
        if arrived and arrived != repository and arrived not in seen:
            yield arrived

    def _is_here(self, repository: str, blob: Descriptor) -> bool:
        is_here = self.target.blob_head(repository, blob.digest) == blob.size
        if is_here:
            self.known.add(blob.digest, repository)
        return is_here

    def _take_from(self, repository: str, blob: Descriptor, other: str) -> bool:
        """Have the target take a blob from another of its repositories, without the WAN."""
        try:
            if not self.target.blob_mount(repository, blob.digest, other):
                if self.target.blob_head(other, blob.digest) != blob.size:
                    return False
                with self.reserve(blob.size), self.target.blob_get(other, blob.digest) as stream:
                    self.target.blob_put(repository, blob, stream)
        except (RemoteError, UntrustedDataError) as error:
            # The source still has it; a target that is down refuses its upload before a byte is read.
            _log.debug("blob not taken from repository=%s: %s", other, error)
            return False
        self.known.add(blob.digest, repository)
        return True

    def _copy_blob(self, repository: str, blob: Descriptor, upload: Upload | None) -> _Brought:
        put = upload.put if upload else partial(self.target.blob_put, repository)
        transfer = Transfer(self.source, self.partials, self.on_bytes, self.sleep)
        try:
            with self.slots or nullcontext(), self.reserve(blob.size):
                count = transfer.bring(repository, blob, partial(put, blob))
        except RemoteError as error:
            # image-spec: such layers may stay where their licence keeps them.
            if error.status == _HTTP_NOT_FOUND and is_nondistributable(blob.media_type):
                return _Brought()
            raise
        self.known.add(blob.digest, repository)
        if self.partials is not None:
            self.partials.note_arrival(blob.digest, repository)
        return _Brought(is_copied=True, bytes_read=count)

    def _commit(self, repository: str, closure: Closure) -> list[FoundManifest]:
        missing = [item for item in closure.manifests if not item.is_local]
        for item in missing:
            self.target.manifest_put(repository, str(item.digest), item.content)
        return missing

    def _put_absent_child(self, repository: str, child: Descriptor) -> _Brought:
        """Store the manifest of a platform that stays away as a plain blob, about 1 kB.

        Zot and the embedded registry look for an index's children among the blobs: so the index keeps its
        digest while its other platforms' layers never cross the WAN.
        """
        if self.target.blob_head(repository, child.digest) == child.size:
            return _Brought()
        content = self.source.manifest_get(repository, str(child.digest))
        self.on_bytes(len(content.raw))
        self.target.blob_put(repository, child, [content.raw])
        return _Brought(bytes_read=len(content.raw))


def publish_tags(
    target: Registry, repository: str, digest: Digest, tags: tuple[str, ...], content: ManifestContent | None = None
) -> None:
    """Point tags at content that is already staged at the target; its manifest is read there unless it is given."""
    content = content or target.manifest_get(repository, str(digest))
    for tag in tags:
        target.manifest_put(repository, tag, content)


def is_complete(target: Registry, repository: str, digest: Digest, platforms: tuple[Platform, ...] = ()) -> bool:
    """Tell whether a manifest, its wanted children and their blobs are all at the registry, with the right sizes."""

    def read(each: Digest) -> FoundManifest:
        content = target.manifest_get(repository, str(each))
        what = f"{target.name}/{repository}@{each}"
        return FoundManifest(each, content, parse_manifest(content.raw, content.media_type, what), is_local=True)

    def is_here(blob: Descriptor) -> bool:
        size = target.blob_head(repository, blob.digest)
        return size == blob.size or (size is None and is_nondistributable(blob.media_type))

    try:
        closure = Walker(read, lambda _: (), platforms).walk(digest, ())
    except RemoteError as error:
        if error.status == _HTTP_NOT_FOUND:
            return False
        raise
    except DigestMismatchError:
        return False
    with ThreadPoolExecutor(_HEAD_WORKERS, "look") as pool:
        return all(pool.map(is_here, closure.blobs))
