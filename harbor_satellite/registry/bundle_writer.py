"""Writing a bundle: content in the order it comes, verified on its way in, under its final name only when whole."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from harbor_satellite.errors import DigestMismatchError, InvalidInputError, StorageError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor, descriptor_json
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.bundle_format import (
    CONTENTS_PATH,
    INDEX_PATH,
    LAYOUT,
    LAYOUT_PATH,
    REF_NAME,
    REFERRER_REPOSITORY,
    REFERRER_SUBJECT,
    BundleContents,
    BundleEnd,
    blob_path,
    contents_json,
    end_block,
    member_header,
    padding,
    part_name,
)
from harbor_satellite.registry.bundle_parts import PartWriter
from harbor_satellite.registry.layout_files import fsync_directory, make_directory, storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from harbor_satellite.registry.api import ManifestContent

_PARTIAL: Final = ".{}.unfinished"
"""The folder beside a bundle in which it is written; one that a killed export left is cleared by the next."""


class BundleWriter:
    """A bundle while it is written; a context manager that leaves nothing behind unless it was finished.

    Args:
        output: the bundle's name; of a split one, what stands before ``.000``.
        part_bytes: the size of a part at most; None: one file.

    Raises:
        InvalidInputError: there is such a file already, or parts would be too small.
        StorageError: the disk refuses, or another export writes the same bundle.
    """

    def __init__(self, output: Path, part_bytes: int | None = None) -> None:
        self._output = output
        self._is_split = part_bytes is not None
        with storage_errors(output.parent, "looking for a bundle of that name"):
            found = [final for final in (output, self._final(0)) if final.exists()]
        if found:
            raise InvalidInputError(f"{found[0]} exists already: give another name, or take it away")
        self._folder = output.parent / _PARTIAL.format(output.name)
        self._lock = self._own_folder()
        try:
            self._parts = PartWriter(self._folder, part_bytes)
            self._member(LAYOUT_PATH, LAYOUT)
        except BaseException:
            self._clear()
            raise
        self._held: dict[Digest, int] = {}
        self._entries: list[dict[str, object]] = []
        self._referrers: set[tuple[str, Digest, Digest]] = set()
        self._media_types: dict[Digest, str] = {}

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._parts.position

    def holds(self, digest: Digest) -> bool:
        """Tell whether content is in the bundle already."""
        return digest in self._held

    def add_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Write a blob; nothing of it stays unless all its bytes are what the descriptor promises.

        Raises:
            DigestMismatchError: they are not.
            StorageError: the disk is full or refuses.
        """
        mark = self._parts.mark()
        try:
            self._write_blob(descriptor, chunks)
        except StorageError:
            raise
        except BaseException:
            self._parts.go_back(mark)
            raise
        self._held[descriptor.digest] = descriptor.size

    def add_manifest(self, digest: Digest, content: ManifestContent) -> None:
        """Write a manifest, after its blobs.

        Raises:
            DigestMismatchError: it has another digest.
        """
        if self.holds(digest):
            return
        self.add_blob(Descriptor(content.media_type, digest, len(content.raw)), [content.raw])
        if not json.loads(content.raw).get("mediaType"):
            self._media_types[digest] = content.media_type

    def add_name(self, repository: str, reference: str, descriptor: Descriptor) -> None:
        """List a manifest of the bundle under a tag, or under its own digest."""
        name = f"{repository}{'@' if ':' in reference else ':'}{reference}"
        self._entries.append(_entry(descriptor, {REF_NAME: name}))

    def add_referrer(self, repository: str, subject: Digest, descriptor: Descriptor) -> None:
        """List a manifest of the bundle as a referrer."""
        key = (repository, subject, descriptor.digest)
        if key not in self._referrers:
            self._referrers.add(key)
            place = {REFERRER_REPOSITORY: repository, REFERRER_SUBJECT: str(subject)}
            self._entries.append(_entry(descriptor, place))

    def finish(self, annotations: Mapping[str, str]) -> tuple[Path, ...]:
        """Write what stands at the end, and give the bundle its name.

        Args:
            annotations: what index.json says about the whole.

        Returns:
            The file, or all parts in order.
        """
        index = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": self._entries,
            "annotations": dict(annotations),
        }
        self._member(INDEX_PATH, json.dumps(index, separators=(",", ":")).encode())
        offset = self._parts.position
        contents = contents_json(BundleContents(self._parts.segments(), self._media_types))
        self._member(CONTENTS_PATH, contents)
        self._parts.write(end_block(BundleEnd(offset, len(contents), Digest.of(contents))))
        return self._publish(self._parts.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.abandon()
        self._clear()

    def _write_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        self._parts.write(member_header(blob_path(descriptor.digest), descriptor.size))
        hasher, size = descriptor.digest.hasher(), 0
        for chunk in chunks:
            size += len(chunk)
            if size > descriptor.size:
                raise DigestMismatchError(f"blob {descriptor.digest} has more than its {descriptor.size} bytes")
            hasher.update(chunk)
            self._parts.write(chunk)
        if size != descriptor.size or hasher.hexdigest() != descriptor.digest.hex:
            found = f"{size} bytes with {hasher.name}:{hasher.hexdigest()}"
            raise DigestMismatchError(f"digest mismatch for blob {descriptor.digest}: got {found}")
        self._parts.write(padding(size))

    def _publish(self, parts: tuple[Path, ...]) -> tuple[Path, ...]:
        finals = tuple(self._final(number) for number in range(len(parts))) if self._is_split else (self._output,)
        with storage_errors(self._output.parent, "giving the bundle its name"):
            if self._is_split:
                self._remove_leftovers()
            # The first part comes last: whoever sees it has all of them.
            for part, final in reversed(list(zip(parts, finals, strict=True))):
                part.rename(final)
                fsync_directory(final.parent)
        return finals

    def _remove_leftovers(self) -> None:
        """Take away parts without a first one: an export was killed while it named its parts."""
        pattern = re.compile(rf"{re.escape(self._output.name)}\.\d{{3}}")
        for path in self._output.parent.iterdir():
            if pattern.fullmatch(path.name):
                path.unlink()

    def _member(self, path: str, content: bytes) -> None:
        self._parts.write(member_header(path, len(content)) + content + padding(len(content)))

    def _final(self, number: int) -> Path:
        return self._output.with_name(part_name(self._output.name, number))

    def _own_folder(self) -> int:
        with storage_errors(self._folder, "making room for the bundle"):
            make_directory(self._folder)
            lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(lock)
                raise StorageError(f"another export is writing {self._output}") from error
            for leftover in self._folder.iterdir():
                leftover.unlink()
        return lock

    def _clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):
            os.close(self._lock)


def _entry(descriptor: Descriptor, annotations: Mapping[str, str]) -> dict[str, object]:
    document = descriptor_json(descriptor)
    return document | {"annotations": {**descriptor.annotations, **annotations}}
