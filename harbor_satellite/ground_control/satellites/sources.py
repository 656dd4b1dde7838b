"""Where satellites pull from, as far as Ground Control must manage their credentials there.

Two kinds behind one protocol: Harbor makes robot accounts itself; for any other OCI registry Ground
Control makes the credential, and keeps an htpasswd file for a registry that reads one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

from harbor_satellite.errors import ConflictError, InvalidInputError, RemoteError
from harbor_satellite.ground_control.tokens import mint_token
from harbor_satellite.harbor import robots
from harbor_satellite.harbor.artifacts import delete_repository
from harbor_satellite.harbor.projects import ensure_private_project, project_exists
from harbor_satellite.registry import htpasswd
from harbor_satellite.state.names import STATE_PROJECT

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from pathlib import Path

    from pydantic import SecretStr

    from harbor_satellite.harbor.client import HarborClient

logger = logging.getLogger(__name__)

_CONFLICT: Final = 409
_NOT_FOUND: Final = 404
_USERNAME_LONGEST: Final = 128  # characters; what an htpasswd file of ours takes


@dataclass(frozen=True, slots=True)
class SourceCredential:
    """What a satellite is to log in with; the secret is handed over once and stored nowhere in clear."""

    account: str
    """The name that Ground Control chose; used for this credential only."""
    username: str
    """What to log in as; Harbor puts its prefix before the account: ``robot$edge-1``."""
    secret: SecretStr
    id: str | None
    """What the source calls it; None where it has no such thing."""
    expires_at: datetime | None
    projects: tuple[str, ...]
    """What it may pull from, sorted: those asked for that exist at the source."""


class Source(Protocol):
    """Manages the credentials of satellites at one source; every method may be repeated.

    An account is a name that is used for one credential only. A secret is never renewed: a new account is made, and
    the old one deleted when the new one has been used. That works for an administrator and for a robot alike.
    """

    @property
    def harbor(self) -> HarborClient | None:
        """The Harbor behind it; None for any other registry."""
        ...

    def check_name(self, account: str) -> None:
        """Raise ``InvalidInputError`` if no credential can be made by this account name."""
        ...

    def check(self) -> None:
        """Raise ``RemoteError`` if the source cannot be reached or is not well."""
        ...

    def create(self, account: str, projects: Collection[str]) -> SourceCredential:
        """Make a new credential by this account name.

        The caller has made sure that no credential in use has this name: one that an interrupted attempt left behind
        is deleted.

        Raises:
            ConflictError: the name is taken by an account that Ground Control did not make.
            RemoteError: the source cannot be reached, or refuses.
        """
        ...

    def set_projects(self, account: str, credential_id: str | None, projects: Collection[str]) -> tuple[str, ...]:
        """Let the credential pull from exactly these projects, and return those that exist; the secret stays.

        Raises:
            RemoteError: ``.status`` 403 where the source does not let us (make a new account), 404 if it is gone.
        """
        ...

    def delete(self, account: str, credential_id: str | None) -> None:
        """Take the credential away; one that is gone already is fine.

        Raises:
            RemoteError: the source cannot be reached, or refuses.
        """
        ...

    def delete_repository(self, repository: str) -> bool:
        """Delete a repository of states; one that is gone already is fine.

        Returns:
            Whether it was done; False where the caller must do it over the registry's own API.

        Raises:
            RemoteError: the source cannot be reached, or refuses.
        """
        ...


class HarborSource:
    """Robot accounts at a Harbor.

    Args:
        client: as an administrator, or as a robot that may manage robots (then the projects of a robot cannot be
            changed: Harbor allows no more).
        duration_days: how long a robot lives, counted from its creation.
    """

    def __init__(self, client: HarborClient, *, duration_days: int = 30) -> None:
        self.client = client
        self._duration_days = duration_days

    @property
    def harbor(self) -> HarborClient | None:
        """This Harbor."""
        return self.client

    def check_name(self, account: str) -> None:
        """Raise ``InvalidInputError`` if Harbor takes no robot of this name."""
        robots.check_robot_name(account)

    def check(self) -> None:
        """Raise ``RemoteError`` if Harbor cannot be reached or is not healthy."""
        self.client.check()

    def create(self, account: str, projects: Collection[str]) -> SourceCredential:
        """Make a robot of this name.

        Raises:
            ConflictError: a robot of this name is there that Ground Control did not make.
            RemoteError: Harbor cannot be reached, or refuses.
        """
        ensure_private_project(self.client, STATE_PROJECT)
        granted = self._existing(projects)
        try:
            return self._make(account, granted)
        except RemoteError as error:
            if error.status != _CONFLICT:
                raise
        left = robots.find_robot(self.client, account)
        if left is None or left.description != robots.DESCRIPTION:
            raise ConflictError(f"a robot account {account} is at {self.client.url} that Ground Control did not make")
        robots.delete_robot(self.client, str(left.id))
        logger.info("left-over robot account deleted account=%s", account)
        return self._make(account, granted)

    def set_projects(self, account: str, credential_id: str | None, projects: Collection[str]) -> tuple[str, ...]:
        """Let the robot pull from exactly these projects; see ``Source``."""
        robot = None if credential_id is None else robots.get_robot(self.client, credential_id)
        if robot is None or not robots.is_ours(robot, account):
            raise RemoteError(f"the robot account {account} is gone from {self.client.url}", status=_NOT_FOUND)
        granted = self._existing(projects)
        if robot.projects != granted:
            robots.set_robot_projects(self.client, robot, granted)
        return granted

    def delete(self, account: str, credential_id: str | None) -> None:
        """Delete the robot: by its id, or by its name if only that is known; if it is ours.

        A Harbor that was restored or set up anew gives the ids that it gave before to others.
        """
        if credential_id is not None:
            robot = robots.get_robot(self.client, credential_id)
            if robot is None:
                return
            if robots.is_ours(robot, account):
                robots.delete_robot(self.client, credential_id)
                return
            logger.warning("id is another robot's now id=%s account=%s is=%s", credential_id, account, robot.name)
        left = robots.find_robot(self.client, account)
        if left is not None and left.description == robots.DESCRIPTION:
            robots.delete_robot(self.client, str(left.id))

    def delete_repository(self, repository: str) -> bool:
        """Delete a repository of states over Harbor's own API; True."""
        project, _, rest = repository.partition("/")
        if project != STATE_PROJECT or not rest:
            raise InvalidInputError(f"not a repository of states: {repository!r}")
        delete_repository(self.client, project, rest)
        return True

    def _make(self, account: str, granted: tuple[str, ...]) -> SourceCredential:
        robot = robots.create_robot(self.client, account, granted, self._duration_days)
        return SourceCredential(account, robot.name, robot.secret, str(robot.id), robot.expires_at, granted)

    def _existing(self, projects: Collection[str]) -> tuple[str, ...]:
        # Harbor refuses the whole robot for one project that is not there; a group may well come before its project.
        wanted = sorted(set(projects))
        existing = tuple(name for name in wanted if project_exists(self.client, name))
        if len(existing) < len(wanted):
            logger.warning("projects are not there projects=%s", ",".join(sorted(set(wanted) - set(existing))))
        return existing


class OciSource:
    """Credentials for a registry that knows no robots and no projects.

    Args:
        htpasswd_path: the file to keep users in, one entry for each account; None where the registry asks
            Ground Control, or an operator brings the users in.
    """

    def __init__(self, htpasswd_path: Path | None = None) -> None:
        self._htpasswd_path = htpasswd_path
        self._lock = Lock()  # the file is read, changed and written as a whole

    @property
    def harbor(self) -> HarborClient | None:
        """None: it is no Harbor."""
        return None

    def check_name(self, account: str) -> None:
        """Raise ``InvalidInputError`` if the name makes too long a username for an htpasswd file."""
        if len(_username(account)) > _USERNAME_LONGEST:
            raise InvalidInputError(f"the name {account!r} is too long for this source")

    def check(self) -> None:
        """Nothing to ask: credentials are made here."""

    def create(self, account: str, projects: Collection[str]) -> SourceCredential:
        """Make a user ``satellite-ACCOUNT`` with a random secret."""
        username, secret = _username(account), mint_token()
        if self._htpasswd_path is not None:
            with self._lock:
                htpasswd.set_password(self._htpasswd_path, username, secret.get_secret_value(), is_random=True)
        return SourceCredential(account, username, secret, None, None, tuple(sorted(set(projects))))

    def set_projects(self, account: str, credential_id: str | None, projects: Collection[str]) -> tuple[str, ...]:
        """Take note only: an htpasswd file cannot say who may read what."""
        del account, credential_id
        return tuple(sorted(set(projects)))

    def delete(self, account: str, credential_id: str | None) -> None:
        """Take the user out of the file."""
        del credential_id
        if self._htpasswd_path is not None:
            with self._lock:
                htpasswd.remove_user(self._htpasswd_path, _username(account))

    def delete_repository(self, repository: str) -> bool:
        """Leave it to the caller; False."""
        del repository
        return False


def _username(account: str) -> str:
    return f"satellite-{account}"
