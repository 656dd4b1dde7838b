"""What every ``fleet`` command starts with: which Ground Control, as whom, and the login kept between commands."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from pydantic import SecretStr

from harbor_satellite.errors import InvalidInputError, StorageError
from harbor_satellite.fleet_client import GroundControlApi

if TYPE_CHECKING:
    import typer

_TOKEN_VARIABLE: Final = "HARBOR_SATELLITE_API_TOKEN"  # noqa: S105 - a name
_TOKEN_MAX_LENGTH: Final = 4096  # characters
_FILE: Final = "fleet.json"


@dataclass(frozen=True, slots=True)
class Connection:
    """How the command line says to reach Ground Control."""

    url: str
    token_file: Path | None
    ca: Path | None

    def where(self) -> str:
        """Return the URL of Ground Control: the one given, else that of the last login.

        Raises:
            InvalidInputError: there is neither.
        """
        url = (self.url or str(read_login().get("url", ""))).rstrip("/")
        if not url:
            raise InvalidInputError(
                "no Ground Control: give --ground-control or HARBOR_SATELLITE_GROUND_CONTROL_URL, or log in"
            )
        return url

    def open(self, token: SecretStr | None = None) -> GroundControlApi:
        """Open the API, as whoever the token says; None: the one given, or that of the login at this URL.

        Raises:
            InvalidInputError: no Ground Control is named, or the token's file cannot be read.
        """
        url = self.where()
        return GroundControlApi(url, token or self._token(url), verify=str(self.ca) if self.ca else True)

    def nobody(self) -> GroundControlApi:
        """Open the API as nobody, to log in."""
        return GroundControlApi(self.where(), verify=str(self.ca) if self.ca else True)

    def _token(self, url: str) -> SecretStr | None:
        if self.token_file:
            return read_token_file(self.token_file)
        if token := os.environ.get(_TOKEN_VARIABLE):
            return SecretStr(token.strip())
        login = read_login()
        # A login's token goes to where it came from, and nowhere else.
        return SecretStr(str(login["token"])) if login.get("url") == url and login.get("token") else None


def open_api(ctx: typer.Context) -> GroundControlApi:
    """Open the API for a command; see ``Connection.open``."""
    connection = ctx.obj
    if not isinstance(connection, Connection):
        raise TypeError("not a command of `fleet`")
    return connection.open()


def path_of(*parts: str | int) -> str:
    """Return a path of the API; names in it are quoted, whatever they are."""
    return "/api/" + "/".join(quote(str(part), safe="") for part in parts)


def read_token_file(path: Path) -> SecretStr:
    """Return the token that a file holds.

    Raises:
        InvalidInputError: it cannot be read, or holds none.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_TOKEN_MAX_LENGTH + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read a token from {path}: {type(error).__name__}") from error
    if not text or len(text) > _TOKEN_MAX_LENGTH or not text.isascii() or not text.isprintable():
        raise InvalidInputError(f"no token in {path}")
    return SecretStr(text)


def login_file() -> Path:
    """Return the file that keeps the login."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "harbor-satellite" / _FILE


def read_login() -> dict[str, Any]:
    """Return the login that is kept; empty: none.

    Raises:
        StorageError: the file cannot be read, or is damaged.
    """
    path = login_file()
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read the login in {path}: {type(error).__name__}") from error
    return document if isinstance(document, dict) else {}


def save_login(url: str, token: SecretStr) -> Path:
    """Keep a login, for this user alone; returns the file.

    Raises:
        StorageError: it cannot be written.
    """
    path = login_file()
    document = json.dumps({"url": url, "token": token.get_secret_value()})
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Never readable by others, not even for a moment.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(document)
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"cannot keep the login in {path}: {error.strerror}") from error
    return path


def forget_login() -> None:
    """Take the login away; none is fine."""
    login_file().unlink(missing_ok=True)
