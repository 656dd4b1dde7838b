"""`harbor-satellite fleet …` against the real API."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from harbor_satellite import cli
from tests.fixtures_ground_control import ADMIN_PASSWORD

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures_ground_control import GroundControl


class Fleet:
    """Runs ``fleet`` commands as the system administrator; gives what they print."""

    def __init__(
        self, running: GroundControl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.running = running
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.error = ""

    def code(self, *arguments: str) -> tuple[int, str]:
        self._monkeypatch.setattr(sys, "argv", ["harbor-satellite", "fleet", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as ending:
            code = int(ending.code or 0)
        captured = self._capsys.readouterr()
        self.error = captured.err
        return code, captured.out

    def __call__(self, *arguments: str) -> str:
        code, out = self.code(*arguments)
        assert code == 0, self.error
        return out

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--output", "json"))


@pytest.fixture
def fleet(
    ground_control: GroundControl,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Fleet:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HARBOR_SATELLITE_GROUND_CONTROL_URL", ground_control.url)
    token = str(ground_control.admin.headers["Authorization"]).removeprefix("Bearer ")
    monkeypatch.setenv("HARBOR_SATELLITE_API_TOKEN", token)
    return Fleet(ground_control, monkeypatch, capsys)


def test_login_is_kept_until_logout(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARBOR_SATELLITE_API_TOKEN")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{ADMIN_PASSWORD}\n"))

    said = fleet("login")
    monkeypatch.delenv("HARBOR_SATELLITE_GROUND_CONTROL_URL")
    listed = fleet.json("group", "list")
    fleet("logout")
    code, _ = fleet.code("group", "list")

    assert "logged in" in said
    assert ADMIN_PASSWORD not in said
    assert listed == []
    assert code == 2  # no Ground Control is known any more


def test_without_a_login_it_says_how_to(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARBOR_SATELLITE_API_TOKEN")

    code, _ = fleet.code("status")

    assert code == 1
    assert "fleet login" in fleet.error


def test_group_is_made_shown_and_deleted(fleet: Fleet) -> None:
    fleet("group", "sync", "shop", "--image", "acme/app:v1")

    shown = fleet.json("group", "show", "shop")
    table = fleet("group", "list")
    deleted = fleet("group", "delete", "shop")

    assert [item["repository"] for item in shown["artifacts"]] == ["acme/app"]
    assert "shop" in table
    assert deleted == "deleted group shop\n"
    assert fleet.json("group", "list") == []


def test_group_that_is_not_there_is_said_as_the_api_says_it(fleet: Fleet) -> None:
    code, _ = fleet.code("group", "show", "nope")

    assert code == 2
    assert "no group 'nope'" in fleet.error


def test_group_members_come_and_go(fleet: Fleet) -> None:
    fleet("group", "sync", "shop", "--image", "acme/app:v1")
    fleet("satellite", "register", "edge-1")

    fleet("group", "add", "shop", "edge-1")
    members = fleet.json("group", "members", "shop")
    fleet("group", "remove", "shop", "edge-1")

    assert [row["Name"] for row in members] == ["edge-1"]
    assert fleet.json("group", "members", "shop") == []


def test_group_selectors_are_replaced_and_shown(fleet: Fleet, tmp_path: Path) -> None:
    fleet("group", "create", "shop")
    (tmp_path / "selectors.json").write_text('[{"project": "acme", "newest": 3}]')

    fleet("group", "select", "shop", "--file", str(tmp_path / "selectors.json"))

    assert fleet.json("group", "select", "shop")[0]["newest"] == 3


def test_group_is_staged(fleet: Fleet) -> None:
    fleet("group", "create", "shop")

    said = fleet("group", "stage", "shop")

    assert said == "generations of group shop reach satellites by rollouts only\n"
    assert fleet.json("group", "list")[0]["is_staged"] is True


def test_satellite_register_prints_its_token_alone(fleet: Fleet) -> None:
    token = fleet("satellite", "register", "edge-1").strip()

    assert fleet.running.claim(token).status_code == 200


def test_satellite_token_ends_those_before_it(fleet: Fleet) -> None:
    first = fleet("satellite", "register", "edge-1").strip()

    second = fleet("satellite", "token", "edge-1").strip()

    assert fleet.running.claim(first).status_code == 401
    assert fleet.running.claim(second).status_code == 200


def test_satellite_is_scheduled_shown_and_deleted(fleet: Fleet) -> None:
    fleet("satellite", "register", "edge-1")
    fleet("satellite", "schedule", "edge-1", "0 3 * * *")

    shown = fleet.json("satellite", "show", "edge-1")
    fleet("satellite", "delete", "edge-1")

    assert (shown["schedule"], shown["status"]) == ("0 3 * * *", None)
    assert fleet.json("satellite", "list") == []


def test_satellite_labels_that_are_not_named_stay(fleet: Fleet) -> None:
    fleet("satellite", "register", "edge-1")
    fleet("satellite", "label", "edge-1", "region=north", "tier=1")

    changed = fleet.json("satellite", "label", "edge-1", "tier-", "kind=van")

    assert changed == {"region": "north", "kind": "van"}
    assert fleet.json("satellite", "label", "edge-1") == changed


def test_config_is_made_changed_given_and_deleted(fleet: Fleet) -> None:
    fleet("satellite", "register", "edge-1")
    fleet("config", "set", "night", "daily_bytes=5G", "registry.port=8585")
    fleet("config", "set", "night", "registry.kind=zot", "daily_bytes=")

    shown = fleet.json("config", "show", "night")
    fleet("config", "assign", "night", "--satellite", "edge-1")
    refused, _ = fleet.code("config", "delete", "night")
    fleet("config", "assign", "", "--satellite", "edge-1")
    fleet("config", "delete", "night")

    assert shown["Config"] == {"registry": {"kind": "zot", "port": 8585}}
    assert refused == 2
    assert fleet.json("config", "list") == []


def test_config_wrong_field_is_named(fleet: Fleet) -> None:
    code, _ = fleet.code("config", "set", "night", "shedule=x")

    assert code == 2
    assert "did you mean schedule" in fleet.error


def test_status_says_which_site_is_not_in_step(fleet: Fleet) -> None:
    fleet("satellite", "register", "edge-1")
    fleet("satellite", "register", "van-1")

    rows = fleet.json("status", "--name", "edge")
    table = fleet("status")
    code, _ = fleet.code("status", "--check")

    assert [(row["name"], row["state"]) for row in rows] == [("edge-1", "never_seen")]
    assert "2 of 2 satellites" in table
    assert code == 1


def test_status_check_of_nothing_is_fine(fleet: Fleet) -> None:
    assert fleet.code("status", "--check")[0] == 0


def test_summary_counts_the_fleet(fleet: Fleet) -> None:
    fleet("satellite", "register", "edge-1")

    assert fleet.json("summary")["satellite_count"] == 1
    assert "never_seen=1" in fleet("summary")


def test_api_token_is_made_used_and_revoked(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = fleet("token", "create", "ci", "--role", "operator").strip()
    (tmp_path / "token").write_text(token)

    listed = fleet.json("--token-file", str(tmp_path / "token"), "token", "list")
    refused, _ = fleet.code("--token-file", str(tmp_path / "token"), "satellite", "register", "edge-1")
    fleet("token", "revoke", "ci")

    assert [row["name"] for row in listed] == ["ci"]
    assert refused == 1
    assert fleet.json("token", "list") == []


def test_user_is_made_with_a_password_from_a_pipe(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Correct-Horse-1\n"))

    fleet("user", "create", "mara")
    fleet("user", "role", "mara", "admin")

    assert {row["username"]: row["role"] for row in fleet.json("user", "list")}["mara"] == "admin"


def test_audit_says_who_changed_what(fleet: Fleet) -> None:
    fleet("config", "set", "night", "image_workers=2")

    rows = fleet.json("audit", "--resource", "config:night")

    assert [(row["actor"], row["action"]) for row in rows] == [("user:admin", "config.create")]
