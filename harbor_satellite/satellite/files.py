"""Single files of a satellite's folder: replaced whole, for their owner only, and locks.

What must not live here: what the files mean.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import ConflictError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE_FILE: Final = 0o600
PRIVATE_FOLDER: Final = 0o700


def make_folder(folder: Path) -> None:
    """Make a folder that is for its owner only, if there is none.

    Raises:
        StorageError: the disk is read-only or refuses.
    """
    if folder.is_dir():
        return
    try:
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            owner = folder.parent.stat()
            os.chown(folder, owner.st_uid, owner.st_gid, follow_symlinks=False)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object from a file; None if there is none.

    Raises:
        StorageError: it cannot be read, or is damaged.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is damaged: {error}") from error
    if not isinstance(document, dict):
        raise StorageError(f"{path} is damaged: not a JSON object")
    return document


def file_mark(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is written or replaced; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def write_atomically(path: Path, content: bytes, mode: int = PRIVATE_FILE) -> None:
    """Replace a file so that readers and power cuts see the old or the new one, never a part.

    Raises:
        StorageError: the disk is full, read-only or refuses.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                _give_to_owner(file.fileno(), path.parent)
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


@contextlib.contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock of this machine's processes.

    Raises:
        ConflictError: another process, or another thread, holds it; the message is ``busy``.
        StorageError: the disk is read-only or refuses.
    """
    make_folder(path.parent)
    try:
        file = os.fdopen(
            os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE), "a"
        )
    except OSError as error:
        raise StorageError(f"cannot open {path}: {error.strerror}") from error
    with file:
        with contextlib.suppress(OSError):
            _give_to_owner(file.fileno(), path.parent)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConflictError(busy) from error
        with contextlib.suppress(OSError):  # a full disk stops nobody
            os.utime(file.fileno())  # since when: see below
        yield


def locked_since(path: Path) -> datetime | None:
    """Return since when a lock is held; None: nobody holds it.

    Looked up, not tried: even a short try could turn away who wants it just then.
    """
    try:
        found = path.stat()
        locks = Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # there is none yet
        return None
    is_held = any(f":{found.st_ino} " in lock and " FLOCK " in lock for lock in locks)
    return datetime.fromtimestamp(found.st_mtime, UTC) if is_held else None


def _give_to_owner(handle: int, folder: Path) -> None:
    """Let what root writes by hand belong to whom the folder belongs to: the agent must be able to go on with it.

    A file that has another name as well stays whose it is: that owner may have put it there to be given it.
    """
    if os.geteuid() == 0 and os.fstat(handle).st_nlink <= 1:
        owner = folder.stat()
        os.fchown(handle, owner.st_uid, owner.st_gid)
