"""What a satellite keeps on disk: its registration, what it applied, what it copied. Atomic and 0600.

Readers always see the old or the new file, whole, whatever is killed whenever. A file that is damaged
all the same is reported, never silently replaced.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pydantic import ValidationError

from harbor_satellite.errors import HarborSatelliteError, NotFoundError, OtherMachineError, StorageError
from harbor_satellite.satellite.applied import Applied, LastRun, applied_json, applied_of, rest_json, with_rest
from harbor_satellite.satellite.files import (
    file_mark,
    locked,
    locked_since,
    make_folder,
    read_json,
    write_atomically,
)
from harbor_satellite.satellite.secret_files import SecretFiles
from harbor_satellite.state.wire import Registration, RegistryAuth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from harbor_satellite.satellite.machine_key import MachineIdentity

__all__ = ["RegisteredBy", "SatelliteStore", "write_atomically"]

_REGISTRATION: Final = "registration.json"
_CLAIM: Final = "claim.json"
_APPLIED: Final = "applied.json"
_REST: Final = "rest.json"
_RENEWAL: Final = "renewal.json"
_PREVIOUS: Final = "previous.json"
_LOCK: Final = ".lock"
_REGISTERED_BY: Final = "registered_by"
_LEFT_BEHIND_SECONDS: Final = 3600.0
_PARSED_MAX: Final = 8
_PARSED: Final[dict[Path, tuple[tuple[int, int, int], object]]] = {}
"""Values of files, each with what its file looked like before it was read."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RegisteredBy:
    """How this site was registered: what later reports and renewals need, so that nobody has to set it."""

    ground_control_url: str = ""
    ca: str = ""
    """File with the CA bundle of the centre; empty: the system's."""
    token_digest: str = ""
    """SHA-256 of the one-time token, in hex: the same one is not tried again; empty: not known."""


class SatelliteStore:
    """The satellite's folder.

    Args:
        folder: where it is; made when something is written.
        identity: of this machine, which encrypted secrets are bound to; for tests.
    """

    def __init__(self, folder: Path, identity: MachineIdentity | None = None) -> None:
        self.folder = folder
        self.secrets = SecretFiles(folder, identity)

    def registration(self) -> Registration:
        """Return what Ground Control handed out.

        Raises:
            NotFoundError: this site is not registered yet.
            OtherMachineError: it is encrypted with the key of another machine.
            StorageError: the file is damaged.
        """
        document = self.read_document(_REGISTRATION)
        if document is None:
            raise NotFoundError(f"no registration in {self.folder}: register this site first")
        try:
            return Registration.model_validate(document)
        except ValidationError as error:
            # The file holds a secret, and pydantic's error would echo it: so `from None`.
            message = f"{self.folder / _REGISTRATION} is damaged: {error.error_count()} errors"
            raise StorageError(message) from None

    def registered_at(self) -> datetime | None:
        """Return when the registration, or its newest credential, was kept; None if there is none."""
        try:
            return datetime.fromtimestamp((self.folder / _REGISTRATION).stat().st_mtime, UTC)
        except (OSError, OverflowError, ValueError):
            return None

    def registered_by(self) -> RegisteredBy:
        """Return how this site was registered; nothing where it was not, or that cannot be read."""
        try:
            return self.parsed(_REGISTRATION, _registered_by)
        except HarborSatelliteError:
            return RegisteredBy()

    def save_registration(self, registration: Registration, registered_by: RegisteredBy | None = None) -> None:
        """Keep what Ground Control handed out; the claim key is of no use any more."""
        self._save_registration(registration, registered_by or RegisteredBy())
        for name in (_CLAIM, _RENEWAL, _PREVIOUS):
            (self.folder / name).unlink(missing_ok=True)

    def _save_registration(self, registration: Registration, by: RegisteredBy) -> None:
        known = {"url": by.ground_control_url, "ca": by.ca, "token_sha256": by.token_digest}
        self.write_secret(_REGISTRATION, registration.model_dump(mode="json") | {_REGISTERED_BY: known})

    def claim_key(self, make: str) -> str:
        """Return the key under which this site claims; ``make`` is kept if there was none.

        It is on disk before the first claim is sent: a site whose answer was lost can prove to be the same.
        """
        return self._kept_key(_CLAIM, "claim_key", make)

    def renewal_key(self, make: str) -> str:
        """Return the key under which this site asks for its next credential; ``make`` is kept if there was none.

        It is on disk before the first request is sent, as the claim key is.
        """
        return self._kept_key(_RENEWAL, "renewal_key", make)

    def _kept_key(self, name: str, field: str, make: str) -> str:
        # Another machine asked under that one: here it is none.
        with contextlib.suppress(OtherMachineError):
            document = self.read_document(name)
            if document and isinstance(document.get(field), str):
                return str(document[field])
        self.write_secret(name, {field: make})
        return make

    def save_renewed(self, registration: Registration) -> None:
        """Keep the registration with its next credential; the renewal key is of no use any more.

        The credential before is kept beside it: a centre restored from a backup knows that one and not the next.
        """
        registered_by = self.registered_by()
        with contextlib.suppress(NotFoundError):
            self.write_secret(_PREVIOUS, {"auth": self.registration().auth.model_dump(mode="json")})
        self._save_registration(registration, registered_by)
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
        with locked(self.folder / _LOCK, f"another replication is running in {self.folder}"):
            self._sweep()
            yield

    def locked_since(self) -> datetime | None:
        """Return since when the lock is held; None: nobody holds it."""
        return locked_since(self.folder / _LOCK)

    def credentials_lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold what registration, renewal and encryption change: one of them at a time.

        Raises:
            ConflictError: another process is at it.
        """
        return locked(self.folder / ".renewal.lock", f"another registration or renewal is under way in {self.folder}")

    def _sweep(self) -> None:
        """Remove what writers left behind that were killed; nobody else writes while the lock is held but reports."""
        for left in self.folder.glob(".*.json-*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                    left.unlink()

    def parsed(self, name: str, parse: Callable[[dict[str, Any] | None], T]) -> T:
        """Read one JSON file of the folder as a value; ``parse`` is given None if there is none.

        A file of ten thousand names takes a second to read, so a value is kept for as long as its file is the same.

        Raises:
            StorageError: it cannot be read, or is damaged.
        """
        path = self.folder / name
        mark = file_mark(path)
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
        """Read one JSON file of the folder, decrypted if it is encrypted; None if there is none.

        Raises:
            OtherMachineError: it is encrypted with the key of another machine.
            StorageError: it cannot be read, or is damaged.
        """
        document = read_json(self.folder / name)
        return None if document is None else self.secrets.opened(name, document)

    def write_document(self, name: str, document: Mapping[str, Any]) -> None:
        """Replace one JSON file of the folder, whole or not at all.

        Raises:
            StorageError: the disk is full, read-only or refuses.
        """
        path = self.folder / name
        make_folder(path.parent)
        write_atomically(path, json.dumps(document, separators=(",", ":")).encode())

    def read_secret(self, name: str) -> dict[str, Any] | None:
        """Read what ``write_secret`` wrote; as ``read_document``."""
        return self.read_document(name)

    def write_secret(self, name: str, document: Mapping[str, Any]) -> None:
        """Replace one JSON file that holds a secret: encrypted where the site encrypts; see ``SECRET_FILES``.

        Raises:
            InvalidInputError: this machine cannot encrypt, and shall.
            StorageError: the disk is full, read-only or refuses.
        """
        make_folder(self.folder)
        self.write_document(name, self.secrets.closed(name, document))


def _registered_by(document: Mapping[str, Any] | None) -> RegisteredBy:
    known = (document or {}).get(_REGISTERED_BY) or {}
    return RegisteredBy(str(known.get("url", "")), str(known.get("ca", "")), str(known.get("token_sha256", "")))
