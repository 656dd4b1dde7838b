"""Garbage: content of a repository that no listed manifest reaches. Finding and removing it, nothing else."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from harbor_satellite.oci import media_types
from harbor_satellite.registry.layout_files import fsync_directory, storage_errors
from harbor_satellite.registry.layout_repository import DAMAGED_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from harbor_satellite.oci.descriptor import Manifest
    from harbor_satellite.registry.layout_repository import RepositoryLayout

_log: Final = logging.getLogger(__name__)


def collect_garbage(layout: RepositoryLayout, older_than_seconds: float, now: float | None = None) -> int:
    """Remove what no listed manifest reaches and what is older; returns the bytes freed on the disk.

    A repository with a damaged manifest or index is left alone: what only that one reaches would be lost.
    """
    before = (time.time() if now is None else now) - older_than_seconds
    with layout.lock, storage_errors(layout.directory, "collecting garbage"):
        if not layout.directory.is_dir() or _is_doubtful(layout, before):
            return 0
        reached = _reached(layout)
        if reached is None:
            _log.warning("garbage kept, a manifest is unreadable repository=%s", layout.repository)
            return 0
        freed = sum(_remove(path, before) for path in _blobs(layout) if _name(path) not in reached)
    if freed:
        _log.info("collected garbage repository=%s bytes=%d", layout.repository, freed)
    return freed


def _is_doubtful(layout: RepositoryLayout, before: float) -> bool:
    layout.index()  # sets a damaged index aside
    damaged = layout.directory / DAMAGED_NAME
    if not damaged.exists():
        return False
    if damaged.stat().st_ctime >= before:
        return True
    damaged.unlink()
    return False


def _reached(layout: RepositoryLayout) -> set[str] | None:
    reached: set[str] = set()
    waiting: list[Manifest] = []
    for descriptor, manifest in layout.manifests():
        if manifest is None:
            return None
        reached.add(str(descriptor.digest))
        waiting.append(manifest)
    while waiting:
        manifest = waiting.pop()
        reached.update(str(blob.digest) for blob in manifest.blobs)
        for child in manifest.manifests:
            if str(child.digest) in reached:
                continue
            # A child that is not listed: a sparse index's absent platform, or a layout made by another program.
            reached.add(str(child.digest))
            parsed = layout.parse(child) if child.media_type in media_types.MANIFESTS else None
            waiting.extend([parsed] if parsed else [])
    return reached


def _blobs(layout: RepositoryLayout) -> list[Path]:
    return [path for path in layout.directory.glob("blobs/*/*") if path.is_file()]


def _name(path: Path) -> str:
    return f"{path.parent.name}:{path.name}"


def _remove(path: Path, before: float) -> int:
    status = path.stat()
    if status.st_mtime >= before:
        return 0
    path.unlink()
    fsync_directory(path.parent)
    return status.st_size if status.st_nlink == 1 else 0
