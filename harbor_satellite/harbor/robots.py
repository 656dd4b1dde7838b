"""Harbor's robot accounts: make, find, grant projects to, delete.

System-level robots with exactly what a satellite needs: to pull from named projects, nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.harbor.client import filter_value
from harbor_satellite.harbor.documents import Document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harbor_satellite.harbor.client import HarborClient

DESCRIPTION: Final = "managed by ground-control should not edit"
"""The original's words: a robot that says so is Ground Control's, any other is left alone."""

_NAME: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_IN_NAME: Final = re.compile(r"[a-z0-9._-]")
_LATEST: Final = 253_402_300_799  # seconds; the end of the year 9999
_PULL: Final = (("repository", "read"), ("repository", "pull"), ("artifact", "read"))
_FOREVER: Final = -1
_SYSTEM: Final = "system"


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
    permissions: frozenset[tuple[str, str, str, str]] = frozenset()
    """Kind, namespace, resource, action of everything that it may do."""
    level: str = _SYSTEM


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
    answer = client.request("POST", "/robots", expected={201}, body=body)
    document = Document.of(answer.document, f"robot {name} at {client.url}")
    return NewRobot(
        id=document.id(),
        name=document.required("name"),
        secret=SecretStr(document.required("secret")),
        expires_at=_moment(document.number("expires_at")),
    )


def find_robot(client: HarborClient, name: str) -> Robot | None:
    """Find a system robot by its name without Harbor's prefix, whatever that prefix is.

    Where the prefix cannot be told from the name (it ends with a letter, say), only a single answer is believed.
    """
    found = [_robot(client, item) for item in client.items("/robots", {"q": f"name={filter_value(name)}"})]
    matching = [robot for robot in found if robot.level == _SYSTEM and robot.name.endswith(name)]
    # q is only a hint: Harbor answers with everything when it does not understand it.
    certain = [robot for robot in matching if _is_short_name(robot.name.removesuffix(name))]
    if certain:
        return min(certain, key=lambda robot: len(robot.name))
    return matching[0] if len(matching) == len(found) == 1 else None


def is_ours(robot: Robot, name: str) -> bool:
    """Tell whether a robot can be the one that Ground Control made by this name, whatever Harbor's prefix is."""
    return robot.description == DESCRIPTION and robot.level == _SYSTEM and robot.name.endswith(name)


def list_robots(client: HarborClient) -> Iterator[Robot]:
    """Give all robots of the system; not those of projects."""
    for item in client.items("/robots"):
        yield _robot(client, item)


def get_robot(client: HarborClient, robot_id: str) -> Robot | None:
    """Read a robot by its id; None if it is gone."""
    answer = client.request("GET", _path(robot_id), expected={200, 404})
    return None if answer.status == 404 else _robot(client, answer.document)  # noqa: PLR2004 - HTTP


def set_robot_projects(client: HarborClient, robot: Robot, projects: Iterable[str]) -> None:
    """Let a robot pull from exactly these projects; its secret stays as it is.

    Raises:
        RemoteError: ``.status`` 403 if the client is itself a robot (Harbor never lets robots do this).
    """
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


def _is_short_name(prefix: str) -> bool:
    # What stands before a name is the whole prefix if it cannot be the beginning of a longer name: ``robot$``.
    return not prefix or _IN_NAME.match(prefix[-1]) is None


def _robot(client: HarborClient, value: Any) -> Robot:
    document = Document.of(value, f"a robot at {client.url}")
    permissions = [
        (one.text("kind"), one.text("namespace"), access.text("resource"), access.text("action"))
        for one in document.objects("permissions")
        for access in one.objects("access")
    ]
    return Robot(
        id=document.id(),
        name=document.required("name"),
        description=document.text("description"),
        duration_days=document.number("duration") or _FOREVER,
        is_disabled=document.flag("disable"),  # false is left out of some answers
        expires_at=_moment(document.number("expires_at")),
        projects=tuple(sorted({namespace for kind, namespace, _, _ in permissions if kind == "project"})),
        permissions=frozenset(permissions),
        level=document.text("level") or _SYSTEM,
    )


def _moment(epoch_seconds: int) -> datetime | None:
    # -1 means that it never expires, 0 that Harbor left it out.
    if not 0 < epoch_seconds <= _LATEST:
        return None
    return datetime.fromtimestamp(epoch_seconds, UTC)
