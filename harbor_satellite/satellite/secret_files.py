"""The files of a satellite's folder that hold secrets: for their owner only, and encrypted where the site wants that.

Whether new ones are encrypted is on disk, in ``machine-key.json``: all processes of a site do the same. Either form is
read at any time, so a switch that was cut off half way loses nothing and is finished by the next start.
What must not live here: the cipher (``machine_key.py``), what the secrets mean.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from typing import TYPE_CHECKING, Any, Final

from harbor_satellite.errors import OtherMachineError, StorageError
from harbor_satellite.satellite.files import PRIVATE_FILE, PRIVATE_FOLDER, read_json, write_atomically
from harbor_satellite.satellite.machine_key import (
    SALT_BYTES,
    MachineIdentity,
    check_encryption,
    is_sealed,
    seal,
    unseal,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_KEY_FILE: Final = "machine-key.json"
SECRET_FILES: Final = (
    *("registration.json", "previous.json", "claim.json", "renewal.json"),
    *("registry/writer.json", "registry/external.json"),
)
"""Under the satellite's folder; the name is part of what an encrypted file is bound to."""
_OTHERS: Final = 0o077


class SecretFiles:
    """The secrets in one folder.

    Args:
        folder: the satellite's.
        identity: of this machine; for tests.
    """

    def __init__(self, folder: Path, identity: MachineIdentity | None = None) -> None:
        self._folder = folder
        self._identity = identity or MachineIdentity()

    def opened(self, name: str, document: dict[str, Any]) -> dict[str, Any]:
        """Return what a file says, decrypted if it is encrypted.

        Raises:
            OtherMachineError: the key is another machine's, or its salt is lost.
            StorageError: the file was changed.
            InvalidInputError: the package for encryption is not installed.
        """
        if not is_sealed(document):
            return document
        path = self._folder / name
        salt = self._salt()
        if salt is None:
            raise OtherMachineError(f"{path} is encrypted, and {self._folder / _KEY_FILE} with its salt is not there")
        try:
            content = json.loads(unseal(document, name, salt, self._identity))
        except OtherMachineError as error:
            raise OtherMachineError(f"{self._folder}: {error}") from error
        except StorageError as error:
            raise StorageError(f"{self._folder}: {error}") from error
        if not isinstance(content, dict):
            raise StorageError(f"{path} is damaged: not a JSON object")
        return content

    def closed(self, name: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what is to be written, encrypted if this site encrypts.

        Raises:
            InvalidInputError: nothing identifies this machine, or the package is not installed.
        """
        salt = self._salt() if self.is_encrypting() else None
        if salt is None:
            return document
        values = self._identity.values(self._folder.stat().st_uid)
        return seal(json.dumps(document, separators=(",", ":")).encode(), name, salt, values)

    def is_encrypting(self) -> bool:
        """Tell whether secrets are encrypted when they are written."""
        return (read_json(self._folder / _KEY_FILE) or {}).get("is_on") is True

    def protect(self, *, is_encrypted: bool) -> None:
        """See that nobody else may read the secrets, and that they are encrypted, or not, as the site wants it.

        The caller holds the lock of the credentials.

        Raises:
            InvalidInputError: nothing identifies this machine, or the package is not installed.
            StorageError: a file cannot be written.
        """
        if not self._folder.exists():
            return
        _tighten(self._folder.resolve(), PRIVATE_FOLDER)
        present = [name for name in SECRET_FILES if (self._folder / name).is_file()]
        for name in (*present, _KEY_FILE):
            _tighten(self._folder / name, PRIVATE_FILE)
        self.switch(is_encrypted=is_encrypted)
        for name in present:
            self._convert(name, is_encrypted=is_encrypted)

    def switch(self, *, is_encrypted: bool) -> None:
        """Encrypt, or do not, what is written from now on.

        Raises:
            InvalidInputError: nothing identifies this machine, or the package is not installed.
            StorageError: the key's file cannot be written.
        """
        if is_encrypted == self.is_encrypting():
            return
        salt = self._salt() or os.urandom(SALT_BYTES)
        if is_encrypted:
            check_encryption()
            seal(b"", "", salt, self._identity.values(self._folder.stat().st_uid))  # can this machine?
        # The salt stays when encryption is switched off: a file that is still encrypted needs it.
        document = {"salt": salt.hex(), "is_on": is_encrypted}
        write_atomically(self._folder / _KEY_FILE, json.dumps(document).encode())
        _LOG.info("credentials on disk encrypted=%s folder=%s", is_encrypted, self._folder)

    def _convert(self, name: str, *, is_encrypted: bool) -> None:
        path = self._folder / name
        try:
            document = read_json(path)
            if document is None or is_sealed(document) == is_encrypted:
                return
            content = self.closed(name, self.opened(name, document))
        except StorageError as error:  # whoever needs it will say so again; the others are worth protecting
            _LOG.warning("not converted: %s", error)
            return
        known_at = path.stat()
        write_atomically(path, json.dumps(content, separators=(",", ":")).encode())
        # When the credential came is told by the file's time.
        os.utime(path, ns=(known_at.st_atime_ns, known_at.st_mtime_ns))

    def _salt(self) -> bytes | None:
        document = read_json(self._folder / _KEY_FILE)
        try:
            return bytes.fromhex(document["salt"]) if document else None
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{self._folder / _KEY_FILE} is damaged: no salt in it") from error


def _tighten(path: Path, mode: int) -> None:
    try:
        status = path.lstat()
        is_somewhere_else = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
        if stat.S_ISLNK(status.st_mode) or is_somewhere_else:  # root may be asked: not for what is somebody else's
            return
        found = stat.S_IMODE(status.st_mode)
        if found & _OTHERS:
            path.chmod(mode)
            _LOG.warning("others could read secrets path=%s mode=%04o now=%04o", path, found, mode)
    except FileNotFoundError:
        return
    except OSError as error:
        _LOG.warning("others may read secrets path=%s: %s", path, error.strerror)
