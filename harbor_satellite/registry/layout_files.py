"""Durable files: what is published is whole and on the disk, or it is not there.

What lives here: atomic writes and the translation of ``OSError``. What must not: anything about registries.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from harbor_satellite.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
TEMPORARY_PREFIX: Final = ".new-"
"""How files begin that were never published; whoever owns the directory may remove them at start."""


@contextmanager
def storage_errors(where: Path, action: str) -> Iterator[None]:
    """Turn every ``OSError`` inside into a ``StorageError`` that says what was being done and where."""
    try:
        yield
    except OSError as error:
        reason = (
            "no space left" if error.errno in _FULL else f"{error.strerror or error} ({error.filename or 'no file'})"
        )
        raise StorageError(f"{reason} on {where} while {action}") from error


def is_disk_full(error: StorageError) -> bool:
    """Tell a full disk (frees itself, or is freed by deleting) from a broken one."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL


def fsync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Create a directory and its missing parents, durably."""
    missing: list[Path] = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        fsync_directory(path.parent)


def publish(staged: Path, target: Path) -> None:
    """Move a file that is already on the disk to its final name, durably; replaces what was there."""
    make_directory(target.parent)
    staged.replace(target)
    fsync_directory(target.parent)


def write_durably(target: Path, content: bytes, *, staging: Path, mode: int = 0o644) -> None:
    """Write a whole file under its final name, or leave what was there untouched.

    Args:
        target: the final name.
        content: everything the file will hold.
        staging: a directory of the same file system where it may be half-written.
        mode: permissions from the first byte on.
    """
    make_directory(staging)
    staged = staging / f"{TEMPORARY_PREFIX}{uuid4().hex}"
    try:
        with open(staged, "xb", opener=lambda path, flags: os.open(path, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(staged, target)
    except BaseException:
        with suppress(OSError):
            staged.unlink()
        raise


def remove_durably(path: Path) -> bool:
    """Remove a file so that it stays removed after a power cut; False if it was not there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    fsync_directory(path.parent)
    return True


def file_size(path: Path) -> int | None:
    """Return the size of a regular file in bytes, or None if there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except FileNotFoundError:
        return None
