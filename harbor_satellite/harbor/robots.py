"""Harbor's robot accounts: make, find, renew the secret of, grant projects to, delete.

System-level robots with exactly what a satellite needs: to pull from named projects, nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from harbor_satellite.errors import InvalidInputError, UntrustedDataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harbor_satellite.harbor.client import HarborClient

DESCRIPTION: Final = "managed by ground-control should not edit"
"""The original's words: a robot that says so is Ground Control's, any other is left alone."""

_NAME: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_PULL: Final = (("repository", "read"), ("repository", "pull"), ("artifact", "read"))
_FOREVER: Final = -1


@dataclass(frozen=True, slots=True)
class Robot:
    """A robot account as Harbor holds it."""

    id: int
    name: str
    """With Harbor's prefix: ``robot$edge-1``; what the satellite logs in as."""
    description: str
    duration_days: int
    """Counted from its creation; -1 for ever."""
    is_disabled: bool
    expires_at: datetime | None
    projects: tuple[str, ...]
    """Sorted."""

    def has_expired(self, now: datetime) -> bool:
        """Tell whether Harbor refuses it; a new secret would not change that."""
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True)
class NewRobot:
    """A robot account just made; its secret is never shown again."""

    id: int
    name: str
    secret: SecretStr
    expires_at: datetime | None


def check_robot_name(name: str) -> None:
    """Refuse a name that Harbor would refuse; its rule is narrower than that for satellites.

    Raises:
        InvalidInputError: it would.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidInputError(f"Harbor takes no robot account of this name: {name!r} (no two separators together)")


def create_robot(client: HarborClient, name: str, projects: Iterable[str], duration_days: int) -> NewRobot:
    """Make a robot that may pull from projects; all of them must exist.

    Raises:
        RemoteError: unreachable or refused; ``.status`` is 409 if the name is taken.
    """
    body = {
        "name": name,
        "description": DESCRIPTION,
        "duration": duration_days,
        "disable": False,
        "level": "system",
        "permissions": _permissions(projects),
    }
    document = client.request("POST", "/robots", expected={201}, body=body).document
    try:
        return NewRobot(
            id=int(document["id"]),
            name=str(document["name"]),
            secret=_secret(document),
            expires_at=_moment(document.get("expires_at")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UntrustedDataError(f"robot {name} at {client.url}: the answer is not a robot with a secret") from error


def find_robot(client: HarborClient, name: str) -> Robot | None:
    """Find a system robot by its name without Harbor's prefix."""
    for item in client.items("/robots", {"q": f"name={name}"}):
        robot = _robot(client, item)
        # q is only a hint: Harbor answers with everything when it does not understand it.
        if robot.name.partition("$")[2] == name or robot.name == name:
            return robot
    return None


def get_robot(client: HarborClient, robot_id: str) -> Robot | None:
    """Read a robot by its id; None if it is gone."""
    answer = client.request("GET", _path(robot_id), expected={200, 404})
    return None if answer.status == 404 else _robot(client, answer.document)  # noqa: PLR2004 - HTTP


def refresh_robot_secret(client: HarborClient, robot_id: str) -> SecretStr:
    """Give a robot a new secret; the old one is dead at once, its expiry stays as it was.

    Raises:
        RemoteError: ``.status`` 403 if the client is itself a robot (Harbor never lets robots do this).
    """
    document = client.request("PATCH", _path(robot_id), expected={200}, body={}).document
    try:
        return _secret(document)
    except (KeyError, TypeError, ValueError) as error:
        raise UntrustedDataError(f"robot {robot_id} at {client.url}: the answer has no secret") from error


def set_robot_projects(client: HarborClient, robot: Robot, projects: Iterable[str]) -> None:
    """Let a robot pull from exactly these projects; its secret stays as it is."""
    body = {
        "id": robot.id,
        "name": robot.name,  # with the prefix: Harbor takes the short name for a change of name
        "description": robot.description,
        "duration": robot.duration_days,
        "disable": robot.is_disabled,
        "level": "system",
        "permissions": _permissions(projects),
    }
    client.request("PUT", _path(str(robot.id)), expected={200}, body=body)


def delete_robot(client: HarborClient, robot_id: str) -> None:
    """Delete a robot; one that is gone already is fine. Tokens it holds live on for up to 30 minutes."""
    client.request("DELETE", _path(robot_id), expected={200, 404})


def _permissions(projects: Iterable[str]) -> list[dict[str, object]]:
    access = [{"resource": resource, "action": action} for resource, action in _PULL]
    return [{"kind": "project", "namespace": name, "access": access} for name in sorted(set(projects))]


def _path(robot_id: str) -> str:
    if not (robot_id.isascii() and robot_id.isdigit()):
        raise InvalidInputError(f"not the id of a robot account: {robot_id[:40]!r}")
    return f"/robots/{robot_id}"


def _robot(client: HarborClient, document: Any) -> Robot:
    try:
        return Robot(
            id=int(document["id"]),
            name=str(document["name"]),
            description=str(document.get("description") or ""),
            duration_days=int(document.get("duration") or _FOREVER),
            is_disabled=document.get("disable") is True,  # false is left out of some answers
            expires_at=_moment(document.get("expires_at")),
            projects=tuple(
                sorted(
                    str(permission["namespace"])
                    for permission in document.get("permissions") or ()
                    if permission.get("kind") == "project"
                )
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UntrustedDataError(f"a robot at {client.url} does not parse: {error!r}") from error


def _secret(document: Any) -> SecretStr:
    secret = document["secret"]
    if not isinstance(secret, str) or not secret:
        raise ValueError("no secret")
    return SecretStr(secret)


def _moment(epoch_seconds: Any) -> datetime | None:
    # -1 means that it never expires, 0 that Harbor left it out.
    seconds = int(epoch_seconds or 0)
    return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None
