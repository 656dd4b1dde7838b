"""Rotation from end to end: the centre says when, the site renews with its report, the old account goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from prefect.client.orchestration import get_client
from sqlalchemy import select, update

from flows.register_satellite import register_satellite
from flows.report_status import report_status
from flows.rotate_credentials import rotate_credentials
from harbor_satellite.errors import AuthenticationError
from harbor_satellite.ground_control.models import Credential

if TYPE_CHECKING:
    from tests.flows.conftest import World


def join(world: World, name: str) -> None:
    world.give_token(world.ground_control.register(name))
    assert register_satellite() == name
    report_status(name)


def expire_in(world: World, days: float) -> None:
    with world.ground_control.factory.begin() as session:
        session.execute(update(Credential).values(expires_at=datetime.now(UTC) + timedelta(days=days)))


def accounts(world: World) -> list[str | None]:
    with world.ground_control.factory() as session:
        return list(session.scalars(select(Credential.account_name).order_by(Credential.id)))


def test_rotation_from_due_to_deleted_without_a_gap(world: World) -> None:
    join(world, "bus-1")
    expire_in(world, 5)

    told = rotate_credentials(return_state=True)
    report_status("bus-1")
    both = accounts(world)
    with world.ground_control.factory.begin() as session:
        past = datetime.now(UTC) - timedelta(hours=2)
        session.execute(update(Credential).where(Credential.superseded_at.is_not(None)).values(superseded_at=past))
    deleted = rotate_credentials(return_state=True)

    assert told.message == "1 told to renew, 0 accounts deleted"
    assert both == ["bus-1", "bus-1-r1"]
    assert world.store.registration().auth.username == "satellite-bus-1-r1"
    assert deleted.message == "0 told to renew, 1 accounts deleted"
    assert accounts(world) == ["bus-1-r1"]
    assert report_status("bus-1") == ""


def test_rotation_reports_a_table_without_secrets(world: World) -> None:
    join(world, "bus-2")
    secret = world.store.registration().auth.password.get_secret_value()
    expire_in(world, -100)

    state = rotate_credentials(return_state=True)

    with get_client(sync_client=True) as client:
        shown = "".join(artifact.model_dump_json() for artifact in client.read_artifacts())
    assert state.message == "1 told to renew, 0 accounts deleted; 1 need a new one-time token"
    assert "bus-2" in shown
    assert secret not in shown


def test_rotation_database_gone_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_GROUND_CONTROL_DATABASE_URL", "sqlite:////no/such/folder/x.sqlite")

    assert rotate_credentials(return_state=True).is_failed()


def test_report_of_a_site_that_was_away_renews_its_expired_credential(world: World) -> None:
    join(world, "bus-3")
    expire_in(world, -30)
    world.ground_control.context.identities.expire()
    world.ground_control.context.identities._known.clear()

    report_status("bus-3")

    assert world.store.registration().auth.username == "satellite-bus-3-r1"


def test_report_of_a_revoked_site_fails_and_says_so(world: World) -> None:
    join(world, "bus-4")
    world.ground_control.admin.post("/api/satellites/bus-4/revoke")

    with pytest.raises(AuthenticationError):
        report_status("bus-4")

    assert world.store.registration().auth.username == "satellite-bus-4"
