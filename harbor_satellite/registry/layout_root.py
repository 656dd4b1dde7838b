"""The root of a layout registry: who owns it, which names may stand in it, and what is already there."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import InvalidInputError, StorageError
from harbor_satellite.oci.reference import check_repository
from harbor_satellite.registry.layout_files import make_directory, storage_errors
from harbor_satellite.registry.layout_repository import INDEX_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

_RESERVED: Final = frozenset({"blobs", "oci-layout", INDEX_NAME})


def check_layout_name(repository: str) -> str:
    """Return the repository's name if a layout can hold it.

    Raises:
        InvalidInputError: it breaks distribution-spec, or one of its parts is a name that layouts use themselves.
    """
    check_repository(repository)
    # These are what a repository's own directory holds; one inside another must not be taken for them.
    if _RESERVED.intersection(repository.split("/")):
        raise InvalidInputError(f"not a repository name in an image layout: {repository!r}")
    return repository


def own_root(root: Path) -> int:
    """Make this process the root's only owner; returns the descriptor that holds the lock.

    Raises:
        StorageError: another process owns it, or it cannot be written, or on a read-only disk was never owned.
    """
    with storage_errors(root, "opening the registry"):
        make_directory(root)
        descriptor = _open_lock(root / ".lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StorageError(f"another process owns the registry at {root}") from None
    return descriptor


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS or not path.exists():
            raise
        # A lock takes no more than reading: what is on a disk that has become read-only can still be served.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def find_repositories(root: Path) -> Iterator[str]:
    """Give every repository under a root, whoever made it."""
    with storage_errors(root, "looking for repositories"):
        for directory, children, files in os.walk(root):
            children[:] = [child for child in children if child != "blobs" and not child.startswith((".", "_"))]
            if INDEX_NAME not in files:
                continue
            repository = Path(directory).relative_to(root).as_posix()
            with suppress(InvalidInputError):
                yield check_layout_name(repository)
