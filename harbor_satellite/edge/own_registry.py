"""Which registry serves at this site: what the settings ask for, what the agent found to be in use, and its writer.

One file, ``registry/current.json`` in the satellite's folder (0600), is the truth of what serves: the agent writes it
when it puts a registry to work, and everything else at the site goes by it. So a command reaches the registry that
runs, whatever a setting was changed to meanwhile, and content is not lost when the kind changes: see
``registry_switch``. What must not live here: how a registry is started (``registry_service``).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import shutil
import threading
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from harbor_satellite.edge.registry_root import KnownRoot
from harbor_satellite.errors import InvalidInputError, OtherMachineError, StorageError
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.htpasswd import HtpasswdAuthenticator, set_password
from harbor_satellite.registry.layout_files import storage_errors
from harbor_satellite.satellite.store import SatelliteStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harbor_satellite.settings import SatelliteSettings

FOLDER: Final = "registry"
"""In the satellite's folder: everything about the registry that the agent runs, its content too unless set."""
_CURRENT: Final = "current.json"
# Of the satellite's folder, which secrets are encrypted for.
_WRITER: Final = "registry/writer.json"
_EXTERNAL: Final = "registry/external.json"
HTPASSWD: Final = "htpasswd"
WRITER: Final = "satellite"
WATCHER: Final = "watchdog"
_SECRET_BYTES: Final = 32

CHANGING: Final = threading.Lock()
"""Held while the record of what serves, or the plan, is read and written: threads of the agent may do so at once."""
MANAGED: Final = ("zot", "embedded")
"""Kinds of registry that the agent itself runs."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where content lives: one root of a registry that the agent runs, or somebody else's registry."""

    kind: str
    """``zot``, ``embedded`` or ``external``."""
    root: str = ""
    """Of one that the agent runs."""
    url: str = ""
    """Of somebody else's."""

    @property
    def is_managed(self) -> bool:
        """Whether the agent runs it."""
        return self.kind in MANAGED


@dataclass(frozen=True, slots=True)
class Access:
    """How the site itself reaches a registry."""

    url: str
    credentials: Credentials | None = None
    ca: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """A root whose content was taken over by another."""

    root: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Current:
    """What serves at this site."""

    place: Place
    access: Access
    left: tuple[Left, ...] = ()
    """Roots that do not serve any more."""
    next: Place | None = None
    """Where the content is being copied to; it takes over when all of it is there."""
    next_port: int = 0
    """On which the next one listens meanwhile, at the loopback."""
    unreachable_since: datetime | None = None
    """Since when content could not be taken over because the registry that serves does not answer."""
    problem: str = ""
    """Why the registry could not be set up as the settings say; empty: it is."""
    known_root: KnownRoot | None = None
    """The root that served last, if it is on a disk of its own."""


def registry_folder(data_dir: Path) -> Path:
    """Return the folder of the registry that the agent runs."""
    return data_dir.absolute() / FOLDER


def load_current(data_dir: Path) -> Current | None:
    """Read what serves at this site; None before the agent ran first.

    Raises:
        StorageError: the file is damaged.
    """
    current = SatelliteStore(registry_folder(data_dir)).parsed(_CURRENT, _current)
    if current is None:
        return None
    # Its password is elsewhere: where it may be encrypted.
    credentials = _known(data_dir, _WRITER if current.place.is_managed else _EXTERNAL)
    return replace(current, access=replace(current.access, credentials=credentials))


def save_current(data_dir: Path, current: Current) -> None:
    """Keep what serves; nothing is written if it is the same.

    Raises:
        StorageError: the disk refuses.
    """
    if not current.place.is_managed:
        _keep_external(data_dir, current.access.credentials)
    store, document = SatelliteStore(registry_folder(data_dir)), _current_json(current)
    if store.read_document(_CURRENT) != document:
        store.write_document(_CURRENT, document)


def _keep_external(data_dir: Path, credentials: Credentials | None) -> None:
    """Keep how this site logs in to somebody else's registry: the settings may name another one by the next run."""
    if credentials == _known(data_dir, _EXTERNAL):
        return
    if credentials:
        SatelliteStore(data_dir).write_secret(_EXTERNAL, _user_json(credentials))
    else:
        with storage_errors(data_dir, "forgetting a log-in"):
            (data_dir / _EXTERNAL).unlink(missing_ok=True)


def wanted_place(settings: SatelliteSettings, current: Current | None) -> Place:
    """Return where the settings want content to live; ``auto`` never flips between the kinds that the agent runs.

    Raises:
        InvalidInputError: Zot holds the content and is not to be found any more, or nobody said which other registry.
    """
    kind = settings.registry_kind
    if kind == "external":
        place = Place(kind, url=settings.local_registry_url)
        if current and current.place != place and "local_registry_url" not in settings.model_fields_set:
            raise InvalidInputError(
                "an external registry is asked for, and only the site can say which: set "
                "HARBOR_SATELLITE_LOCAL_REGISTRY_URL there"
            )
        return place
    has_zot = shutil.which(settings.zot) is not None
    if kind == "auto":
        in_use = current.place.kind if current and current.place.is_managed else ""
        if in_use == "zot" and not has_zot:
            raise InvalidInputError(
                f"this site's images are in Zot, and there is no program {settings.zot!r} any more: install it, "
                "or set HARBOR_SATELLITE_REGISTRY_KIND=embedded to have them taken over"
            )
        kind = in_use or ("zot" if has_zot else "embedded")  # type: ignore[assignment]  # one of the kinds
    root = settings.registry_root or registry_folder(settings.data_dir) / kind
    return Place(kind, root=str(root.absolute()))


def writer(data_dir: Path) -> Credentials:
    """Return who may write to the registry that the agent runs; made once, and put among its users again if missing.

    Raises:
        StorageError: the files cannot be read or written.
    """
    credentials = known_writer(data_dir)
    if credentials is None:
        credentials = Credentials(WRITER, SecretStr(secrets.token_urlsafe(_SECRET_BYTES)))
        SatelliteStore(data_dir).write_secret(_WRITER, _user_json(credentials))
    return _user(data_dir, credentials)


def watcher(data_dir: Path) -> Credentials:
    """Return who may only read from the registry that the agent runs: always the same one, without a file of its own.

    Raises:
        StorageError: the files cannot be read or written.
    """
    secret = writer(data_dir).password.get_secret_value()
    password = hmac.new(secret.encode(), WATCHER.encode(), hashlib.sha256).hexdigest()  # from which none leads back
    return _user(data_dir, Credentials(WATCHER, SecretStr(password)))


def _user(data_dir: Path, credentials: Credentials) -> Credentials:
    """Return a user of the registry that the agent runs, who is one from here on."""
    htpasswd, password = registry_folder(data_dir) / HTPASSWD, credentials.password.get_secret_value()
    if not htpasswd.exists() or not HtpasswdAuthenticator(htpasswd).verify(credentials.username, password):
        set_password(htpasswd, credentials.username, password, is_random=True)
    return credentials


def known_writer(data_dir: Path) -> Credentials | None:
    """Return who may write to the registry that the agent runs; None if there is nobody yet.

    Raises:
        StorageError: the file cannot be read.
    """
    return _known(data_dir, _WRITER)


def _known(data_dir: Path, name: str) -> Credentials | None:
    try:
        document = SatelliteStore(data_dir).read_secret(name)
    except OtherMachineError:
        return None  # the disk was moved: a new one does as well, or the settings say it again
    if document is None:
        return None
    try:
        return Credentials(str(document["username"]), SecretStr(str(document["password"])))
    except KeyError:
        raise StorageError(f"{data_dir / name} is damaged: remove it, and it is made anew") from None


def _user_json(credentials: Credentials) -> dict[str, str]:
    return {"username": credentials.username, "password": credentials.password.get_secret_value()}


def with_access(settings: SatelliteSettings, access: Access) -> SatelliteSettings:
    """Return the settings with URL, user and CA of the site's registry."""
    credentials = access.credentials
    return settings.model_copy(
        update={
            "local_registry_url": access.url,
            "local_registry_username": credentials.username if credentials else "",
            "local_registry_password": credentials.password if credentials else SecretStr(""),
            "local_registry_ca": Path(access.ca) if access.ca else None,
        }
    )


def access_of(settings: SatelliteSettings) -> Access:
    """Return how the settings say that the site's registry is reached."""
    username = settings.local_registry_username
    credentials = Credentials(username, settings.local_registry_password) if username else None
    return Access(settings.local_registry_url, credentials, str(settings.local_registry_ca or ""))


def _current(document: Mapping[str, Any] | None) -> Current | None:
    if document is None:
        return None
    place, access, following = document["place"], document["access"], document["next"]
    since, known = document["unreachable_since"], document.get("known_root")
    return Current(
        place=Place(**place),
        access=Access(access["url"], None, access["ca"]),
        left=tuple(Left(item["root"], datetime.fromisoformat(item["at"])) for item in document["left"]),
        next=Place(**following) if following else None,
        next_port=int(document["next_port"]),
        unreachable_since=datetime.fromisoformat(since) if since else None,
        problem=str(document["problem"]),
        known_root=KnownRoot(**known) if known else None,
    )


def _current_json(current: Current) -> dict[str, Any]:
    def place(one: Place | None) -> dict[str, str] | None:
        return {"kind": one.kind, "root": one.root, "url": one.url} if one else None

    since = current.unreachable_since
    return {
        "place": place(current.place),
        "access": {"url": current.access.url, "ca": current.access.ca},
        "left": [{"root": left.root, "at": left.at.isoformat()} for left in current.left],
        "next": place(current.next),
        "next_port": current.next_port,
        "unreachable_since": since.isoformat() if since else None,
        "problem": current.problem,
        "known_root": asdict(current.known_root) if current.known_root else None,
    }
