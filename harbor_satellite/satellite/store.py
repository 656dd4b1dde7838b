"""What a satellite keeps on disk: its registration, what it applied, what it copied. Atomic and 0600.

Readers always see the old or the new file, whole, whatever is killed whenever. A file that is damaged
all the same is reported, never silently replaced.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from harbor_satellite.errors import ConflictError, HarborSatelliteError, NotFoundError, StorageError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.desired import LocalTag
from harbor_satellite.state.wire import AppliedGroup, ImageFailure, Registration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PRIVATE_FILE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700


@dataclass(frozen=True, slots=True)
class LastRun:
    """How the last run went, for the next report."""

    finished_at: datetime
    seconds: float
    bytes_from_source: int
    copied_count: int
    deleted_count: int
    summary: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What the site follows now, and how the last run went."""

    state_digest: Digest | None = None
    """Digest of the satellite state that was applied last; None before the first run."""
    is_converged: bool = False
    """Whether the site is wholly on that state, with nothing failed or refused."""
    applied_at: datetime | None = None
    groups: tuple[AppliedGroup, ...] = ()
    wanted: Mapping[LocalTag, Digest] = field(default_factory=dict)
    """Every name that this state asks for, whoever put it there: what the next look is held against."""
    owned: Mapping[LocalTag, frozenset[Digest]] = field(default_factory=dict)
    """What this satellite put under each name; two digests while a tag is being moved."""
    sizes: Mapping[LocalTag, int] = field(default_factory=dict)
    """Bytes of each artifact, where its state says."""
    failures: tuple[ImageFailure, ...] = ()
    last_run: LastRun | None = None


class SatelliteStore:
    """The satellite's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def registration(self) -> Registration:
        """Return what Ground Control handed out.

        Raises:
            NotFoundError: this site is not registered yet.
            StorageError: the file is damaged.
        """
        document = self._read("registration.json")
        if document is None:
            raise NotFoundError(f"no registration in {self.folder}: register this site first")
        try:
            return Registration.model_validate(document)
        except ValidationError as error:
            # The file holds a secret, and pydantic's error would echo it: so `from None`.
            message = f"{self.folder / 'registration.json'} is damaged: {error.error_count()} errors"
            raise StorageError(message) from None

    def save_registration(self, registration: Registration) -> None:
        """Keep what Ground Control handed out; the claim key is of no use any more."""
        self._write("registration.json", registration.model_dump(mode="json"))
        (self.folder / "claim.json").unlink(missing_ok=True)

    def claim_key(self, make: str) -> str:
        """Return the key under which this site claims; ``make`` is kept if there was none.

        It is on disk before the first claim is sent: a site whose answer was lost can prove to be the same.
        """
        document = self._read("claim.json")
        if document and isinstance(document.get("claim_key"), str):
            return str(document["claim_key"])
        self._write("claim.json", {"claim_key": make})
        return make

    def applied(self) -> Applied:
        """Return the record of the last run; an empty one if there was none.

        Raises:
            StorageError: the file is damaged.
        """
        document = self._read("applied.json")
        if document is None:
            return Applied()
        try:
            return _applied(document)
        except (KeyError, TypeError, ValueError, AttributeError, HarborSatelliteError) as error:
            raise StorageError(f"{self.folder / 'applied.json'} is damaged: {error!r}") from error

    def save_applied(self, applied: Applied) -> None:
        """Keep the record of a run."""
        self._write("applied.json", _applied_json(applied))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the site's one lock: a run by Prefect and a run by hand never overlap.

        Raises:
            ConflictError: another run holds it.
        """
        self._make_folder()
        path = self.folder / ".lock"
        try:
            file = path.open("w")
        except OSError as error:
            raise StorageError(f"cannot open {path}: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConflictError(f"another replication is running in {self.folder}") from error
            yield

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {self.folder}: {error.strerror}") from error

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
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

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        self._make_folder()
        write_atomically(self.folder / name, json.dumps(document, indent=1).encode())


def write_atomically(path: Path, content: bytes, mode: int = _PRIVATE_FILE) -> None:
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


def _applied(document: Mapping[str, Any]) -> Applied:
    owned = {
        LocalTag(item["repository"], item["tag"]): frozenset(Digest.parse(text) for text in item["digests"])
        for item in document["owned"]
    }
    digest, applied_at, last_run = document["state_digest"], document["applied_at"], document["last_run"]
    if last_run:
        last_run = LastRun(**last_run | {"finished_at": datetime.fromisoformat(last_run["finished_at"])})
    return Applied(
        state_digest=Digest.parse(digest) if digest else None,
        is_converged=bool(document["is_converged"]),
        applied_at=datetime.fromisoformat(applied_at) if applied_at else None,
        groups=tuple(AppliedGroup.model_validate(item) for item in document["groups"]),
        wanted={LocalTag(item["repository"], item["tag"]): Digest.parse(item["digest"]) for item in document["wanted"]},
        owned=owned,
        sizes={LocalTag(item["repository"], item["tag"]): int(item["size"]) for item in document["sizes"]},
        failures=tuple(ImageFailure.model_validate(item) for item in document["failures"]),
        last_run=last_run or None,
    )


def _applied_json(applied: Applied) -> dict[str, Any]:
    return {
        "state_digest": str(applied.state_digest) if applied.state_digest else None,
        "is_converged": applied.is_converged,
        "applied_at": applied.applied_at.isoformat() if applied.applied_at else None,
        "groups": [group.model_dump() for group in applied.groups],
        "wanted": [
            {"repository": name.repository, "tag": name.tag, "digest": str(digest)}
            for name, digest in sorted(applied.wanted.items())
        ],
        "owned": [
            {"repository": name.repository, "tag": name.tag, "digests": sorted(map(str, digests))}
            for name, digests in sorted(applied.owned.items())
        ],
        "sizes": [
            {"repository": name.repository, "tag": name.tag, "size": size}
            for name, size in sorted(applied.sizes.items())
        ],
        "failures": [failure.model_dump() for failure in applied.failures],
        "last_run": asdict(run) | {"finished_at": run.finished_at.isoformat()} if (run := applied.last_run) else None,
    }
