"""What we wrote into a host's files, and what was there before: a folder of its own, which only root can change.

What root puts back must not come from where the agent's user can write; so this is not the satellite's folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import quote

from harbor_satellite.errors import ConflictError, StorageError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.satellite.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORD_FOLDER: Final = "/var/lib/harbor-satellite-runtime"
"""Below the host's root."""
_RECORD: Final = "record.json"
_OTHERS_WRITE: Final = 0o022
PATIENCE_SECONDS: Final = 30.0
"""The site's agent, a flow run and a command by hand may meet; most are done long before."""
_PAUSE_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One file of the host that we changed or made."""

    path: str
    runtimes: tuple[str, ...]
    """Who needs it; CRI-O and Podman share one."""
    is_new: bool
    """There was none before us."""
    mode: int
    uid: int
    gid: int
    wrote: tuple[str, ...]
    """Digests of what we wrote, or were about to write when we were killed."""
    unit: str = ""
    """Of systemd, which must be told of a change; empty: none."""
    verb: str = ""


@dataclass(frozen=True, slots=True)
class HostRecord:
    """All that we did to a host."""

    files: dict[str, WrittenFile] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    """That we made."""
    runtimes: dict[str, dict[str, str]] = field(default_factory=dict)
    """Runtime → who asked for it (``by``: ``site`` or ``hand``), and the digest of the ``mirrors``."""
    pending: tuple[tuple[str, str], ...] = ()
    """Units of systemd, each with a verb, that still have to be told of a change."""


class RecordStore:
    """The record on disk, with the bytes before and after us of each file.

    Args:
        folder: made if it is missing.
        patience_seconds: so long is waited for another who writes.
    """

    def __init__(self, folder: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.folder = folder
        self._patience_seconds = patience_seconds

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep others from writing.

        Raises:
            ConflictError: somebody else writes, and is not done in time.
            StorageError: the folder cannot be made, or others than its owner can write into it.
        """
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            (self.folder / "files").mkdir(mode=0o700, exist_ok=True)
            found = self.folder.stat()
            file = (self.folder / ".lock").open("w")
        except OSError as error:
            raise StorageError(f"cannot use {self.folder}: {error.strerror}") from error
        with file:
            if found.st_uid not in {0, os.geteuid()} or found.st_mode & _OTHERS_WRITE:
                raise StorageError(f"{self.folder} can be changed by others: what it holds is not put into the host")
            until = time.monotonic() + self._patience_seconds
            while not _is_locked(file):
                if time.monotonic() >= until:
                    raise ConflictError(f"the runtimes are being configured already ({self.folder})")
                time.sleep(_PAUSE_SECONDS)
            yield

    def load(self) -> HostRecord:
        """Read the record; an empty one if there is none.

        Raises:
            StorageError: it is damaged.
        """
        path = self.folder / _RECORD
        try:
            document = json.loads(path.read_bytes())
            files = {name: _file(one) for name, one in document["files"].items()}
            pending = tuple((str(unit), str(verb)) for unit, verb in document["pending"])
            return HostRecord(files, tuple(document["folders"]), dict(document["runtimes"]), pending)
        except FileNotFoundError:
            return HostRecord()
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"{path} is damaged: {error!r}") from error

    def save(self, record: HostRecord) -> None:
        """Keep the record, and forget the bytes of files that are no longer in it."""
        document = asdict(record)
        write_atomically(self.folder / _RECORD, json.dumps(document, indent=1).encode())
        kept = {self._part(path, part).name for path in record.files for part in ("before", "after")}
        for left in (self.folder / "files").iterdir():
            if left.name not in kept:
                left.unlink(missing_ok=True)

    def keep(self, path: str, before: bytes | None, after: bytes) -> None:
        """Keep what was there, and what we put in its place."""
        for part, content in (("before", before or b""), ("after", after)):
            place = self._part(path, part)
            if _read(place) != content:
                write_atomically(place, content)

    def before(self, file: WrittenFile) -> bytes | None:
        """Return what was there before us; None: no file.

        Raises:
            StorageError: its backup is gone.
        """
        return None if file.is_new else self._kept(file.path, "before")

    def after(self, file: WrittenFile) -> bytes:
        """Return what we wrote last.

        Raises:
            StorageError: the copy is gone.
        """
        return self._kept(file.path, "after")

    def set_aside(self, path: str, content: bytes) -> Path:
        """Keep what somebody else wrote and we are about to replace; return where."""
        folder = self.folder / "replaced"
        folder.mkdir(mode=0o700, exist_ok=True)
        place = folder / f"{quote(path, safe='')}.{datetime.now(UTC):%Y%m%dT%H%M%S}"
        write_atomically(place, content)
        return place

    def _part(self, path: str, part: str) -> Path:
        return self.folder / "files" / f"{quote(path, safe='')}.{part}"

    def _kept(self, path: str, part: str) -> bytes:
        content = _read(place := self._part(path, part))
        if content is None:
            raise StorageError(f"the backup {place} is gone: put {path} in order by hand, then --force")
        return content


def digest_of(content: bytes) -> str:
    """Return the digest by which a file's content is known in the record."""
    return str(Digest.of(content))


def with_runtime(record: HostRecord, runtime: str, by: str, mirrors: str) -> HostRecord:
    """Return the record, saying that a runtime is configured, on whose behalf, and for which mirrors (a digest)."""
    return replace(record, runtimes={**record.runtimes, runtime: {"by": by, "mirrors": mirrors}})


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _file(one: dict[str, Any]) -> WrittenFile:
    return WrittenFile(**{**one, "runtimes": tuple(one["runtimes"]), "wrote": tuple(one["wrote"])})


def _read(place: Path) -> bytes | None:
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return None
