"""Upload sessions: blobs on their way in, on the disk, so that they survive a restart.

What lives here: staging files, their offsets and their hashing. What must not: where a finished blob goes.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from harbor_satellite.errors import DigestMismatchError, StorageError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import CHUNK_BYTES
from harbor_satellite.registry.layout_files import TEMPORARY_PREFIX, file_size, make_directory, publish, storage_errors
from harbor_satellite.registry.layout_refusals import ErrorCode, RefusedError

if TYPE_CHECKING:
    import hashlib
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_log: Final = logging.getLogger(__name__)
_IDENTIFIER: Final = re.compile(r"[0-9a-f]{32}")
SESSION_MAX_AGE_SECONDS: Final = 7 * 24 * 3600.0
"""How long an upload may rest before it counts as abandoned; links may be gone for days."""
_SWEEP_INTERVAL_SECONDS: Final = 3600.0


class UploadWriter:
    """Appends to one upload session; at most one exists per session. Close it to let go of the session."""

    def __init__(self, store: UploadStore, key: tuple[str, str], path: Path) -> None:
        self._store = store
        self._key = key
        self._path = path
        with storage_errors(path, "opening an upload"):
            # Unbuffered: what `write` took is in the file, whatever happens to this process.
            self._file = path.open("ab", buffering=0)
        self.start: Final = self._file.tell()
        """Offset at which this writer began (bytes)."""
        self.offset = self.start
        """Offset of the next byte."""

    def write(self, chunk: bytes | bytearray) -> None:
        """Append bytes and hash them on the way.

        Raises:
            StorageError: the disk is full or broken; the session should then be cancelled.
        """
        rest = memoryview(chunk)
        with storage_errors(self._path, f"storing an upload for {self._key[0]}"):
            while rest:
                rest = rest[self._file.write(rest) :]
        self._store.hash_chunk(self._key, self.offset, chunk)
        self.offset += len(chunk)

    def rewind(self) -> None:
        """Forget everything this writer wrote."""
        with storage_errors(self._path, "truncating an upload"):
            self._file.truncate(self.start)
        self.offset = self.start
        self._store.forget_hash(self._key)

    def close(self) -> None:
        """Let go of the session; what was written stays. Twice is no harm."""
        if not self._file.closed:
            self._file.close()
            self._store.release(self._key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class UploadStore:
    """All upload sessions of one layout, under one directory.

    Args:
        directory: on the same file system as the repositories; this store is its only user.
    """

    def __init__(self, directory: Path) -> None:
        self.directory: Final = directory
        self._mutex: Final = threading.Lock()
        self._busy: Final[set[tuple[str, str]]] = set()
        self._hashers: Final[dict[tuple[str, str], tuple[int, hashlib._Hash]]] = {}
        with storage_errors(directory, "preparing the upload area"):
            make_directory(directory)
            for leftover in directory.glob(f"{TEMPORARY_PREFIX}*"):
                leftover.unlink()
        self._swept = 0.0
        self.sweep()

    def sweep(self, max_age_seconds: float = SESSION_MAX_AGE_SECONDS) -> int:
        """Remove sessions that nobody has written to for longer; returns how many."""
        removed = 0
        self._swept = time.time()
        with storage_errors(self.directory, "removing abandoned uploads"):
            for path in self.directory.glob("*/*"):
                key = (path.parent.name.replace("+", "/"), path.name)
                if path.is_file() and self._swept - path.stat().st_mtime > max_age_seconds and key not in self._busy:
                    path.unlink()
                    self.forget_hash(key)
                    removed += 1
        if removed:
            _log.info("removed abandoned uploads count=%d max_age_seconds=%d", removed, max_age_seconds)
        return removed

    def start(self, repository: str, algorithm: str = "sha256") -> str:
        """Begin a session and return its identifier; ``algorithm`` is a guess that only saves a second reading."""
        if time.time() - self._swept > _SWEEP_INTERVAL_SECONDS:
            self.sweep()
        identifier = uuid4().hex
        path = self._path(repository, identifier)
        with storage_errors(path, f"starting an upload for {repository}"):
            make_directory(path.parent)
            path.open("xb").close()
        with self._mutex:
            self._hashers[repository, identifier] = (0, Digest(algorithm, "").hasher())
        return identifier

    def size(self, repository: str, identifier: str) -> int:
        """Return how many bytes a session holds.

        Raises:
            RefusedError: 404, there is no such session.
        """
        with storage_errors(self.directory, "looking for an upload"):
            size = file_size(self._path(repository, identifier))
        if size is None:
            raise _unknown(repository, identifier)
        return size

    def open(self, repository: str, identifier: str, offset: int | None = None) -> UploadWriter:
        """Open a session for appending.

        Raises:
            RefusedError: 404 no such session, 409 somebody else is writing to it, 416 it does not end at ``offset``.
        """
        key = (repository, identifier)
        self._claim(key)
        try:
            _check_offset(self.size(repository, identifier), offset, f"upload {identifier} of {repository}")
            return UploadWriter(self, key, self._path(repository, identifier))
        except BaseException:
            self.release(key)
            raise

    def finish(self, repository: str, identifier: str, digest: Digest, target: Path) -> int:
        """Verify a session, put its bytes on the disk and publish them as ``target``; returns their count.

        Raises:
            DigestMismatchError: the bytes are not what the digest promises; the session is gone.
            StorageError: the disk is full or broken; the session is gone.
            RefusedError: 404 no such session, 409 somebody is still writing to it.
        """
        key = (repository, identifier)
        # Claimed until published: nobody can append between the verification and the rename.
        self._claim(key)
        try:
            size = self.size(repository, identifier)
            self._publish(key, self._path(repository, identifier), size, digest, target)
        except (DigestMismatchError, StorageError):
            with suppress(StorageError):
                self.cancel(repository, identifier)
            raise
        finally:
            self.release(key)
        return size

    def cancel(self, repository: str, identifier: str) -> bool:
        """Drop a session and free its space; False if there is none."""
        self.forget_hash((repository, identifier))
        with storage_errors(self.directory, "cancelling an upload"):
            try:
                self._path(repository, identifier).unlink()
            except FileNotFoundError:
                return False
            return True

    def hash_chunk(self, key: tuple[str, str], offset: int, chunk: bytes | bytearray) -> None:
        """Take a chunk into the session's running hash, if that has seen everything before ``offset``."""
        hashed, hasher = self._hashers.get(key, (-1, None))
        if hasher is not None and hashed == offset:
            hasher.update(chunk)
            self._hashers[key] = (offset + len(chunk), hasher)

    def forget_hash(self, key: tuple[str, str]) -> None:
        """Drop the running hash: the file will be read again at the end."""
        with self._mutex:
            self._hashers.pop(key, None)

    def release(self, key: tuple[str, str]) -> None:
        """Let others use the session."""
        with self._mutex:
            self._busy.discard(key)

    def _claim(self, key: tuple[str, str]) -> None:
        with self._mutex:
            if key in self._busy:
                message = f"upload {key[1]} of {key[0]} is being written by another request"
                raise RefusedError(ErrorCode.BLOB_UPLOAD_INVALID, 409, message)
            self._busy.add(key)

    def _publish(self, key: tuple[str, str], path: Path, size: int, digest: Digest, target: Path) -> None:
        got = self._digest(key, path, size, digest.algorithm)
        if got != digest:
            raise DigestMismatchError(f"digest mismatch for {key[0]}@{digest}: got {got} ({size} bytes)")
        with storage_errors(target, f"storing {digest} for {key[0]}"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            os.utime(path)  # its age counts from now: garbage collection spares young blobs
            publish(path, target)
        self.forget_hash(key)

    def _digest(self, key: tuple[str, str], path: Path, size: int, algorithm: str) -> Digest:
        hashed, hasher = self._hashers.get(key, (-1, None))
        if hasher is None or hashed != size or hasher.name != algorithm:
            # Resumed after a restart, or another algorithm than the one announced: read it once more.
            hasher = Digest(algorithm, "").hasher()
            with storage_errors(path, "verifying an upload"), path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    hasher.update(chunk)
        return Digest.from_hasher(hasher)

    def _path(self, repository: str, identifier: str) -> Path:
        if _IDENTIFIER.fullmatch(identifier) is None:
            raise _unknown(repository, identifier)
        # "+" is in no repository name, so two repositories never share a directory.
        return self.directory / repository.replace("/", "+") / identifier


def _unknown(repository: str, identifier: str) -> RefusedError:
    message = f"no upload {identifier[:64]!r} in {repository}"
    return RefusedError(ErrorCode.BLOB_UPLOAD_UNKNOWN, 404, message)


def _check_offset(size: int, offset: int | None, what: str) -> None:
    if offset not in (None, size):
        raise RefusedError(ErrorCode.BLOB_UPLOAD_INVALID, 416, f"{what} continues at {size}, not at {offset}")
