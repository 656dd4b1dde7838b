"""One repository of a layout: an OCI image layout directory, and what may be done to it.

On the disk it is image-spec's layout, one per repository, as Zot keeps it: ``oci-layout``, ``index.json`` and
``blobs/ALGORITHM/HEX``. Manifests are blobs too; being listed in ``index.json`` is what makes them manifests.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from harbor_satellite.errors import MalformedStateError, UntrustedDataError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor, Manifest, parse_manifest
from harbor_satellite.oci.digest import is_digest
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.layout_files import (
    TEMPORARY_PREFIX,
    file_size,
    make_directory,
    publish,
    remove_durably,
    storage_errors,
    write_durably,
)
from harbor_satellite.registry.layout_index import RepositoryIndex, parse_index
from harbor_satellite.registry.layout_refusals import ErrorCode, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from harbor_satellite.oci.digest import Digest

_log: Final = logging.getLogger(__name__)
_LAYOUT_FILE: Final = b'{"imageLayoutVersion":"1.0.0"}'
_CANNOT_LINK: Final = frozenset({errno.ENOENT, errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})
INDEX_NAME: Final = "index.json"
DAMAGED_NAME: Final = "index.json.damaged"
"""Where an unreadable index is moved; while it is there nothing in the repository is collected as garbage."""


class RepositoryLayout:
    """One repository on the disk; safe to use from several threads of the one process that owns it.

    Args:
        directory: the repository's own directory; need not exist yet.
        repository: its name, for messages.
        staging: where files may be half-written; same file system.
        requires_content: refuse manifests whose blobs or children are not there.
    """

    def __init__(self, directory: Path, repository: str, staging: Path, *, requires_content: bool = True) -> None:
        self.directory: Final = directory
        self.repository: Final = repository
        self.lock: Final = threading.RLock()
        self._staging: Final = staging
        self._requires_content: Final = requires_content
        self._cached: tuple[tuple[int, int, int], RepositoryIndex] | None = None
        self._parsed: Final[dict[Digest, Manifest]] = {}

    def index(self) -> RepositoryIndex:
        """Return what ``index.json`` says; empty if there is none."""
        path = self.directory / INDEX_NAME
        with storage_errors(path, "reading an index"):
            try:
                status = path.stat()
            except FileNotFoundError:
                return RepositoryIndex()
        cached = self._cached
        if cached is not None and cached[0] == _signature(status):
            return cached[1]
        with self.lock:  # so that no write comes between the signature and the bytes
            return self._load(path)

    def blob_path(self, digest: Digest) -> Path:
        """Return where content of this digest lies, if it is there."""
        return self.directory / "blobs" / digest.algorithm / digest.hex

    def blob_size(self, digest: Digest) -> int | None:
        """Return the size of content in bytes, or None if it is not there."""
        with storage_errors(self.directory, f"looking for {digest}"):
            return file_size(self.blob_path(digest))

    def blob_link(self, digest: Digest, source: Path) -> bool:
        """Make another repository's blob this one's too, by hard link; False if the file system cannot."""
        target = self.blob_path(digest)
        link = self._staging / f"{TEMPORARY_PREFIX}{uuid4().hex}"
        with storage_errors(target, f"mounting {digest}"):
            make_directory(self._staging)
            try:
                os.link(source, link)
            except OSError as error:
                if error.errno in _CANNOT_LINK:
                    return False
                raise
            try:
                os.utime(link)  # young again: garbage collection waits for the manifest
                publish(link, target)
            finally:
                # rename(2) leaves the old name behind if both are the same file already.
                link.unlink(missing_ok=True)
        return True

    def blob_delete(self, digest: Digest) -> bool:
        """Delete a blob; False if it was not there.

        Raises:
            RefusedError: 405, a manifest of this repository still needs it.
        """
        with self.lock:
            if self.blob_size(digest) is None:
                return False
            user = self._user_of(digest)
            if user is not None:
                message = f"blob {digest} of {self.repository} is needed by manifest {user}"
                raise RefusedError(ErrorCode.UNSUPPORTED, 405, message)
            with storage_errors(self.directory, f"deleting {digest}"):
                return remove_durably(self.blob_path(digest))

    def manifest_find(self, reference: str) -> Descriptor | None:
        """Return what a tag or digest names, if its bytes are there in full length."""
        descriptor = self.index().find(reference)
        if descriptor is None or self.blob_size(descriptor.digest) != descriptor.size:
            return None
        return descriptor

    def manifest_read(self, descriptor: Descriptor) -> ManifestContent:
        """Return a manifest's exact bytes.

        Raises:
            DigestMismatchError: the disk changed them.
        """
        path = self.blob_path(descriptor.digest)
        with storage_errors(path, "reading a manifest"):
            try:
                raw = path.read_bytes()
            except FileNotFoundError:
                message = f"no manifest {descriptor.digest} in {self.repository}"
                raise RefusedError(ErrorCode.MANIFEST_UNKNOWN, 404, message) from None
        descriptor.digest.verify(raw, f"{self.repository} on {path}")
        return ManifestContent(descriptor.media_type, raw)

    def manifest_store(self, content: ManifestContent, digest: Digest, tags: tuple[str, ...]) -> Manifest:
        """Verify a manifest, write it and list it under its tags.

        Raises:
            DigestMismatchError: the bytes are not what the digest promises.
            MalformedStateError: not a manifest of a kind that is kept, or not of the kind it was sent as.
            RefusedError: 400, it names content that is not in this repository.
        """
        what = f"{self.repository}@{digest}"
        digest.verify(content.raw, what)
        sent_as = content.media_type.partition(";")[0].strip()
        manifest = parse_manifest(content.raw, sent_as, what)
        # distribution-spec, "Pushing Manifests": Content-Type must match mediaType.
        if sent_as not in ("", manifest.media_type):
            raise MalformedStateError(f"manifest {what} is {manifest.media_type!r} but was sent as {sent_as!r}")
        with self.lock:
            if self._requires_content:
                self._check_content(manifest, what)
            descriptor = Descriptor(manifest.media_type, digest, len(content.raw))
            with storage_errors(self.directory, f"storing manifest {what}"):
                self._prepare()
                write_durably(self.blob_path(digest), content.raw, staging=self._staging)
                self._save(self.index().with_manifest(descriptor, tags))
        return manifest

    def manifest_delete(self, reference: str) -> bool:
        """Delete a tag, or a manifest with every tag on it; False if it was not there.

        Raises:
            RefusedError: 405, an image index of this repository still needs the manifest.
        """
        with self.lock:
            index = self.index()
            descriptor = index.find(reference)
            if descriptor is None:
                return False
            with storage_errors(self.directory, f"deleting {reference}"):
                if not is_digest(reference):
                    self._save(index.without_tag(reference))
                    return True
                user = self._user_of(descriptor.digest)
                if user is not None:
                    message = f"manifest {reference} of {self.repository} is needed by index {user}"
                    raise RefusedError(ErrorCode.UNSUPPORTED, 405, message)
                self._save(index.without_manifest(descriptor.digest))
                remove_durably(self.blob_path(descriptor.digest))
        self._parsed.pop(descriptor.digest, None)
        return True

    def manifests_forget(self, digests: Iterable[Digest]) -> None:
        """Take manifests off the list, with their tags; their bytes stay until garbage is collected."""
        with self.lock:
            index = self.index()
            for digest in digests:
                index = index.without_manifest(digest)
                self._parsed.pop(digest, None)
            self._save(index)

    def manifests(self) -> Iterator[tuple[Descriptor, Manifest | None]]:
        """Give every listed manifest, parsed; None stands for one whose bytes are missing or damaged."""
        for digest, descriptor in self.index().manifests.items():
            manifest = self._parsed.get(digest)
            if manifest is None:
                manifest = self.parse(descriptor)
                if manifest is not None:
                    self._parsed[digest] = manifest
            yield descriptor, manifest

    def parse(self, descriptor: Descriptor) -> Manifest | None:
        """Read and parse content as a manifest; None if it is missing, damaged or something else."""
        try:
            content = self.manifest_read(descriptor)
            return parse_manifest(content.raw, descriptor.media_type, f"{self.repository}@{descriptor.digest}")
        except RefusedError:
            return None
        except UntrustedDataError as error:
            _log.warning("unreadable manifest repository=%s reason=%s", self.repository, error)
            return None

    def _user_of(self, digest: Digest) -> Digest | None:
        # A content is "needed" by what names it as config, layer or child; a subject may be absent by the spec.
        for descriptor, manifest in self.manifests():
            if manifest is not None and any(digest == part.digest for part in (*manifest.blobs, *manifest.manifests)):
                return descriptor.digest
        return None

    def _check_content(self, manifest: Manifest, what: str) -> None:
        for part in (*manifest.blobs, *manifest.manifests):
            if media_types.is_nondistributable(part.media_type):
                continue
            size = self.blob_size(part.digest)
            if size != part.size:
                found = "is not there" if size is None else f"has {size} bytes, not {part.size}"
                message = f"manifest {what} needs {part.digest}, which {found}"
                raise RefusedError(ErrorCode.MANIFEST_BLOB_UNKNOWN, 400, message)

    def _prepare(self) -> None:
        make_directory(self.directory / "blobs")
        for name, content in (("oci-layout", _LAYOUT_FILE), (INDEX_NAME, RepositoryIndex().to_bytes())):
            if not (self.directory / name).exists():
                write_durably(self.directory / name, content, staging=self._staging)

    def _save(self, index: RepositoryIndex) -> None:
        write_durably(self.directory / INDEX_NAME, index.to_bytes(), staging=self._staging)
        self._cached = None

    def _load(self, path: Path) -> RepositoryIndex:
        with storage_errors(path, "reading an index"):
            try:
                signature, raw = _signature(path.stat()), path.read_bytes()
            except FileNotFoundError:
                return RepositoryIndex()
        try:
            index = parse_index(raw, str(path))
        except MalformedStateError as error:
            return self._set_aside(path, error)
        self._cached = (signature, index)
        return index

    def _set_aside(self, path: Path, error: MalformedStateError) -> RepositoryIndex:
        # An empty repository can be filled again, and its blobs are still there; an unreadable one could
        # neither be read nor written. Only other programs or a broken disk bring it to this.
        with storage_errors(path, "setting a damaged index aside"):
            _log.error("damaged index set aside repository=%s reason=%s", self.repository, error)
            path.rename(path.with_name(DAMAGED_NAME))
            self._cached = None
        return RepositoryIndex()


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_ino, status.st_size
