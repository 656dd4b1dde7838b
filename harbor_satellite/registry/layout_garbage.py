"""Garbage: content that no listed manifest reaches, and manifests that no tag does. Finding and removing it."""

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
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.layout_repository import RepositoryLayout

_log: Final = logging.getLogger(__name__)


def collect_garbage(
    layout: RepositoryLayout,
    older_than_seconds: float,
    untagged_older_than_seconds: float | None = None,
    now: float | None = None,
) -> int:
    """Remove what no listed manifest reaches and what is older; returns the bytes freed on the disk.

    A repository with a damaged manifest or index is left alone: what only that one reaches would be lost.

    Args:
        layout: the repository.
        older_than_seconds: age of a blob that nothing reaches, from which it goes.
        untagged_older_than_seconds: age of a manifest that no tag reaches, from which it goes, with what only it
            needs; None: such manifests stay.
        now: seconds since the epoch; None: the clock's.
    """
    now = time.time() if now is None else now
    before = now - older_than_seconds
    with layout.lock, storage_errors(layout.directory, "collecting garbage"):
        if not layout.directory.is_dir() or _is_doubtful(layout, before):
            return 0
        listed = _listed(layout)
        if listed is None:
            _log.warning("garbage kept, a manifest is unreadable repository=%s", layout.repository)
            return 0
        dropped: set[str] = set()
        if untagged_older_than_seconds is not None:
            dropped = _drop_untagged(layout, listed, now - untagged_older_than_seconds)
        reached = _reached(layout, listed)
        unreached = [path for path in _blobs(layout) if _name(path) not in reached]
        # What a dropped manifest needed was complete once: it does not wait for an upload that may still come.
        freed = sum(_remove(path, now if _name(path) in dropped else before) for path in unreached)
    if freed:
        _log.info("collected garbage repository=%s bytes=%d", layout.repository, freed)
    return freed


def _listed(layout: RepositoryLayout) -> dict[Digest, Manifest] | None:
    """Return every listed manifest; None if one cannot be read."""
    listed: dict[Digest, Manifest] = {}
    for descriptor, manifest in layout.manifests():
        if manifest is None:
            return None
        listed[descriptor.digest] = manifest
    return listed


def _drop_untagged(layout: RepositoryLayout, listed: dict[Digest, Manifest], before: float) -> set[str]:
    """Take manifests that no tag reaches, themselves older, off the list; return the names of all they needed."""
    kept = _tagged(layout, listed)
    old = [digest for digest in listed if digest not in kept and layout.blob_path(digest).stat().st_mtime < before]
    dropped: set[str] = set()
    for digest in old:
        manifest = listed.pop(digest)
        dropped.update(str(part.digest) for part in (*manifest.blobs, *manifest.manifests))
        dropped.add(str(digest))
    if old:
        layout.manifests_forget(old)
        _log.info("dropped untagged manifests repository=%s count=%d", layout.repository, len(old))
    return dropped


def _tagged(layout: RepositoryLayout, listed: dict[Digest, Manifest]) -> set[Digest]:
    """Return the manifests that a tag reaches: through indexes, and from a subject to its referrers."""
    referrers: dict[Digest, list[Digest]] = {}
    for digest, manifest in listed.items():
        if manifest.subject:
            referrers.setdefault(manifest.subject.digest, []).append(digest)
    kept: set[Digest] = set()
    waiting = list(layout.index().tags.values())
    while waiting:
        digest = waiting.pop()
        if digest in kept:
            continue
        kept.add(digest)
        waiting.extend(referrers.get(digest, ()))
        if digest in listed:
            waiting.extend(child.digest for child in listed[digest].manifests)
    return kept


def _is_doubtful(layout: RepositoryLayout, before: float) -> bool:
    layout.index()  # sets a damaged index aside
    damaged = layout.directory / DAMAGED_NAME
    if not damaged.exists():
        return False
    if damaged.stat().st_ctime >= before:
        return True
    damaged.unlink()
    return False


def _reached(layout: RepositoryLayout, listed: dict[Digest, Manifest]) -> set[str]:
    reached = {str(digest) for digest in listed}
    waiting = list(listed.values())
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
