"""``ground-control check``: what it finds missing, what it warns of, and that it changes nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from harbor_satellite.cli import app
from harbor_satellite.errors import SignatureError
from harbor_satellite.ground_control.checks import (
    Check,
    Outcome,
    check_address,
    check_database,
    check_prefect,
    check_registry,
    check_signing,
    is_complete,
)
from harbor_satellite.ground_control.database import migrate
from harbor_satellite.ground_control.harbor_checks import NEEDS, check_harbor
from harbor_satellite.harbor.client import HarborClient
from harbor_satellite.registry.client import HttpRegistry
from tests.fakes.harbor_accounts import ADMIN
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from tests.fakes.harbor import FakeHarbor

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
OK, WARNING, MISSING = Outcome


def by_name(checks: list[Check]) -> dict[str, Outcome]:
    return {check.name: check.outcome for check in checks}


def not_fine(checks: list[Check]) -> dict[str, Outcome]:
    return {name: outcome for name, outcome in by_name(checks).items() if outcome is not OK}


# -- Harbor -------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake(fake_harbor: tuple[FakeHarbor, str]) -> FakeHarbor:
    fake_harbor[0].accounts.projects["satellite"] = False
    return fake_harbor[0]


@pytest.fixture
def url(fake_harbor: tuple[FakeHarbor, str]) -> str:
    return fake_harbor[1]


def look(url: str, username: str = ADMIN[0], password: str = ADMIN[1], now: datetime | None = None) -> list[Check]:
    with HarborClient(url, username, SecretStr(password), timeout_seconds=5) as client:
        return check_harbor(client, username, lambda: now or datetime.now(UTC))


def make_robot(url: str, *, without: tuple[str, str] = ("", ""), days: int = -1) -> tuple[str, str]:
    """Make Ground Control's robot with everything that is needed but one right."""
    permissions = [
        {
            "kind": "system" if is_system else "project",
            "namespace": "/" if is_system else "*",
            "access": [
                {"resource": need.resource, "action": action}
                for need in NEEDS
                if need.is_system is is_system
                for action in need.actions
                if (need.resource, action) != without
            ],
        }
        for is_system in (True, False)
    ]
    body = {"name": "gc", "duration": days, "level": "system", "permissions": permissions}
    with HarborClient(url, ADMIN[0], SecretStr(ADMIN[1]), timeout_seconds=5) as client:
        made = client.request("POST", "/robots", expected={201}, body=body).document
    return made["name"], made["secret"]


def test_harbor_as_an_administrator_is_complete(fake: FakeHarbor, url: str) -> None:
    found = look(url)

    assert not_fine(found) == {}
    assert "harbor credentials" in by_name(found)


def test_harbor_as_a_robot_with_every_right_is_complete(fake: FakeHarbor, url: str) -> None:
    assert not_fine(look(url, *make_robot(url))) == {}


def test_harbor_check_changes_nothing(fake: FakeHarbor, url: str) -> None:
    robot = make_robot(url)
    fake.requests.clear()

    look(url, *robot)

    assert {request.partition(" ")[0] for request in fake.requests} == {"GET"}


@pytest.mark.parametrize(
    ("without", "name", "outcome"),
    [
        (("robot", "delete"), "harbor permission robot", MISSING),
        (("repository", "push"), "harbor permission repository", MISSING),
        (("notification-policy", "create"), "harbor permission notification-policy", WARNING),
    ],
)
def test_harbor_robot_without_a_right(
    fake: FakeHarbor, url: str, without: tuple[str, str], name: str, outcome: Outcome
) -> None:
    found = look(url, *make_robot(url, without=without))

    (lacking,) = [check for check in found if check.outcome is not OK]
    assert (lacking.name, lacking.outcome) == (name, outcome)
    assert without[1] in lacking.detail
    assert lacking.advice


def test_harbor_robot_that_may_not_read_its_own_account_is_tried(fake: FakeHarbor, url: str) -> None:
    found = look(url, *make_robot(url, without=("robot", "list")))

    assert not_fine(found) == {"harbor permissions": WARNING, "harbor permission robot": MISSING}


def test_harbor_robot_that_expires_is_a_warning(fake: FakeHarbor, url: str) -> None:
    assert not_fine(look(url, *make_robot(url, days=30))) == {"harbor credentials": WARNING}


@pytest.mark.parametrize("kind", ["wrong password", "expired robot", "disabled robot"])
def test_harbor_credentials_that_are_not_valid(fake: FakeHarbor, url: str, kind: str) -> None:
    who = make_robot(url, days=30)
    if kind == "wrong password":
        who = ("admin", "wrong")
    elif kind == "expired robot":
        fake.accounts.robots[1].created -= timedelta(days=31)
    else:
        fake.accounts.robots[1].disable = True

    assert not_fine(look(url, *who)) == {"harbor credentials": MISSING}


def test_harbor_with_another_clock_is_a_warning(fake: FakeHarbor, url: str) -> None:
    fake.accounts.now = NOW

    assert not_fine(look(url, now=NOW + timedelta(seconds=50))) == {}
    assert not_fine(look(url, now=NOW + timedelta(seconds=70))) == {"harbor clock": WARNING}


def test_harbor_that_is_unhealthy_is_missing(fake: FakeHarbor, url: str) -> None:
    fake.is_unhealthy = True

    assert by_name(look(url)) == {"harbor": MISSING}


def test_harbor_that_is_not_there_is_missing() -> None:
    assert by_name(look("http://127.0.0.1:1")) == {"harbor": MISSING}


@pytest.mark.parametrize(
    ("projects", "outcome"), [({"satellite": True}, MISSING), ({}, WARNING)], ids=["public", "not there"]
)
def test_harbor_state_project(fake: FakeHarbor, url: str, projects: dict[str, bool], outcome: Outcome) -> None:
    fake.accounts.projects = projects

    assert not_fine(look(url)) == {"project satellite": outcome}


# -- the others ---------------------------------------------------------------------------------------------------


def test_database_that_is_migrated_is_fine(empty_database_url: str) -> None:
    migrate(empty_database_url)

    assert check_database(empty_database_url).outcome is OK


def test_database_that_is_empty_is_missing(empty_database_url: str) -> None:
    assert check_database(empty_database_url).outcome is MISSING


def test_database_check_makes_no_file(tmp_path: Path) -> None:
    assert check_database(f"sqlite:///{tmp_path / 'x.db'}").outcome is MISSING

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["mysql://u:hidden@h/d", "postgresql://u:hidden@127.0.0.1:1/d", "nonsense"])
def test_database_that_cannot_be_used_is_missing(url: str) -> None:
    check = check_database(url)

    assert check.outcome is MISSING
    assert "hidden" not in str(check)


def prefect(*answers: httpx.Response) -> list[Check]:
    queue = list(answers)
    transport = httpx.MockTransport(lambda _request: queue.pop(0))
    return check_prefect("http://u:p@prefect.test/api", SecretStr("a:b"), lambda: NOW, transport=transport)


def answered(status: int, at: datetime = NOW) -> httpx.Response:
    return httpx.Response(status, json=True, headers={"Date": format_datetime(at, usegmt=True)})


def test_prefect_that_answers_is_fine() -> None:
    found = prefect(answered(200), answered(200))

    assert by_name(found) == {"prefect": OK, "prefect clock": OK}
    assert "u:p@" not in str(found)


@pytest.mark.parametrize(
    "answers",
    [(answered(404), answered(404)), (answered(200), answered(401))],
    ids=["wrong path", "wrong credentials"],
)
def test_prefect_that_refuses_is_missing(answers: tuple[httpx.Response, ...]) -> None:
    assert by_name(prefect(*answers)) == {"prefect": MISSING}


def test_prefect_with_another_clock_is_a_warning() -> None:
    late = answered(200, NOW - timedelta(minutes=2))

    assert by_name(prefect(late, answered(200))) == {"prefect": OK, "prefect clock": WARNING}


def test_prefect_that_is_not_there_is_missing() -> None:
    assert by_name(check_prefect("http://127.0.0.1:1/api", None, lambda: NOW)) == {"prefect": MISSING}


def test_prefect_that_is_not_named_is_started() -> None:
    assert by_name(check_prefect("", None, lambda: NOW)) == {"prefect": OK}


def test_signing_key_that_is_refused_is_missing() -> None:
    def refuse() -> str:
        raise SignatureError("wrong password")

    assert check_signing(Path("cosign.key"), refuse).outcome is MISSING
    assert check_signing(Path("cosign.key"), lambda: "PEM").outcome is OK
    assert check_signing(None, refuse).outcome is WARNING


@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        ("https://gc.example.com", OK),
        ("http://gc.example.com", WARNING),
        ("https://127.0.0.1:8080", WARNING),
        ("http://localhost:8080", WARNING),
        ("", MISSING),
        ("gc.example.com", MISSING),
        ("https://gc.example.com:none", MISSING),
    ],
)
def test_address_of_sites(url: str, outcome: Outcome) -> None:
    assert check_address("address", url, "VARIABLE", is_given=True).outcome is outcome


@pytest.mark.parametrize(("auth", "outcome"), [("", OK), ("basic", MISSING)])
def test_registry_that_is_no_harbor(auth: str, outcome: Outcome) -> None:
    with HttpRegistry("http://registry.test", transport=FakeRegistry(auth=auth).transport()) as registry:
        check = check_registry(registry, "http://registry.test")

    assert check.outcome is outcome


# -- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(fake: FakeHarbor, url: str, tmp_path: Path) -> dict[str, str]:
    prefix = "HARBOR_SATELLITE_GROUND_CONTROL_"
    values: dict[str, Any] = {
        "SOURCE_URL": url,
        "SOURCE_USERNAME": ADMIN[0],
        "SOURCE_PASSWORD": ADMIN[1],
        "DATA_DIR": str(tmp_path),
        "PUBLIC_URL": "https://gc.example.com",
    }
    return {prefix + name: value for name, value in values.items()}


def test_command_without_a_database_fails_and_says_what_to_do(environment: dict[str, str]) -> None:
    result = CliRunner().invoke(app, ["ground-control", "check"], env=environment)

    assert result.exit_code == 1
    assert "missing  database: " in result.stdout
    assert "run harbor-satellite ground-control migrate" in result.stdout
    assert ADMIN[1] not in result.stdout


def test_command_with_everything_succeeds(environment: dict[str, str], tmp_path: Path) -> None:
    migrate(f"sqlite:///{tmp_path / 'ground-control.sqlite'}")

    result = CliRunner().invoke(app, ["ground-control", "check", "--output", "json"], env=environment)

    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert {one["outcome"] for one in found} == {"ok", "warning"}
    assert set(found[0]) == {"name", "outcome", "detail", "advice"}


def test_warnings_are_not_missing() -> None:
    assert is_complete([Check("a", OK, ""), Check("b", WARNING, "")])
    assert not is_complete([Check("a", OK, ""), Check("b", MISSING, "")])


def test_command_with_a_broken_ca_says_the_rest_too(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("none")
    more = {"HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_CA": str(tmp_path / "ca.pem")}

    result = CliRunner().invoke(app, ["ground-control", "check"], env=environment | more)

    assert result.exit_code == 1
    assert "missing  source: " in result.stdout
    assert "missing  database: " in result.stdout
