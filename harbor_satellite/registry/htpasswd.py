"""htpasswd files with bcrypt: who may write to a registry. Reading, verifying and rewriting such a file.

The same file serves Zot, CNCF distribution and the embedded registry.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import bcrypt

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.registry.layout_files import make_directory, storage_errors, write_durably

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_log: Final = logging.getLogger(__name__)
_PASSWORD_MAX_BYTES: Final = 72  # bytes; bcrypt looks at no more
_ROUNDS: Final = 10  # 60 ms a check
_ROUNDS_RANDOM: Final = 4  # the least that bcrypt knows
_USERNAME: Final = re.compile(r"[^\s:#][^\s:]{0,127}")
_HASH: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")


class HtpasswdAuthenticator:
    """Verifies names and passwords against a file, which may be replaced at any time.

    Args:
        path: the file; while it is missing or unreadable, nobody is let in.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._key: Final = secrets.token_bytes(32)
        self._mutex: Final = threading.Lock()
        self._signature: tuple[int, ...] = (-1,)
        self._hashes: dict[str, bytes] = {}
        self._verified: dict[str, bytes] = {}
        self._decoy = b""

    def verify(self, username: str, password: str) -> bool:
        """Tell whether the password is this user's; takes as long for a user that does not exist."""
        secret = password.encode()
        seal = hmac.digest(self._key, secret, hashlib.sha256)
        with self._mutex:
            self._reload()
            expected = self._hashes.get(username, self._decoy)
            if hmac.compare_digest(self._verified.get(username, b""), seal):
                return True
        fits = len(secret) <= _PASSWORD_MAX_BYTES
        is_right = bcrypt.checkpw(secret[:_PASSWORD_MAX_BYTES], expected) and fits and expected is not self._decoy
        with self._mutex:
            # The file may have changed during the check: only what it says now is remembered.
            if is_right and self._hashes.get(username) == expected:
                self._verified[username] = seal
        return is_right

    def _reload(self) -> None:
        try:
            signature = _signature(self._path)
            if signature == self._signature:
                return
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            signature, text = (), ""
            if signature != self._signature:
                _log.warning("nobody can log in, password file unreadable path=%s reason=%s", self._path, error)
        self._signature = signature
        self._hashes = _parse(text, self._path)
        self._verified = {}
        self._decoy = _decoy(self._hashes)


def set_password(path: Path, username: str, password: str, *, is_random: bool = False) -> None:
    """Add a user to a htpasswd file, or change the user's password; creates the file with mode 0600.

    Args:
        path: the file.
        username: the user.
        password: in clear; only its bcrypt hash is kept.
        is_random: made by a machine from at least 128 random bits. Nobody can guess that, so the hash may be
            cheap: Zot and others compute one for every request.

    Raises:
        InvalidInputError: the name or the password cannot be in such a file.
        StorageError: the file cannot be written.
    """
    if _USERNAME.fullmatch(username) is None:
        raise InvalidInputError(f"not a user name for a htpasswd file: {username[:140]!r}")
    secret = password.encode()
    if not 0 < len(secret) <= _PASSWORD_MAX_BYTES or b"\0" in secret:
        raise InvalidInputError(f"the password of {username} must have 1 to {_PASSWORD_MAX_BYTES} bytes and no NUL")
    # Apache's own name for the same algorithm; every registry reads it.
    hashed = (
        bcrypt.hashpw(secret, bcrypt.gensalt(_ROUNDS_RANDOM if is_random else _ROUNDS))
        .decode()
        .replace("$2b$", "$2y$", 1)
    )
    with _rewriting(path) as lines:
        lines[:] = [*(line for line in lines if not line.startswith(f"{username}:")), f"{username}:{hashed}"]


def remove_user(path: Path, username: str) -> bool:
    """Remove a user from a htpasswd file; False if there was none.

    Raises:
        StorageError: the file cannot be written.
    """
    with _rewriting(path) as lines:
        before = len(lines)
        lines[:] = [line for line in lines if not line.startswith(f"{username}:")]
        return len(lines) != before


@contextmanager
def _rewriting(path: Path) -> Iterator[list[str]]:
    with storage_errors(path, "changing a password file"):
        make_directory(path.parent)
        # The lock is a file of its own: the password file itself is replaced, and a lock on it with it.
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            before = list(lines)
            yield lines
            if lines != before:
                content = "".join(f"{line}\n" for line in lines).encode()
                write_durably(path, content, staging=path.parent, mode=0o600)
        finally:
            os.close(lock)


def _signature(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def _parse(text: str, path: Path) -> dict[str, bytes]:
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        username, _, hashed = entry.partition(":")
        if _HASH.fullmatch(hashed):
            hashes[username] = hashed.encode()
        else:
            _log.warning("password entry ignored, not bcrypt path=%s line=%d", path, number)
    return hashes


def _decoy(hashes: dict[str, bytes]) -> bytes:
    """Make a hash that nothing matches and that costs what the real ones cost."""
    cost = max((hashed[4:6] for hashed in hashes.values()), default=b"%02d" % _ROUNDS)
    return b"$2b$" + cost + b"$" + b"." * 53
