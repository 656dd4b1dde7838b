"""Whether the disk has room for what is to come, found out before a layer moves."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harbor_satellite.errors import HarborSatelliteError, PausedError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harbor_satellite.oci.descriptor import Descriptor
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.registry.copy import Copier
    from harbor_satellite.registry.known_blobs import KnownBlobs
    from harbor_satellite.satellite.disk import DiskGuard
    from harbor_satellite.state.plan import Copy


@dataclass(frozen=True, slots=True)
class Room:
    """The local registry's disk, and what is on it already."""

    disk: DiskGuard
    target: Registry
    known: KnownBlobs
    workers: int
    """Artifacts looked into at once."""

    def check(self, copies: tuple[Copy, ...], copier: Callable[[Copy], Copier]) -> None:
        """Compare with free space: what the states say counts shared layers often, so if that is too much, exactly.

        Raises:
            StorageError: there is no room; nothing was brought.
            PausedError: finding out takes bytes that may not move now.
        """
        try:
            self.disk.check(sum(copy.size or 0 for copy in copies))
        except StorageError:
            with ThreadPoolExecutor(self.workers, "walk") as pool:
                found = pool.map(lambda copy: self._lacking(copy, copier(copy)), copies)
                lacking = {blob.digest: blob.size for blobs in found for blob in blobs}
            self.disk.check(sum(lacking.values()))

    def _lacking(self, copy: Copy, copier: Copier) -> list[Descriptor]:
        """Return the blobs that would have to come, whatever repository they are wanted in."""
        try:
            closure = copier.walk(copy.repository, copy.digest, copy.referrers)
        except PausedError:
            raise
        except HarborSatelliteError:
            return []  # staging will say what is wrong with it
        return [
            blob
            for blob in closure.blobs
            if not self.known.repository_of(blob.digest)
            and self.target.blob_head(copy.repository, blob.digest) != blob.size
        ]


def check_second_copy(old: Path, new: Path, disk: DiskGuard) -> None:
    """Do nothing if there is room for all that a registry's folder holds in another folder, beside what that has.

    Raises:
        StorageError: there is none, or the disk does not say.
    """
    try:
        disk.check(_content_bytes(old) - _content_bytes(new))
    except StorageError as error:
        raise StorageError(f"no room for a second copy of this site's images: {error}") from error


def _content_bytes(root: Path) -> int:
    """Return the size of all files; what repositories share by hard links counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for folder, _, files in os.walk(root):
        for name in files:
            with contextlib.suppress(OSError):  # it went meanwhile
                found = os.lstat(os.path.join(folder, name))  # noqa: PTH118  (a path object for each takes long)
                sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())
