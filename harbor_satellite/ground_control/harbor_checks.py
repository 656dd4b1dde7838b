"""What Ground Control needs of a Harbor: that it answers, takes our credentials, and lets us do each thing we do there.

Nothing is changed. A robot's rights are read from its own account; where it may not read that, what can be asked for
without side effects is asked for, and the rest is said to be unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError, RemoteError
from harbor_satellite.ground_control.checks import Check, Outcome, check_skew
from harbor_satellite.harbor import projects, robots, system
from harbor_satellite.state.names import STATE_PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from harbor_satellite.harbor.client import HarborClient
    from harbor_satellite.harbor.robots import Robot

_SOURCE_VARIABLES: Final = "HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_USERNAME and …_PASSWORD"
_REFUSED: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Need:
    """Rights that go together."""

    resource: str
    actions: tuple[str, ...]
    is_system: bool
    """Of the whole Harbor (kind ``system``), or of every project (kind ``project``, namespace ``*``)."""
    reason: str
    is_required: bool = True
    """Else only a feature is lost."""


NEEDS: Final = (
    Need("robot", ("create", "read", "list", "delete"), is_system=True, reason="a robot account for each satellite"),
    Need(
        "project", ("list", "create"), is_system=True, reason=f"the project {STATE_PROJECT}, and which others are there"
    ),
    Need("project", ("read",), is_system=False, reason=f"to see that the project {STATE_PROJECT} is private"),
    # Harbor lets a robot grant only what it holds itself: these are the satellites', too.
    Need("repository", ("read", "pull"), is_system=False, reason="to resolve images, and to let satellites pull them"),
    Need("artifact", ("read",), is_system=False, reason="to let satellites pull them"),
    Need("repository", ("push",), is_system=False, reason="to publish states"),
    Need("repository", ("list", "delete"), is_system=False, reason="selectors; states of satellites that are gone"),
    Need("artifact", ("list", "create", "delete"), is_system=False, reason="selectors; publishing and tidying states"),
    Need("tag", ("create", "list"), is_system=False, reason="publishing states; selectors"),
    Need(
        "notification-policy",
        ("create", "list", "delete"),
        is_system=False,
        reason="to set up webhooks",
        is_required=False,
    ),
    Need(
        "registry",
        ("create", "list", "update", "delete"),
        is_system=True,
        reason="to set up replication rules",
        is_required=False,
    ),
    Need(
        "replication-policy",
        ("create", "list", "update", "delete"),
        is_system=True,
        reason="to set up replication rules",
        is_required=False,
    ),
)
"""What a robot as Ground Control needs; an administrator may do all of it."""

_PROBES: Final = {
    ("robot", "list"): "/robots",
    ("project", "list"): "/projects",
    ("registry", "list"): "/registries",
    ("replication-policy", "list"): "/replication/policies",
}
"""What can be asked for without a side effect."""


def check_harbor(client: HarborClient, username: str, clock: Callable[[], datetime]) -> list[Check]:
    """Look at everything that Ground Control needs of a Harbor.

    Args:
        client: as Ground Control.
        username: of the client: a robot finds its own account by it.
        clock: gives the time here.

    Returns:
        What was found; it ends with the first failure that leaves nothing else to ask.
    """
    try:
        client.check()
        info = system.system_info(client)
    except HarborSatelliteError as error:
        advice = "check HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_URL and …_CA, and that Harbor's parts all run"
        return [Check("harbor", Outcome.MISSING, str(error)[:300], advice)]
    now = clock()
    found = [
        Check("harbor", Outcome.OK, f"{client.url} is healthy {info.version}".rstrip()),
        check_skew("harbor clock", info.current_time, now, "Harbor"),
    ]
    if info.is_read_only:
        found.append(Check("harbor mode", Outcome.MISSING, "Harbor is read-only", "end its read-only mode"))
    try:
        return found + _credentials(client, username)
    except HarborSatelliteError as error:
        return [*found, Check("harbor", Outcome.MISSING, str(error)[:300], "look at Harbor's own log for this time")]


def _credentials(client: HarborClient, username: str) -> list[Check]:
    name = "harbor credentials"
    try:
        user = system.current_user(client)
    except RemoteError as error:
        if error.status not in _REFUSED:
            raise
        detail = f"Harbor does not take {username!r}: wrong, expired or disabled"
        return [Check(name, Outcome.MISSING, detail, f"set {_SOURCE_VARIABLES}")]
    if user.is_robot:
        found = _robot(client, username)
    elif user.is_admin:
        found = [Check(name, Outcome.OK, f"{user.username} is an administrator: everything is allowed")]
    else:
        detail = f"{user.username} is a user, neither an administrator nor a robot"
        return [Check(name, Outcome.MISSING, detail, f"set {_SOURCE_VARIABLES} to an administrator's or a robot's")]
    return [*found, _state_project(client)]


def _robot(client: HarborClient, username: str) -> list[Check]:
    credentials = Check("harbor credentials", Outcome.OK, f"{username} is a robot")
    own = _own_account(client, username)
    if own is None:
        unknown = Check(
            "harbor permissions",
            Outcome.WARNING,
            "this robot may not read its own account: what it may do was only tried as far as that changes nothing",
            "grant it robot read and list, or compare its rights with the documentation",
        )
        return [credentials, unknown, *_probes(client)]
    if own.expires_at is not None:
        day = own.expires_at.date().isoformat()
        advice = "give it no expiry: a robot cannot renew itself"
        return [Check("harbor credentials", Outcome.WARNING, f"{username} expires on {day}", advice), *_rights(own)]
    return [credentials, *_rights(own)]


def _own_account(client: HarborClient, username: str) -> Robot | None:
    try:
        return next((robot for robot in robots.list_robots(client) if robot.name == username), None)
    except RemoteError as error:
        if error.status in _REFUSED:
            return None
        raise


def _rights(own: Robot) -> Iterable[Check]:
    for need in NEEDS:
        kind, namespace = ("system", "/") if need.is_system else ("project", "*")
        missing = [action for action in need.actions if (kind, namespace, need.resource, action) not in own.permissions]
        yield _verdict(need, missing)


def _probes(client: HarborClient) -> Iterable[Check]:
    for need in NEEDS:
        for action in need.actions:
            path = _PROBES.get((need.resource, action)) if need.is_system else None
            if path is None:
                continue
            try:
                client.request("GET", path, expected={200}, params={"page": 1, "page_size": 1})
            except RemoteError as error:
                if error.status not in _REFUSED:
                    raise
                yield _verdict(need, [action])


def _verdict(need: Need, missing: list[str]) -> Check:
    name = f"harbor permission {need.resource}"
    if not missing:
        return Check(name, Outcome.OK, ", ".join(need.actions))
    where = "system" if need.is_system else "every project (namespace *)"
    detail = f"{', '.join(missing)} is not granted for {where}: needed for {need.reason}"
    advice = f"grant the robot {need.resource} {', '.join(missing)} for {where}"
    return Check(name, Outcome.MISSING if need.is_required else Outcome.WARNING, detail, advice)


def _state_project(client: HarborClient) -> Check:
    name = f"project {STATE_PROJECT}"
    found = next(projects.list_projects(client, name=STATE_PROJECT), None)
    if found is None:
        advice = "it is made, private, with the first satellite; or make it now"
        return Check(name, Outcome.WARNING, "not there yet", advice)
    if found.is_public:
        detail = "it is public: anybody reads every satellite's state without credentials"
        return Check(name, Outcome.MISSING, detail, "make it private in Harbor")
    return Check(name, Outcome.OK, "there, and private")
