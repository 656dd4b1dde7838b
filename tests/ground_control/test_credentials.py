"""Credentials of satellites: renewed without a gap, superseded by use, good for as long as they should be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from harbor_satellite.errors import RemoteError
from harbor_satellite.ground_control import models
from harbor_satellite.ground_control.models import Credential
from harbor_satellite.ground_control.satellites import accounts, credentials
from harbor_satellite.ground_control.satellites.sources import OciSource

if TYPE_CHECKING:
    import httpx

    from tests.fixtures_ground_control import GroundControl, HarborParts

Auth = tuple[str, str]


def renew(running: GroundControl, auth: Auth, key: str = "the site's key") -> httpx.Response:
    return running.anonymous.post("/satellites/credential", json={"renewal_key": key}, auth=auth)


def credential(answer: httpx.Response) -> Auth:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["username"], body["password"]


def robot_names(parts: HarborParts) -> list[str]:
    return sorted(robot.name for robot in parts.fake.accounts.robots.values())


def rows(running: GroundControl) -> dict[str, Any]:
    with running.factory() as session:
        return {row.username: row for row in session.scalars(select(Credential))}


def test_renewal_both_credentials_work_until_the_new_one_is_used(harbor_ground_control: HarborParts) -> None:
    running = harbor_ground_control.ground_control
    old = running.enroll("edge-1")
    running.report("edge-1", old)

    answer = renew(running, old)

    new = credential(answer)
    assert (answer.headers["Cache-Control"], answer.json()["url"]) == ("no-store", "http://source.test:5000")
    assert answer.json()["expires_at"] is not None
    assert robot_names(harbor_ground_control) == ["edge-1", "edge-1-r1"]
    assert rows(running)[old[0]].superseded_at is None
    assert running.report("edge-1", old).status_code == 200
    assert running.report("edge-1", new).status_code == 200
    assert rows(running)[old[0]].superseded_at is not None
    assert rows(running)[new[0]].superseded_at is None


def test_renewal_superseded_credential_works_for_runs_under_way(harbor_ground_control: HarborParts) -> None:
    running = harbor_ground_control.ground_control
    old = running.enroll("edge-1")
    new = credential(renew(running, old))
    running.report("edge-1", new)

    assert running.report("edge-1", old).status_code == 200
    assert rows(running)[new[0]].superseded_at is None


def test_renewal_repeated_with_its_key_replaces_the_lost_one(harbor_ground_control: HarborParts) -> None:
    running = harbor_ground_control.ground_control
    old = running.enroll("edge-1")
    lost = credential(renew(running, old))

    again = credential(renew(running, old))

    assert running.report("edge-1", lost).status_code == 401
    assert running.report("edge-1", again).status_code == 200
    assert robot_names(harbor_ground_control) == ["edge-1", "edge-1-r2"]


def test_renewal_two_keys_at_once_the_last_one_counts_and_nothing_leaks(harbor_ground_control: HarborParts) -> None:
    running = harbor_ground_control.ground_control
    old = running.enroll("edge-1")

    with ThreadPoolExecutor(4) as pool:
        answers = [credential(answer) for answer in pool.map(lambda key: renew(running, old, key), "abcd")]
    accepted = [running.report("edge-1", auth).status_code for auth in answers]

    assert sorted(accepted) == [200, 401, 401, 401]
    assert len(robot_names(harbor_ground_control)) == 2
    assert len(rows(running)) == 2


def test_renewal_source_down_changes_nothing(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    old = running.enroll("edge-1")
    fake.is_down = True

    refused = renew(running, old)

    fake.is_down = False
    assert refused.status_code == 502
    assert list(rows(running)) == [old[0]]
    assert running.report("edge-1", old).status_code == 200
    assert credential(renew(running, old))[0] == "robot$edge-1-r1"


def test_renewal_takes_over_the_account_of_an_attempt_that_died(harbor_ground_control: HarborParts) -> None:
    running = harbor_ground_control.ground_control
    old = running.enroll("edge-1")
    running.source.create("edge-1-r1", ["acme"])

    new = credential(renew(running, old))

    assert new[0] == "robot$edge-1-r1"
    assert robot_names(harbor_ground_control) == ["edge-1", "edge-1-r1"]


def test_renewal_grants_what_the_groups_need_now(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    running.sync_group("shop", "acme/app")
    old = running.enroll("edge-1", "shop")
    running.sync_group("shop", "tools/cli")

    renew(running, old)

    newest = max(fake.accounts.robots.values(), key=lambda robot: robot.id)
    assert [permission["namespace"] for permission in newest.permissions] == ["satellite", "tools"]


@pytest.mark.parametrize(("days", "status"), [(29, 200), (31, 200), (119, 200), (121, 401)])
def test_renewal_after_the_end_is_possible_for_a_while(
    harbor_ground_control: HarborParts, days: int, status: int
) -> None:
    running = harbor_ground_control.ground_control
    old = running.enroll("edge-1")
    running.clock.advance(days=days)

    answer = renew(running, old)

    assert answer.status_code == status
    if status == 401:
        assert "one-time token" in answer.json()["message"]


def test_renewal_with_a_wrong_secret_is_refused(ground_control: GroundControl) -> None:
    username, _ = ground_control.enroll("edge-1")

    answer = renew(ground_control, (username, "wrong"))

    assert (answer.status_code, answer.json()["message"]) == (401, "invalid satellite credentials")


def test_renewal_too_often_is_slowed_down_for_this_satellite_only(ground_control: GroundControl) -> None:
    ground_control.context.limits.renewals._levels.clear()
    first, second = ground_control.enroll("edge-1"), ground_control.enroll("edge-2")

    answers = [renew(ground_control, first).status_code for _ in range(11)]

    assert answers == [200] * 10 + [429]
    assert renew(ground_control, second).status_code == 200


def test_renewal_is_on_record_without_secrets(ground_control: GroundControl) -> None:
    old = ground_control.enroll("edge-1")
    new = credential(renew(ground_control, old, "key-in-clear"))
    ground_control.report("edge-1", new)

    with ground_control.factory() as session:
        events = session.scalars(select(models.AuditEvent).order_by(models.AuditEvent.id)).all()

    told = {event.action: event for event in events}
    assert told["credential.renew"].changes == {"username": ["satellite-edge-1", "satellite-edge-1-r1"]}
    assert told["credential.supersede"].actor == "satellite:edge-1"
    written = str([vars(event) for event in events])
    assert not any(secret in written for secret in (old[1], new[1], "key-in-clear"))


def test_claim_repeated_after_a_renewal_is_refused(ground_control: GroundControl) -> None:
    token = ground_control.register("edge-1")
    auth = ground_control.claim(token, "key").json()["auth"]
    old = (auth["username"], auth["password"])
    ground_control.report("edge-1", old)
    renew(ground_control, old)

    assert ground_control.claim(token, "key").status_code == 401


def test_account_names_of_different_satellites_never_meet(ground_control: GroundControl) -> None:
    ground_control.enroll("edge-1-r1")
    old = ground_control.enroll("edge-1")

    new = credential(renew(ground_control, old))

    assert new[0] == "satellite-edge-1-r2"


@pytest.mark.parametrize("name", ["a" * 118, "a" * 108 + "." + "b" * 9], ids=["plain", "separator at the cut"])
def test_account_name_of_a_long_name_is_taken_by_every_source(name: str) -> None:
    made = accounts.account_name(name, 1234)

    OciSource().check_name(made)
    assert made.endswith("-r1234")
    assert made != accounts.account_name(name[:-1] + "z", 1234)


def test_grant_projects_refused_by_the_source_is_due_for_renewal(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    ground_control.report("edge-1", auth)
    ground_control.sync_group("shop", "acme/app")
    ground_control.admin.post("/api/groups/satellite", json={"satellite": "edge-1", "group": "shop"})

    with ground_control.factory.begin() as session:
        told = credentials.grant_projects(session, NarrowSource(), "edge-1")
    answer = ground_control.report("edge-1", auth)

    assert told is False
    assert answer.json() == {"is_renewal_due": True}
    credential(renew(ground_control, auth))


def test_grant_projects_is_on_record_once(ground_control: GroundControl) -> None:
    ground_control.enroll("edge-1")
    ground_control.sync_group("shop", "acme/app")
    ground_control.admin.post("/api/groups/satellite", json={"satellite": "edge-1", "group": "shop"})

    for _ in range(2):
        with ground_control.factory.begin() as session:
            credentials.grant_projects(session, ground_control.source, "edge-1")

    with ground_control.factory() as session:
        (told,) = session.scalars(select(models.AuditEvent).where(models.AuditEvent.action == "credential.grant"))
    assert (told.actor, told.resource) == ("flow:provision-satellite", "satellite:edge-1")
    assert told.changes["projects"] == [["satellite"], ["acme", "satellite"]]


class NarrowSource(OciSource):
    """A Harbor at which we are a robot: nobody's permissions may be changed."""

    def set_projects(self, account: str, credential_id: str | None, projects: Any) -> tuple[str, ...]:
        raise RemoteError(f"FORBIDDEN to change {account} ({credential_id}, {len(projects)})", status=403)


def test_report_with_an_old_credential_changes_nothing_once_confirmed(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    ground_control.report("edge-1", auth)
    before = rows(ground_control)[auth[0]].first_used_at

    ground_control.report("edge-1", auth)

    assert rows(ground_control)[auth[0]].first_used_at == before
