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
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pydantic import ValidationError

from harbor_satellite.errors import ConflictError, HarborSatelliteError, NotFoundError, StorageError
from harbor_satellite.satellite.applied import Applied, LastRun, applied_json, applied_of, rest_json, with_rest
from harbor_satellite.state.wire import Registration, RegistryAuth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_PRIVATE_FILE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700
_APPLIED: Final = "applied.json"
_REST: Final = "rest.json"
_RENEWAL: Final = "renewal.json"
_PREVIOUS: Final = "previous.json"
_LEFT_BEHIND_SECONDS: Final = 3600.0
_PARSED_MAX: Final = 8
_PARSED: Final[dict[Path, tuple[tuple[int, int, int], object]]] = {}
"""Values of files, each with what its file looked like before it was read."""

T = TypeVar("T")


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
        document = self.read_document("registration.json")
        if document is None:
            raise NotFoundError(f"no registration in {self.folder}: register this site first")
        try:
            return Registration.model_validate(document)
        except ValidationError as error:
            # The file holds a secret, and pydantic's error would echo it: so `from None`.
            message = f"{self.folder / 'registration.json'} is damaged: {error.error_count()} errors"
            raise StorageError(message) from None

    def registered_at(self) -> datetime | None:
        """Return when the registration, or its newest credential, was kept; None if there is none."""
        try:
            return datetime.fromtimestamp((self.folder / "registration.json").stat().st_mtime, UTC)
        except (OSError, OverflowError, ValueError):
            return None

    def save_registration(self, registration: Registration) -> None:
        """Keep what Ground Control handed out; the claim key is of no use any more."""
        self.write_document("registration.json", registration.model_dump(mode="json"))
        for name in ("claim.json", _PREVIOUS):
            (self.folder / name).unlink(missing_ok=True)

    def claim_key(self, make: str) -> str:
        """Return the key under which this site claims; ``make`` is kept if there was none.

        It is on disk before the first claim is sent: a site whose answer was lost can prove to be the same.
        """
        document = self.read_document("claim.json")
        if document and isinstance(document.get("claim_key"), str):
            return str(document["claim_key"])
        self.write_document("claim.json", {"claim_key": make})
        return make

    def renewal_key(self, make: str) -> str:
        """Return the key under which this site asks for its next credential; ``make`` is kept if there was none.

        It is on disk before the first request is sent, as the claim key is.
        """
        document = self.read_document(_RENEWAL)
        if document and isinstance(document.get("renewal_key"), str):
            return str(document["renewal_key"])
        self.write_document(_RENEWAL, {"renewal_key": make})
        return make

    def save_renewed(self, registration: Registration) -> None:
        """Keep the registration with its next credential; the renewal key is of no use any more.

        The credential before is kept beside it: a centre restored from a backup knows that one and not the next.
        """
        with contextlib.suppress(NotFoundError):
            self.write_document(_PREVIOUS, {"auth": self.registration().auth.model_dump(mode="json")})
        self.write_document("registration.json", registration.model_dump(mode="json"))
        (self.folder / _RENEWAL).unlink(missing_ok=True)

    def previous_auth(self) -> RegistryAuth | None:
        """Return the credential before the present one; None if there is none, or it cannot be read."""
        try:
            document = self.read_document(_PREVIOUS)
            return RegistryAuth.model_validate(document["auth"]) if document else None
        except (StorageError, KeyError, ValidationError):
            return None

    def applied(self) -> Applied:
        """Return the record of the last run; an empty one if there was none.

        Raises:
            StorageError: the file is damaged.
        """
        applied = self.parsed(_APPLIED, lambda document: Applied() if document is None else applied_of(document))
        rest = self.read_document(_REST)
        try:
            return with_rest(applied, rest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StorageError(f"{self.folder / _REST} is damaged: {error!r}") from error

    def save_applied(self, applied: Applied) -> None:
        """Keep the record of a run."""
        self.write_document(_APPLIED, applied_json(applied))

    def save_rest(self, last_run: LastRun, look_at: int) -> None:
        """Keep how a run went that changed nothing: a small file, since it is written every few minutes for years."""
        self.write_document(_REST, rest_json(last_run, look_at))

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
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Remove what writers left behind that were killed; nobody else writes while the lock is held but reports."""
        for left in self.folder.glob(".*.json-*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                    left.unlink()

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {self.folder}: {error.strerror}") from error

    def parsed(self, name: str, parse: Callable[[dict[str, Any] | None], T]) -> T:
        """Read one JSON file of the folder as a value; ``parse`` is given None if there is none.

        A file of ten thousand names takes a second to read, so a value is kept for as long as its file is the same.

        Raises:
            StorageError: it cannot be read, or is damaged.
        """
        path = self.folder / name
        mark = _mark(path)
        kept = _PARSED.get(path)
        if kept and kept[0] == mark:
            return cast("T", kept[1])
        try:
            value = parse(self.read_document(name))
        except (KeyError, TypeError, ValueError, AttributeError, HarborSatelliteError) as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"{path} is damaged: {error!r}") from error
        if len(_PARSED) >= _PARSED_MAX:
            _PARSED.clear()
        if mark is not None:
            _PARSED[path] = mark, value
        return value

    def read_document(self, name: str) -> dict[str, Any] | None:
        """Read one JSON file of the folder; None if there is none.

        Raises:
            StorageError: it cannot be read, or is damaged.
        """
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

    def write_document(self, name: str, document: Mapping[str, Any]) -> None:
        """Replace one JSON file of the folder, whole or not at all.

        Raises:
            StorageError: the disk is full, read-only or refuses.
        """
        self._make_folder()
        write_atomically(self.folder / name, json.dumps(document, separators=(",", ":")).encode())


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


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
