"""Where satellites pull from, as far as Ground Control must manage their credentials there.

Two kinds behind one protocol: Harbor makes robot accounts itself; for any other OCI registry Ground
Control makes the credential, and keeps an htpasswd file for a registry that reads one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

from harbor_satellite.errors import ConflictError, InvalidInputError, RemoteError
from harbor_satellite.ground_control.tokens import mint_token
from harbor_satellite.harbor import robots
from harbor_satellite.registry import htpasswd
from harbor_satellite.state.names import STATE_PROJECT

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from pydantic import SecretStr

    from harbor_satellite.harbor.client import HarborClient

logger = logging.getLogger(__name__)

_CONFLICT: Final = 409
_FORBIDDEN: Final = 403
_USERNAME_LONGEST: Final = 128  # characters; what an htpasswd file of ours takes


@dataclass(frozen=True, slots=True)
class SourceCredential:
    """What a satellite is to log in with; the secret is handed over once and stored nowhere in clear."""

    username: str
    secret: SecretStr
    id: str | None
    """What the source calls it; None where it has no such thing."""
    expires_at: datetime | None
    projects: tuple[str, ...]
    """What it may pull from, sorted: those asked for that exist at the source."""


class Source(Protocol):
    """Manages the credentials of satellites at one source; every method may be repeated."""

    def check_name(self, satellite: str) -> None:
        """Raise ``InvalidInputError`` if no credential can be made for a satellite of this name."""
        ...

    def check(self) -> None:
        """Raise ``RemoteError`` if the source cannot be reached or is not well."""
        ...

    def create(self, satellite: str, projects: Collection[str]) -> SourceCredential:
        """Make the satellite's credential; one that an interrupted attempt left behind is taken over."""
        ...

    def rotate(self, satellite: str, credential_id: str | None, projects: Collection[str]) -> SourceCredential:
        """Make the satellite's credential anew: the old secret ends at once."""
        ...

    def set_projects(self, satellite: str, credential_id: str | None, projects: Collection[str]) -> tuple[str, ...]:
        """Let the credential pull from exactly these projects, and return those that exist; the secret stays."""
        ...

    def delete(self, satellite: str, credential_id: str | None) -> None:
        """Take the credential away; one that is gone already is fine."""
        ...


class HarborSource:
    """Robot accounts at a Harbor.

    Args:
        client: as an administrator, or as a robot that may manage robots (then secrets are renewed by
            deleting and making anew, and projects of a robot cannot be changed: Harbor allows no more).
        duration_days: how long a robot lives, counted from its creation.
    """

    def __init__(self, client: HarborClient, *, duration_days: int = 30) -> None:
        self._client = client
        self._duration_days = duration_days

    def check_name(self, satellite: str) -> None:
        """Raise ``InvalidInputError`` if Harbor takes no robot of this name."""
        robots.check_robot_name(satellite)

    def check(self) -> None:
        """Raise ``RemoteError`` if Harbor cannot be reached or is not healthy."""
        self._client.check()

    def create(self, satellite: str, projects: Collection[str]) -> SourceCredential:
        """Make the satellite's robot.

        Raises:
            ConflictError: a robot of this name is there that Ground Control did not make.
        """
        self._client.ensure_private_project(STATE_PROJECT)
        granted = self._existing(projects)
        try:
            return self._make(satellite, granted)
        except RemoteError as error:
            if error.status != _CONFLICT:
                raise
        left = robots.find_robot(self._client, satellite)
        if left is not None and left.description != robots.DESCRIPTION:
            raise ConflictError(f"a robot account {left.name} is there that Ground Control did not make")
        if left is not None:
            robots.delete_robot(self._client, str(left.id))
        return self._make(satellite, granted)

    def rotate(self, satellite: str, credential_id: str | None, projects: Collection[str]) -> SourceCredential:
        """Renew the robot's secret; make the robot anew if it is gone, has expired or may not be changed."""
        robot = None if credential_id is None else robots.get_robot(self._client, credential_id)
        if robot is None or robot.has_expired(datetime.now(UTC)):
            return self.create(satellite, projects)
        granted = self._existing(projects)
        try:
            if robot.projects != granted:
                robots.set_robot_projects(self._client, robot, granted)
            secret = robots.refresh_robot_secret(self._client, str(robot.id))
        except RemoteError as error:
            if error.status != _FORBIDDEN:
                raise
            return self.create(satellite, projects)  # we are a robot ourselves
        return SourceCredential(robot.name, secret, str(robot.id), robot.expires_at, granted)

    def set_projects(self, satellite: str, credential_id: str | None, projects: Collection[str]) -> tuple[str, ...]:
        """Let the robot pull from exactly these projects.

        Raises:
            RemoteError: the robot is gone (``.status`` 404), or Harbor cannot be reached or refuses.
        """
        robot = None if credential_id is None else robots.get_robot(self._client, credential_id)
        if robot is None:
            raise RemoteError(f"the robot account of satellite {satellite} is gone from {self._client.url}", status=404)
        granted = self._existing(projects)
        if robot.projects != granted:
            robots.set_robot_projects(self._client, robot, granted)
        return granted

    def delete(self, satellite: str, credential_id: str | None) -> None:
        """Delete the robot: by its id, or by its name if only that is known and it is ours."""
        if credential_id is not None:
            robots.delete_robot(self._client, credential_id)
            return
        left = robots.find_robot(self._client, satellite)
        if left is not None and left.description == robots.DESCRIPTION:
            robots.delete_robot(self._client, str(left.id))

    def _make(self, satellite: str, granted: tuple[str, ...]) -> SourceCredential:
        robot = robots.create_robot(self._client, satellite, granted, self._duration_days)
        return SourceCredential(robot.name, robot.secret, str(robot.id), robot.expires_at, granted)

    def _existing(self, projects: Collection[str]) -> tuple[str, ...]:
        # Harbor refuses the whole robot for one project that is not there; a group may well come before its project.
        wanted = sorted(set(projects))
        existing = tuple(name for name in wanted if self._client.project_exists(name))
        if len(existing) < len(wanted):
            logger.warning("projects are not there projects=%s", ",".join(set(wanted) - set(existing)))
        return existing


class OciSource:
    """Credentials for a registry that knows no robots and no projects.

    Args:
        htpasswd_path: the file to keep users in; None where the registry asks
            Ground Control, or an operator brings the users in.
    """

    def __init__(self, htpasswd_path: Path | None = None) -> None:
        self._htpasswd_path = htpasswd_path
        self._lock = Lock()  # the file is read, changed and written as a whole

    def check_name(self, satellite: str) -> None:
        """Raise ``InvalidInputError`` if the name makes too long a username for an htpasswd file."""
        if len(_username(satellite)) > _USERNAME_LONGEST:
            raise InvalidInputError(f"satellite name {satellite!r} is too long for this source")

    def check(self) -> None:
        """Nothing to ask: credentials are made here."""

    def create(self, satellite: str, projects: Collection[str]) -> SourceCredential:
        """Make a user ``satellite-NAME`` with a random secret."""
        username, secret = _username(satellite), mint_token()
        if self._htpasswd_path is not None:
            with self._lock:
                htpasswd.set_password(self._htpasswd_path, username, secret.get_secret_value(), is_random=True)
        return SourceCredential(username, secret, None, None, tuple(sorted(set(projects))))

    def rotate(self, satellite: str, credential_id: str | None, projects: Collection[str]) -> SourceCredential:
        """Give the user a new secret."""
        del credential_id
        return self.create(satellite, projects)

    def set_projects(self, satellite: str, credential_id: str | None, projects: Collection[str]) -> tuple[str, ...]:
        """Take note only: an htpasswd file cannot say who may read what."""
        del satellite, credential_id
        return tuple(sorted(set(projects)))

    def delete(self, satellite: str, credential_id: str | None) -> None:
        """Take the user out of the file."""
        del credential_id
        if self._htpasswd_path is not None:
            with self._lock:
                htpasswd.remove_user(self._htpasswd_path, _username(satellite))


def _username(satellite: str) -> str:
    return f"satellite-{satellite}"
