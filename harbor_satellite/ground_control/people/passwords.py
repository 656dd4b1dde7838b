"""People's passwords: policy, argon2id, verification. No database here."""

from __future__ import annotations

from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import SecretStr

_SHORTEST: Final = 8  # characters
_LONGEST: Final = 128  # characters
_RULE: Final = "8 to 128 characters with an upper-case letter, a lower-case letter and a digit"

_hasher: Final = PasswordHasher()  # the library's defaults: argon2id, RFC 9106's low-memory profile
# 64 MiB each: forty threads hashing at once would take the machine's memory.
_slots: Final = BoundedSemaphore(2)
_SLOT_SECONDS: Final = 5.0
_NOBODY: Final = _hasher.hash("nobody has this password")


def check_password(password: SecretStr) -> None:
    """Refuse a password that breaks the policy.

    Raises:
        InvalidInputError: it does; the message names the rule, never the password.
    """
    clear = password.get_secret_value()
    kinds = (str.isupper, str.islower, str.isdigit)
    if not _SHORTEST <= len(clear) <= _LONGEST or not all(any(map(kind, clear)) for kind in kinds):
        raise InvalidInputError(f"password must have {_RULE}")


def hash_password(password: SecretStr) -> str:
    """Return the argon2id hash of a password, with its salt and parameters."""
    with _slot():
        return _hasher.hash(_bytes(password))


def verify_password(password: SecretStr, stored_hash: str | None) -> bool:
    """Tell whether a password is the stored one; as slow for a user that does not exist (None)."""
    if len(password.get_secret_value()) > _LONGEST:
        return False
    with _slot():
        try:
            return _hasher.verify(stored_hash or _NOBODY, _bytes(password)) and stored_hash is not None
        except (VerificationError, InvalidHashError):
            return False


def needs_rehash(stored_hash: str) -> bool:
    """Tell whether a hash was made with other parameters than today's."""
    try:
        return _hasher.check_needs_rehash(stored_hash)
    except InvalidHashError:
        return False


@contextmanager
def _slot() -> Iterator[None]:
    """Wait for a turn at hashing, but not so long that guesses of passwords take every thread of the API."""
    if not _slots.acquire(timeout=_SLOT_SECONDS):
        raise HarborSatelliteError("too many passwords are being checked at once; try again")
    try:
        yield
    finally:
        _slots.release()


def _bytes(password: SecretStr) -> bytes:
    return password.get_secret_value().encode(errors="surrogatepass")
