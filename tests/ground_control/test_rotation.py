"""Rotation: who is told to renew, what is deleted at the source and when, who is shown as late."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from harbor_satellite.errors import RemoteError
from harbor_satellite.ground_control.models import AuditEvent, Credential
from harbor_satellite.ground_control.people.audit_log import flow_actor
from harbor_satellite.ground_control.satellites import provisioning, rotation
from harbor_satellite.ground_control.satellites.sources import OciSource

if TYPE_CHECKING:
    from harbor_satellite.ground_control.satellites.rotation import Deletions, WaitingCredential
    from tests.fixtures_ground_control import GroundControl

ACTOR = flow_actor("rotate-credentials")
BEFORE, HOUR, GRACE = timedelta(days=10), timedelta(hours=1), timedelta(days=90)
Auth = tuple[str, str]


class RecordingSource(OciSource):
    """A source that can be down, or refuse single accounts."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self.refused = refused
        self.asked: list[str] = []

    def delete(self, account: str, credential_id: str | None) -> None:
        self.asked.append(account)
        if account in self.refused or "*" in self.refused:
            raise RemoteError(f"no ({account}, {credential_id})", status=500, retryable=True)


def give_life(running: GroundControl, days: int) -> None:
    """Let all credentials expire so many days after they were made."""
    with running.factory.begin() as session:
        for row in session.scalars(select(Credential)):
            row.expires_at = row.created_at + timedelta(days=days)


def mark(running: GroundControl) -> tuple[str, ...]:
    with running.factory.begin() as session:
        return rotation.mark_due(session, BEFORE, ACTOR, running.clock())


def delete(running: GroundControl, source: OciSource, satellite: str | None = None) -> Deletions:
    return rotation.delete_ended(running.factory, source, ACTOR, grace=HOUR, now=running.clock(), satellite=satellite)


def waiting(running: GroundControl) -> tuple[WaitingCredential, ...]:
    with running.factory() as session:
        return rotation.list_waiting(session, BEFORE, GRACE, running.clock())


def renewed(running: GroundControl, auth: Auth) -> Auth:
    answer = running.anonymous.post("/satellites/credential", json={"renewal_key": "k"}, auth=auth).json()
    new = (answer["username"], answer["password"])
    assert running.report("edge-1", new).status_code == 200
    return new


@pytest.mark.parametrize(
    ("life", "wanted", "before"),
    [(30, None, 10), (6, None, 3), (4, None, 2), (1, None, 0.5), (30, 7, 7), (30, 300, 15)],
    ids=["a third", "three days", "half", "half a day", "as wanted", "never more than half"],
)
def test_renewal_before(life: int, wanted: int | None, before: float) -> None:
    assert rotation.renewal_before(life, wanted) == timedelta(days=before)


def test_mark_due_tells_the_site_with_its_next_report(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    give_life(ground_control, 30)
    assert mark(ground_control) == ()
    assert ground_control.report("edge-1", auth).content == b""
    ground_control.clock.advance(days=21)

    first, again = mark(ground_control), mark(ground_control)

    assert (first, again) == (("edge-1",), ())
    assert ground_control.report("edge-1", auth).json() == {"is_renewal_due": True}


def test_mark_due_leaves_what_never_expires_alone(ground_control: GroundControl) -> None:
    ground_control.enroll("edge-1")
    ground_control.clock.advance(days=4000)

    assert mark(ground_control) == ()


def test_mark_due_ends_with_the_renewal(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    give_life(ground_control, 5)
    mark(ground_control)

    new = renewed(ground_control, auth)

    assert ground_control.report("edge-1", new).content == b""
    assert mark(ground_control) == ()
    assert waiting(ground_control) == ()


def test_delete_ended_keeps_a_superseded_credential_for_its_grace(ground_control: GroundControl) -> None:
    source = RecordingSource()
    renewed(ground_control, ground_control.enroll("edge-1"))

    too_early = delete(ground_control, source)
    ground_control.clock.advance(hours=1, seconds=5)
    done = delete(ground_control, source)

    assert too_early.accounts == ()
    assert (done.accounts, done.problems, source.asked) == (("edge-1",), (), ["edge-1"])
    assert delete(ground_control, source).accounts == ()


def test_delete_ended_takes_a_revoked_one_at_once(ground_control: GroundControl) -> None:
    ground_control.enroll("edge-1")
    ground_control.admin.post("/api/satellites/edge-1/revoke")

    assert delete(ground_control, RecordingSource()).accounts == ("edge-1",)


def test_delete_ended_one_that_fails_holds_up_no_other(ground_control: GroundControl) -> None:
    for number in range(4):
        ground_control.enroll(f"edge-{number}")
        ground_control.admin.post(f"/api/satellites/edge-{number}/revoke")

    done = delete(ground_control, RecordingSource("edge-1"))
    later = delete(ground_control, RecordingSource())

    assert done.accounts == ("edge-0", "edge-2", "edge-3")
    assert "edge-1" in done.problems[0]
    assert later.accounts == ("edge-1",)


def test_delete_ended_source_down_is_not_asked_for_all(ground_control: GroundControl) -> None:
    source = RecordingSource("*")
    for number in range(6):
        ground_control.enroll(f"edge-{number}")
        ground_control.admin.post(f"/api/satellites/edge-{number}/revoke")

    done = delete(ground_control, source)

    assert (len(source.asked), len(done.problems)) == (3, 4)
    assert done.problems[-1] == "3 more left for the next run"


def test_delete_ended_of_one_satellite_leaves_the_others(ground_control: GroundControl) -> None:
    for name in ("edge-1", "edge-2"):
        ground_control.enroll(name)
        ground_control.admin.post(f"/api/satellites/{name}/revoke")

    assert delete(ground_control, RecordingSource(), "edge-2").accounts == ("edge-2",)


@pytest.mark.parametrize(
    ("days", "needs"),
    [(25, "renewal"), (31, "still renew"), (121, "one-time token")],
    ids=["due", "in the grace", "stranded"],
)
def test_list_waiting_says_what_a_late_site_needs(ground_control: GroundControl, days: int, needs: str) -> None:
    ground_control.enroll("edge-1")
    give_life(ground_control, 30)
    ground_control.clock.advance(days=days)
    mark(ground_control)

    (late,) = waiting(ground_control)

    assert needs in late.needs
    assert late.expires_at is not None
    assert late.since == late.expires_at - BEFORE


def test_rotation_is_on_record(ground_control: GroundControl) -> None:
    ground_control.enroll("edge-1")
    give_life(ground_control, 5)
    mark(ground_control)
    ground_control.admin.post("/api/satellites/edge-1/revoke")
    delete(ground_control, RecordingSource())

    with ground_control.factory() as session:
        query = select(AuditEvent.action).where(AuditEvent.actor == ACTOR.name).order_by(AuditEvent.id)
        actions = session.scalars(query).all()

    assert actions == ["credential.due", "credential.delete"]


def test_satellites_to_grant_are_those_whose_groups_need_something_else(ground_control: GroundControl) -> None:
    ground_control.sync_group("shop", "acme/app")
    ground_control.sync_group("ops", "tools/cli")
    for name, groups in {"edge-1": ["shop"], "edge-2": ["shop", "ops"], "edge-3": []}.items():
        ground_control.enroll(name, *groups)
    ground_control.register("edge-4", "ops")
    assert to_grant(ground_control) == ()

    ground_control.sync_group("ops", "tools/cli", "other/thing")

    assert to_grant(ground_control) == ("edge-2",)


def test_satellites_to_grant_nobody_is_asked_again_for_a_project_that_is_not_there(
    ground_control: GroundControl,
) -> None:
    ground_control.enroll("edge-1")
    ground_control.sync_group("shop", "absent/app")
    ground_control.admin.post("/api/groups/satellite", json={"satellite": "edge-1", "group": "shop"})

    assert to_grant(ground_control) == ()


def test_wanted_deployments_leave_revoked_satellites_out(ground_control: GroundControl) -> None:
    ground_control.register("edge-1")
    ground_control.register("edge-2")
    ground_control.admin.post("/api/satellites/edge-1/revoke")

    with ground_control.factory() as session:
        names = [str(item.name) for item in provisioning.wanted_deployments(session)]

    assert names == ["edge-2"]


def to_grant(running: GroundControl) -> tuple[str, ...]:
    with running.factory() as session:
        return provisioning.satellites_to_grant(provisioning.grant_differences(session), {"absent"})
