"""The state behind the fake Harbor: projects, robots, and who may do what."""

from __future__ import annotations

import re
import secrets
from base64 import b64decode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

ADMIN = ("admin", "Harbor12345")
ROBOT_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
GRANTABLE = {
    *(("repository", action) for action in ("read", "pull", "push", "list", "delete")),
    *(("artifact", action) for action in ("read", "list", "create", "delete")),
    *(("robot", action) for action in ("create", "read", "list", "delete")),
    *(("project", action) for action in ("list", "create", "read")),
    *(("tag", action) for action in ("create", "list", "delete")),
    *(("label", action) for action in ("create", "read", "list", "delete")),
    *(("notification-policy", action) for action in ("create", "read", "list", "delete", "update")),
    *(("artifact-label", action) for action in ("create", "delete")),
    *(("registry", action) for action in ("create", "read", "list", "delete", "update")),
    *(("replication-policy", action) for action in ("create", "read", "list", "delete", "update")),
    *(("replication", action) for action in ("create", "read", "list")),
}


class Refused(Exception):  # noqa: N818 - not an error of the fake
    """What Harbor answers instead."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class FakeRobot:
    id: int
    name: str  # without prefix
    secret: str
    duration: int
    description: str
    permissions: list[dict[str, Any]]
    created: datetime
    disable: bool = False

    @property
    def expires_at(self) -> int:
        return -1 if self.duration < 0 else int((self.created + timedelta(days=self.duration)).timestamp())

    def holds(self, kind: str, namespace: str, resource: str, action: str) -> bool:
        return any(
            permission["kind"] == kind
            and permission["namespace"] in {namespace, "*"}
            and {"resource": resource, "action": action} in permission["access"]
            for permission in self.permissions
        )

    def document(self, prefix: str) -> dict[str, Any]:
        document: dict[str, Any] = {
            "creation_time": self.created.isoformat().replace("+00:00", "Z"),
            "creator_ref": 1,
            "creator_type": "local",
            "description": self.description,
            "duration": self.duration,
            "editable": True,
            "expires_at": self.expires_at,
            "id": self.id,
            "level": "system",
            "name": f"{prefix}{self.name}",
            "permissions": self.permissions,
            "update_time": self.created.isoformat().replace("+00:00", "Z"),
        }
        return document | ({"disable": True} if self.disable else {})  # false is left out


@dataclass
class Caller:
    """Who asks: nobody, the administrator, or a robot."""

    is_admin: bool = False
    robot: FakeRobot | None = None

    @property
    def is_known(self) -> bool:
        return self.is_admin or self.robot is not None

    def may(self, resource: str, action: str) -> bool:
        return self.is_admin or (self.robot is not None and self.robot.holds("system", "/", resource, action))


@dataclass
class Accounts:
    projects: dict[str, bool] = field(default_factory=dict)  # name → public
    robots: dict[int, FakeRobot] = field(default_factory=dict)
    next_id: int = 1
    now: datetime | None = None
    prefix: str = "robot$"
    project_ids: dict[str, int] = field(default_factory=dict)

    def clock(self) -> datetime:
        return self.now or datetime.now(UTC)

    def project_id(self, name: str) -> int:
        return self.project_ids.setdefault(name, len(self.project_ids) + 2)  # 1 is Harbor's own "library"

    def caller(self, header: str) -> Caller:
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "basic":
            return Caller()
        username, _, secret = b64decode(value).decode().partition(":")
        if (username, secret) == ADMIN:
            return Caller(is_admin=True)
        for robot in self.robots.values():
            if username == f"{self.prefix}{robot.name}" and secrets.compare_digest(secret, robot.secret):
                alive = not robot.disable and (robot.duration < 0 or self.clock().timestamp() < robot.expires_at)
                return Caller(robot=robot) if alive else Caller()
        return Caller()

    def add_robot(self, caller: Caller, body: dict[str, Any]) -> FakeRobot:
        robot_id, self.next_id = self.next_id, self.next_id + 1  # a failed creation still consumes an id
        name, duration, permissions = body.get("name", ""), body.get("duration", 0), body.get("permissions") or []
        if ROBOT_NAME.fullmatch(name) is None:
            raise Refused(400, "BAD_REQUEST", "bad request robot name is not in lower case or contains illegal chars")
        if duration == 0 or duration < -1 or body.get("level") != "system" or not permissions:
            raise Refused(400, "BAD_REQUEST", "bad request error permission, level or duration")
        self._check_permissions(caller, permissions)
        if any(robot.name == name for robot in self.robots.values()):
            raise Refused(409, "CONFLICT", f"robot account {name} already exists")
        robot = FakeRobot(
            robot_id, name, secrets.token_urlsafe(24), duration, body.get("description", ""), permissions, self.clock()
        )
        self.robots[robot_id] = robot
        return robot

    def change_robot(self, robot: FakeRobot, body: dict[str, Any]) -> None:
        if body.get("name") != f"{self.prefix}{robot.name}" or body.get("level") != "system":
            raise Refused(400, "BAD_REQUEST", "cannot update the level or name of robot")
        self._check_permissions(Caller(is_admin=True), body["permissions"])
        robot.permissions = body["permissions"]
        robot.disable = body.get("disable", False)
        robot.duration = max(robot.duration, body["duration"]) if body["duration"] > 0 else -1

    def set_secret(self, robot: FakeRobot, body: dict[str, Any]) -> dict[str, str]:
        chosen = body.get("secret")
        if chosen is None:
            robot.secret = secrets.token_urlsafe(24)
            return {"secret": robot.secret}
        kinds = (str.isupper, str.islower, str.isdigit)
        if not 8 <= len(chosen) <= 128 or not all(any(map(kind, chosen)) for kind in kinds):
            raise Refused(400, "BAD_REQUEST", "the secret must be 8-128, inclusively, characters long with ...")
        robot.secret = chosen
        return {}

    def robot(self, robot_id: int) -> FakeRobot:
        if robot_id not in self.robots:
            raise Refused(404, "NOT_FOUND", f"robot {robot_id} not found")
        return self.robots[robot_id]

    def _check_permissions(self, caller: Caller, permissions: list[dict[str, Any]]) -> None:
        for permission in permissions:
            kind, namespace = permission["kind"], permission["namespace"]
            if kind == "project" and namespace != "*" and namespace not in self.projects:
                raise Refused(404, "NOT_FOUND", f"project {namespace} not found")
            for access in permission["access"]:
                resource, action = access["resource"], access["action"]
                if (resource, action) not in GRANTABLE:
                    raise Refused(400, "BAD_REQUEST", f"bad request permission: {resource}:{action}")
                if caller.robot is not None and not caller.robot.holds(kind, namespace, resource, action):
                    raise Refused(403, "DENIED", "permission scope is invalid. It must be equal to or more restrictive")
