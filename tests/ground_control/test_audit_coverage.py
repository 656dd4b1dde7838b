"""Every change that the API makes leaves an event in the audit log, which names who, what and which."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.ground_control.test_authorisation import CALLS

if TYPE_CHECKING:
    from tests.fixtures_ground_control import GroundControl

PASSWORD = "Another-Pass-1"


@dataclass(frozen=True)
class Change:
    """A change that succeeds, after others that make it possible."""

    path: str
    body: Any = None
    resource: str = ""
    first: tuple[tuple[str, str, Any], ...] = ()
    changes: dict[str, Any] | None = field(default=None)


USER: Final = ("POST", "/api/users", {"username": "ops", "password": PASSWORD})
TOKEN: Final = ("POST", "/api/tokens", {"name": "ci"})
GROUP: Final = ("POST", "/api/groups/sync", {"group": "shops", "artifacts": [{"repository": "a/b", "tag": ["v1"]}]})
SATELLITE: Final = ("POST", "/api/satellites", {"name": "edge-1"})
CONFIG: Final = ("POST", "/api/configs", {"config_name": "night", "config": {}})
RULE: Final = ("POST", "/api/groups/shops/rule", {})
WEBHOOK: Final = ("POST", "/api/webhooks", {"project": "acme"})
PIN: Final = ("PUT", "/api/satellites/edge-1/pins/shops", {"generation": 1})
MEMBER: Final = {"satellite": "edge-1", "group": "shops"}

CHANGES: Final = {
    "POST /api/users": Change("/api/users", USER[2], "user:ops"),
    "PATCH /api/users/{username}/role": Change("/api/users/ops/role", {"role": "operator"}, "user:ops", (USER,)),
    "PATCH /api/users/{username}/password": Change(
        "/api/users/ops/password", {"new_password": PASSWORD}, "user:ops", (USER,)
    ),
    "DELETE /api/users/{username}": Change("/api/users/ops", None, "user:ops", (USER,)),
    "POST /api/tokens": Change("/api/tokens", TOKEN[2], "token:admin/ci"),
    "DELETE /api/tokens/{name}": Change("/api/tokens/ci", None, "token:admin/ci", (TOKEN,)),
    "POST /api/groups/sync": Change("/api/groups/sync", GROUP[2], "group:shops"),
    "POST /api/groups": Change("/api/groups", {"group": "shops"}, "group:shops"),
    "PATCH /api/groups/{group}": Change("/api/groups/shops", {"is_staged": True}, "group:shops", (GROUP,)),
    "DELETE /api/groups/{group}": Change("/api/groups/shops", None, "group:shops", (GROUP,)),
    "POST /api/groups/satellite": Change("/api/groups/satellite", MEMBER, "group:shops", (GROUP, SATELLITE)),
    "DELETE /api/groups/satellite": Change(
        "/api/groups/satellite",
        MEMBER,
        "group:shops",
        (GROUP, SATELLITE, ("POST", "/api/groups/satellite", MEMBER)),
    ),
    "PUT /api/groups/{group}/selectors": Change(
        "/api/groups/shops/selectors", {"selectors": [{"project": "acme"}]}, "group:shops", (GROUP,)
    ),
    "POST /api/groups/{group}/rule": Change("/api/groups/shops/rule", {}, "group:shops", (GROUP,)),
    "DELETE /api/groups/{group}/rule": Change("/api/groups/shops/rule", None, "group:shops", (GROUP, RULE)),
    "POST /api/webhooks": Change("/api/webhooks", WEBHOOK[2], "webhook:acme"),
    "DELETE /api/webhooks/{project}": Change("/api/webhooks/acme", None, "webhook:acme", (WEBHOOK,)),
    "POST /api/configs": Change("/api/configs", CONFIG[2], "config:night"),
    "PATCH /api/configs/{config}": Change(
        "/api/configs/night", {"timezone": "Europe/Berlin"}, "config:night", (CONFIG,)
    ),
    "DELETE /api/configs/{config}": Change("/api/configs/night", None, "config:night", (CONFIG,)),
    "POST /api/configs/satellite": Change(
        "/api/configs/satellite",
        {"satellite": "edge-1", "config_name": "night"},
        "satellite:edge-1",
        (CONFIG, SATELLITE),
    ),
    "POST /api/configs/group": Change(
        "/api/configs/group", {"group": "shops", "config_name": "night"}, "group:shops", (CONFIG, GROUP)
    ),
    "POST /api/satellites": Change("/api/satellites", SATELLITE[2], "satellite:edge-1"),
    "PATCH /api/satellites/{satellite}": Change(
        "/api/satellites/edge-1", {"schedule": "0 3 * * *"}, "satellite:edge-1", (SATELLITE,)
    ),
    "DELETE /api/satellites/{satellite}": Change("/api/satellites/edge-1", None, "satellite:edge-1", (SATELLITE,)),
    "POST /api/satellites/{satellite}/token": Change(
        "/api/satellites/edge-1/token", None, "satellite:edge-1", (SATELLITE,)
    ),
    "DELETE /api/satellites/{satellite}/token": Change(
        "/api/satellites/edge-1/token", None, "satellite:edge-1", (SATELLITE,)
    ),
    "POST /api/satellites/{satellite}/revoke": Change(
        "/api/satellites/edge-1/revoke", None, "satellite:edge-1", (SATELLITE,)
    ),
    "PUT /api/satellites/{satellite}/labels": Change(
        "/api/satellites/edge-1/labels", {"region": "north"}, "satellite:edge-1", (SATELLITE,)
    ),
}
# Shown elsewhere, each with its test.
ELSEWHERE: Final = {
    "POST /api/logout": "test_audit.py: test_login_and_logout_are_recorded",
    "PATCH /api/users/password": "test_own_password_change_is_recorded",
    "POST /api/rollouts/quote": "a calculation; changes nothing",
}
# These need a published generation; their events are shown in test_rollouts*.py.
NEEDS_A_PUBLISHED_GENERATION: Final = ("/api/rollouts", "/api/satellites/{satellite}/pins/")


@pytest.mark.parametrize(
    ("method", "path"), [(method, path) for method, path in CALLS if path.startswith("/api/") and method != "GET"]
)
def test_change_has_a_sample(method: str, path: str) -> None:
    name = f"{method} {path}"

    assert name in CHANGES or name in ELSEWHERE or path.startswith(NEEDS_A_PUBLISHED_GENERATION)


@pytest.mark.parametrize("name", CHANGES)
def test_change_leaves_an_event(ground_control: GroundControl, name: str) -> None:
    method, change = name.partition(" ")[0], CHANGES[name]
    for earlier_method, path, body in change.first:
        answer = ground_control.admin.request(earlier_method, path, json=body)
        assert answer.is_success, (path, answer.text)
    before = len(ground_control.admin.get("/api/audit").json())

    answer = ground_control.admin.request(method, change.path, json=change.body, headers={"X-Request-ID": "this-one"})

    assert answer.is_success, answer.text
    (event, *earlier) = ground_control.admin.get("/api/audit").json()
    assert len(earlier) == before, "exactly one event"
    told = {key: event[key] for key in ("actor", "resource", "outcome", "request_id", "source_address")}
    assert told == {
        "actor": "user:admin",
        "resource": change.resource,
        "outcome": "done",
        "request_id": "this-one",
        "source_address": "127.0.0.1",
    }
    assert PASSWORD not in str(event)


def test_own_password_change_is_recorded(ground_control: GroundControl) -> None:
    ground_control.admin.request(*USER[:2], json=USER[2])
    body = {"current_password": PASSWORD, "new_password": "New-Password-1"}

    ground_control.anonymous.patch("/api/users/password", json=body, auth=("ops", PASSWORD)).raise_for_status()

    event = ground_control.admin.get("/api/audit").json()[0]
    assert (event["actor"], event["action"], event["changes"]) == ("user:ops", "user.password", None)
