"""The file that is dropped on a disk image: where to register, and the one-time token; removed after use.

What must not live here: when it is used (``edge/registration_attempt.py``).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.inputs import refuse_user
from harbor_satellite.satellite.files import PRIVATE_FILE, make_folder, write_atomically

_LOG = logging.getLogger(__name__)
_MAX_BYTES: Final = 64 * 1024
TOKEN_MAX_LENGTH: Final = 4096
_PEM: Final = "-----BEGIN CERTIFICATE-----"
_ADVICE: Final = "a site needs no more than its one-time token"
_NOT_OURS: Final = ": chown {user} {path}, or run `harbor-satellite edge register` as root"


class RegistrationFile(BaseModel):
    """What it says."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    ground_control_url: Annotated[str, Field(pattern=r"^https?://[^\s/]+", max_length=1024)]
    token: SecretStr
    ca: Annotated[str, Field(max_length=_MAX_BYTES)] = ""
    """CA bundle of the centre: an absolute path, or the certificates themselves (PEM); empty: the system's."""


@dataclass(frozen=True, slots=True)
class TokenSource:
    """A one-time token, and what is said beside it."""

    token: SecretStr
    place: str
    """Where it comes from, for messages."""
    ground_control_url: str = ""
    ca: str = ""
    """As in ``RegistrationFile``."""
    file: Path | None = None
    """To be removed once the token is used."""

    @property
    def digest(self) -> str:
        """What the token is known by once it is used; it is random and long, so nobody finds it from that."""
        return hashlib.sha256(self.token.get_secret_value().encode()).hexdigest()


def token_source(token: SecretStr, place: str) -> TokenSource:
    """Return a source that says no more than the token.

    Raises:
        InvalidInputError: it is none; the message names where it came from.
    """
    return TokenSource(_checked(token, place), place)


def dropped_source(path: Path) -> TokenSource | None:
    """Return what the file gives; see ``read_registration_file``."""
    found = read_registration_file(path)
    if found is None:
        return None
    return TokenSource(found.token, str(path), found.ground_control_url, found.ca, path)


def read_registration_file(path: Path) -> RegistrationFile | None:
    """Read the file; None if there is none, or it was emptied after use.

    Raises:
        InvalidInputError: it cannot be read, or something in it is wrong; the message names the field, never the token.
    """
    content = _read(path)
    if not content.strip(b"\0 \t\r\n"):
        return None
    try:
        found = RegistrationFile.model_validate_json(content)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        named = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'the file'}: {_reason(one['type'])}" for one in problems)
        raise InvalidInputError(f"{path} is no registration file: {named}") from None  # it holds a token
    refuse_user(found.ground_control_url, f"{path}: ground_control_url", _ADVICE)
    _checked(found.token, f"{path}: token")
    if found.ca and not found.ca.startswith(("/", _PEM)):
        raise InvalidInputError(f"{path}: ca is neither an absolute path nor certificates (PEM)")
    return found


def warn_if_readable(path: Path) -> None:
    """Say so if others than the owner can read the file."""
    with contextlib.suppress(OSError):
        if (mode := stat.S_IMODE(path.stat().st_mode)) & stat.S_IROTH:
            _LOG.warning("the one-time token can be read by all path=%s mode=%04o", path, mode)


def keep_ca(ca: str, folder: Path) -> Path | None:
    """Return the CA bundle as a file: the one it names, or one in the satellite's folder that holds the certificates.

    Raises:
        StorageError: it cannot be written.
    """
    if not ca.startswith(_PEM):
        return Path(ca) if ca else None
    # By its content: another registration's stays as it is until that one takes over.
    path = folder / f"ca-{hashlib.sha256(ca.encode()).hexdigest()[:16]}.pem"
    make_folder(folder)
    write_atomically(path, ca.encode(), PRIVATE_FILE)
    return path


def remove_registration_file(path: Path) -> bool:
    """Overwrite the file and remove it; where that is not possible the token in it is spent all the same.

    Returns:
        Whether nothing of it is left.
    """
    try:
        # Not through a link: whatever that leads to belongs to somebody else.
        handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        with os.fdopen(handle, "wb") as file:
            file.write(bytes(os.fstat(handle).st_size))
            file.flush()
            os.fsync(handle)
            file.truncate(0)  # an empty one is none, if its folder does not let it go
        path.unlink()
    except FileNotFoundError:
        return True
    except OSError as error:
        _LOG.warning("registration file stays, its token is spent path=%s: %s", path, error.strerror)
        return False
    _LOG.info("removed the registration file path=%s", path)
    return True


def _checked(token: SecretStr, what: str) -> SecretStr:
    text = token.get_secret_value()
    if not text or len(text) > TOKEN_MAX_LENGTH or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidInputError(f"{what} is no one-time token: it is empty, too long, or has odd characters in it")
    return token


def _read(path: Path) -> bytes:
    try:
        # A pipe in its place must not hold up the agent. Not `fdopen`, which leaves a folder open.
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInputError(f"{path} is no regular file")
            content = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        advice = _NOT_OURS.format(path=path, user=os.geteuid()) if isinstance(error, PermissionError) else ""
        raise InvalidInputError(f"cannot read {path} as user {os.geteuid()}: {error.strerror}{advice}") from error
    if len(content) > _MAX_BYTES:
        raise InvalidInputError(f"{path} is no registration file: it has more than {_MAX_BYTES} bytes")
    return content


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _reason(kind: str) -> str:
    """Say what is wrong with a field; pydantic's own words may show what was given."""
    return {
        "missing": "is missing",
        "extra_forbidden": "is not known here",
        "string_type": "is no text",
        "json_invalid": "is no JSON",
        "string_too_long": "is too long",
        "string_pattern_mismatch": "is no http:// or https:// address",
    }.get(kind, "is wrong")
