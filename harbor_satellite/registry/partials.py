"""Blobs that have arrived in part, on the disk, so that a cut, a kill or a reboot costs no byte twice.

What lives here: one file for each blob on its way, and the list of blobs that did arrive. What must not: registries,
and trust: whoever reads a part hashes it again.

A file needs no notes beside it. Bytes beyond k · ``SYNC_BYTES`` are written only after everything before is on the
disk; so while the machine stays up the whole file is good (the page cache outlives a killed process), and after a
reboot the largest k · ``SYNC_BYTES`` below its size is.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from harbor_satellite.registry.api import CHUNK_BYTES
from harbor_satellite.registry.arrivals import Arrivals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import TracebackType

    from harbor_satellite.oci.descriptor import Descriptor
    from harbor_satellite.oci.digest import Digest

_log = logging.getLogger(__name__)

SYNC_BYTES: Final = 8 * 1024 * 1024
"""Bytes that a reboot may cost for each blob on its way."""
SPOOL_MIN_BYTES: Final = 128 * 1024
"""Smaller blobs are fetched again sooner than their file would be made."""
_BOOT_ID: Final = "boot-id"
_ARRIVALS: Final = "arrivals"
_LINUX_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> str:
    """Return what names this start of the machine; empty where the system does not say."""
    try:
        return _LINUX_BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def durable_size(size: int, sync_bytes: int = SYNC_BYTES) -> int:
    """Return how many bytes of a partial file of ``size`` bytes are certain to have survived a reboot."""
    return max(size - 1, 0) // sync_bytes * sync_bytes


class PartialBlob:
    """What is at hand of one blob; takes what follows. Close it, or use it as a context manager: the bytes stay.

    Args:
        path: its file.
        descriptor: of the open file, -1 for none: then nothing is at hand and nothing is kept.
        size: bytes at hand.
        folder: whose blob this is; told when the disk takes no more, from when on nothing is kept.
    """

    def __init__(self, path: Path, descriptor: int, size: int, folder: PartialFolder) -> None:
        self._path = path
        self._file = descriptor
        self._folder = folder
        self.size = size
        """Bytes at hand."""

    def chunks(self) -> Iterator[bytes]:
        """Give what was at hand when this was called, in chunks of at most ``CHUNK_BYTES``; less if the disk fails."""
        position, end = 0, self.size
        while position < end and self._file >= 0:
            try:
                chunk = os.pread(self._file, min(CHUNK_BYTES, end - position), position)
            except OSError as error:
                self._fail(error)
                return
            if not chunk:  # somebody else cut it: what follows would no longer fit
                self.discard()
                return
            position += len(chunk)
            yield chunk

    def append(self, chunk: bytes) -> None:
        """Keep the bytes that follow; a disk that does not take them costs only the resume."""
        rest = memoryview(chunk)
        try:
            while rest and self._file >= 0:
                beyond = self.size % self._folder.sync_bytes
                if self.size and not beyond:
                    os.fsync(self._file)
                written = os.write(self._file, rest[: self._folder.sync_bytes - beyond])
                self.size += written
                rest = rest[written:]
        except OSError as error:
            self._fail(error)

    def discard(self) -> None:
        """Remove the file: the blob has arrived, or these are not its bytes."""
        if self._file >= 0:
            with suppress(OSError):
                self._path.unlink()
        self.size = 0
        self.close()

    def close(self) -> None:
        """Let go of the file; what was kept stays. Twice is no harm."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _fail(self, error: OSError) -> None:
        # The room it took may be what the blob itself now needs at the same disk.
        self.discard()
        self._folder.warn(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PartialFolder:
    """The partial blobs of one site, in one folder; made when the first blob is kept. Safe to use from many threads.

    Nothing here fails a transfer: where the disk does not go along, blobs are not kept, and one warning says so.

    Args:
        folder: holds nothing else; private to this user.
        reserve_bytes: free bytes of its disk that partial blobs never touch.
        sync_bytes: how many bytes a reboot may cost for each blob.
        boot_id: names this start of the machine; empty: every start counts as a reboot.
    """

    def __init__(
        self,
        folder: Path,
        *,
        reserve_bytes: int = 0,
        sync_bytes: int = SYNC_BYTES,
        boot_id: Callable[[], str] = read_boot_id,
    ) -> None:
        self.folder: Final = folder
        self.sync_bytes: Final = sync_bytes
        self._reserve_bytes = reserve_bytes
        self._boot_id = boot_id
        self._lock = threading.Lock()
        self._is_ready = False
        self._has_warned = False
        self._journal = Arrivals(folder / _ARRIVALS)

    def open(self, blob: Descriptor) -> PartialBlob:
        """Open what is at hand of a blob; by one thread at a time, any other gets nothing and keeps nothing."""
        path = self._path(blob.digest)
        if blob.size < SPOOL_MIN_BYTES:
            return PartialBlob(path, -1, 0, self)
        descriptor = -1
        try:
            self._prepare()
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = os.fstat(descriptor).st_size
            if size > blob.size:  # not a part of this blob
                os.ftruncate(descriptor, 0)
                size = 0
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                self.warn(error)
            return PartialBlob(path, -1, 0, self)
        partial = PartialBlob(path, descriptor, size, self)
        # The target may fill the same disk: a part must not take the room that the blob itself needs there.
        if size == 0 and not self._has_room(descriptor, 2 * blob.size):
            partial.discard()
        return partial

    def discard(self, digest: Digest) -> bool:
        """Remove what is at hand of a blob; False if there was nothing."""
        try:
            self._path(digest).unlink()
        except OSError:
            return False
        return True

    def held_bytes(self) -> int:
        """Return the bytes that partial blobs take on the disk."""
        return sum(_size(path) for path in self._files())

    def prune(self, keep: Collection[Digest]) -> int:
        """Remove the parts of blobs that nobody wants any more.

        Args:
            keep: blobs that are still wanted.

        Returns:
            The bytes freed.
        """
        names = {_name(digest) for digest in keep}
        freed = 0
        for path in self._files():
            if path.name not in names:
                size = _size(path)
                with suppress(OSError):
                    path.unlink()
                    freed += size
        return freed

    def note_arrival(self, digest: Digest, repository: str) -> None:
        """Write down that the target holds a blob: should this run not finish, the next one mounts it from there."""
        try:
            self._prepare()
            self._journal.note(digest, repository)
        except OSError as error:
            self.warn(error)

    def arrival(self, digest: Digest) -> str | None:
        """Return the repository of the target that took a blob, as ``arrivals`` has it."""
        return self._journal.get(digest)

    def arrivals(self) -> dict[Digest, str]:
        """Return which repository of the target took each blob, in this run and in earlier ones that did not finish."""
        return self._journal.all()

    def clear_arrivals(self) -> None:
        """Forget the arrivals: the run is finished, and what it brought can be found by its manifests."""
        try:
            self._journal.clear()
        except OSError as error:
            self.warn(error)

    def _prepare(self) -> None:
        """Make the folder; after a reboot, cut every file to what is certain to be on the disk."""
        with self._lock:
            if self._is_ready:
                return
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            boot_id = self._boot_id()
            note = self.folder / _BOOT_ID
            if not boot_id or _text(note) != boot_id:
                for path in self._files():
                    os.truncate(path, durable_size(_size(path), self.sync_bytes))
                note.write_text(boot_id, encoding="ascii")
                note.chmod(0o600)
            self._is_ready = True

    def _has_room(self, descriptor: int, wanted: int) -> bool:
        with suppress(OSError):
            disk = os.fstatvfs(descriptor)
            free = disk.f_bavail * disk.f_frsize
            if free < wanted + self._reserve_bytes:
                self.warn(f"{free} bytes are free")
                return False
        return True

    def _files(self) -> Iterator[Path]:
        for algorithm in ("sha256", "sha512"):
            yield from self.folder.glob(f"{algorithm}-*")

    def _path(self, digest: Digest) -> Path:
        return self.folder / _name(digest)

    def warn(self, reason: OSError | str) -> None:
        """Say, the first time, why blobs are not kept."""
        if not self._has_warned:
            self._has_warned = True
            text = reason if isinstance(reason, str) else reason.strerror or type(reason).__name__
            _log.warning("blobs on their way are not kept, a cut starts them over: %s folder=%s", text, self.folder)


def _name(digest: Digest) -> str:
    return f"{digest.algorithm}-{digest.hex}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
