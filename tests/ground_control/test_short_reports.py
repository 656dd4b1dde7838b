"""Reports "as before", compressed ones, receipts of an outage, and schedules that were set at the site."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, select, update

from harbor_satellite.ground_control.fleet import reports
from harbor_satellite.ground_control.models import AppliedGroupRow, OutboxEvent, Satellite
from harbor_satellite.ground_control.satellites import provisioning
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.news import as_before, news_digest
from harbor_satellite.state.wire import AppliedGroup, StatusReport
from tests.ground_control.test_report_intake import NOW, Site, after, statements_of

if TYPE_CHECKING:
    import httpx

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.state.wire import ReportAnswer
    from tests.fixtures_ground_control import GroundControl

FIRST = str(Digest.of(b"first"))
GROUPS = [AppliedGroup(group="shop", generation=3, digest=FIRST)]


@pytest.fixture
def site(session_factory: SessionFactory) -> Site:
    return Site(session_factory)


def made(moment: datetime, **values: Any) -> StatusReport:
    report = StatusReport(name="edge-1", request_created_time=moment, **values)
    return report.model_copy(update={"news_digest": news_digest(report)})


def take(site: Site, report: StatusReport, now: datetime) -> ReportAnswer:
    with site.factory.begin() as session:
        return reports.record_report(session, site.identity, report, now)


def test_report_as_before_costs_one_update_and_keeps_the_rest(site: Site) -> None:
    whole = made(NOW, latest_state_digest=FIRST, groups=GROUPS, image_count=3)
    take(site, whole, NOW)
    later = whole.model_copy(update={"request_created_time": after(minutes=5), "storage_free_bytes": 8})
    with statements_of(site.factory) as statements:
        answer = take(site, as_before(later), after(minutes=5))

    assert [statement.split()[0] for statement in statements] == ["UPDATE"]
    assert (answer.is_report_wanted, answer.is_short_taken, site.report_count) == (False, True, 1)
    row = site.row
    assert (row.last_seen, row.storage_free_bytes) == (after(minutes=5), 8)
    assert (row.applied_digest, row.image_count) == (FIRST, 3)
    with site.factory() as session:
        assert reports.show_status(session, "edge-1", NOW).report.groups == GROUPS
        assert [item.generation for item in session.scalars(select(AppliedGroupRow))] == [3]


def test_report_as_before_with_lists_changes_none_of_them(site: Site) -> None:
    whole = made(NOW, groups=GROUPS, image_count=3)
    take(site, whole, NOW)

    lying = as_before(whole).model_copy(update={"groups": [], "image_count": 9, "latest_state_digest": FIRST})
    answer = take(site, lying, after(minutes=5))

    assert (answer.is_report_wanted, site.row.image_count, site.row.applied_digest) == (False, 3, None)
    with site.factory() as session:
        assert len(session.scalars(select(AppliedGroupRow)).all()) == 1


@pytest.mark.parametrize("loss", ["never reported", "restored backup", "other credential", "gone silent"])
def test_report_as_before_that_leans_on_nothing_is_asked_for_whole(site: Site, loss: str) -> None:
    whole = made(NOW, image_count=3)
    if loss != "never reported":
        take(site, whole, NOW)
    changes: dict[str, dict[str, Any]] = {
        "restored backup": {"report_fingerprint": "of an older one"},
        "gone silent": {"lifecycle": "stale"},
    }
    with site.factory.begin() as session:
        if loss in changes:
            session.execute(update(Satellite).values(**changes[loss]))
    if loss == "other credential":
        object.__setattr__(site.identity, "credential_id", site.identity.credential_id + 1)
    before = site.row

    answer = take(site, as_before(whole), after(minutes=5))

    assert answer.is_report_wanted
    assert (site.row.last_seen, site.row.image_count) == (before.last_seen, before.image_count)
    if loss != "other credential":
        assert not take(site, whole, after(minutes=6)).is_report_wanted
        assert (site.row.image_count, site.row.lifecycle) == (3, "active")


def test_receipts_of_an_outage_in_order_move_the_site_on_step_by_step(site: Site) -> None:
    take(site, made(NOW, image_count=1), NOW)
    back = after(days=20)
    kept = [made(after(days=day), image_count=day, groups=GROUPS if day == 15 else []) for day in (2, 9, 15)]

    for number, report in enumerate(kept):
        take(site, report, back + timedelta(seconds=number))

    with site.factory() as session:
        listed = reports.list_reports(session, "edge-1", 10)
        status = reports.show_status(session, "edge-1", back)
        assert [item.generation for item in session.scalars(select(AppliedGroupRow))] == [3]
    assert [item.image_count for item in listed] == [15, 9, 2, 1]
    assert (status.report.image_count, status.reported_at) == (15, after(days=15))


def test_receipt_that_comes_twice_is_in_the_history_once(site: Site) -> None:
    receipts = [made(after(hours=hour), image_count=hour) for hour in (1, 2)]

    for report in (receipts[0], receipts[0], receipts[1], receipts[1]):
        take(site, report, after(hours=9))

    assert (site.report_count, site.row.image_count) == (2, 2)


# -- over HTTP


def post(ground_control: GroundControl, auth: tuple[str, str], content: bytes, **headers: str) -> httpx.Response:
    given = {"Content-Type": "application/json", **headers}
    return ground_control.anonymous.post("/satellites/sync", content=content, headers=given, auth=auth)


def test_reports_are_answered_as_the_site_understands(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    whole = made(datetime.now(UTC), image_count=3)

    wanted = post(ground_control, auth, as_before(whole).model_dump_json().encode())
    taken = post(ground_control, auth, whole.model_dump_json().encode())
    short = post(ground_control, auth, as_before(whole).model_dump_json(exclude_defaults=True).encode())
    original = ground_control.report("edge-1", auth)

    assert wanted.json() == {"is_report_wanted": True}
    assert taken.json() == short.json() == {"is_short_taken": True}
    assert original.content == b""


@pytest.mark.parametrize("word", ["", "x", "0" * 63, "A" * 64])
def test_report_as_before_without_a_good_word_is_refused(ground_control: GroundControl, word: str) -> None:
    auth = ground_control.enroll("edge-1")

    assert ground_control.report("edge-1", auth, is_as_before=True, news_digest=word).status_code == 400


def test_report_compressed_is_taken(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    body = json.dumps({"name": "edge-1", "image_count": 7, "own_schedule": "0 3 * * *", "dropped_receipts": 2})

    answer = post(ground_control, auth, gzip.compress(body.encode()), **{"Content-Encoding": "gzip"})

    assert answer.status_code == 200
    shown = ground_control.admin.get("/api/satellites/edge-1/status").json()
    assert (shown["image_count"], shown["dropped_receipts"], shown["own_schedule"]) == (7, 2, "0 3 * * *")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"no gzip", 400, id="none"),
        pytest.param(gzip.compress(b'{"name": "edge-1"}')[:-12], 400, id="cut"),
        pytest.param(gzip.compress(b" " * 11_000_000), 413, id="bomb"),
    ],
)
def test_report_compressed_badly_is_refused(ground_control: GroundControl, body: bytes, status: int) -> None:
    auth = ground_control.enroll("edge-1")

    assert post(ground_control, auth, body, **{"Content-Encoding": "gzip"}).status_code == status


# -- schedules of the site's own


def changes(site: Site) -> int:
    """Count the events that bring Prefect in step, and forget them."""
    with site.factory.begin() as session:
        found = session.scalars(select(OutboxEvent).where(OutboxEvent.event == "harbor-satellite.fleet.changed")).all()
        session.execute(delete(OutboxEvent))
        return len(found)


def deployed(site: Site) -> tuple[str, str]:
    with site.factory() as session:
        (one,) = provisioning.wanted_deployments(session)
        return one.schedule, one.timezone


def test_own_schedule_stands_above_the_centres_until_it_is_taken_back(site: Site) -> None:
    own: dict[str, Any] = {"own_schedule": "0  3 * * *", "own_timezone": "Europe/Berlin"}

    site.report(NOW, **own)
    assert (deployed(site), changes(site)) == (("0 3 * * *", "Europe/Berlin"), 1)
    site.report(after(minutes=1), **own)
    site.report(after(minutes=2), image_count=7, **own)
    assert changes(site) == 0
    site.report(after(minutes=3))
    assert (deployed(site), changes(site)) == (("* * * * *", "UTC"), 1)


@pytest.mark.parametrize(
    "own",
    [
        {"own_schedule": "@hourly"},
        {"own_schedule": "0 0 31 2 *"},
        {"own_schedule": "nul \u0000 * * * *"},
        {"own_schedule": "* * * * " + "*" * 300},
        {"own_timezone": "Mars/Olympus"},
        {"own_timezone": "localtime"},
        {"own_timezone": "../../etc/passwd"},
    ],
    ids=repr,
)
def test_own_schedule_that_is_none_is_ignored(
    site: Site, own: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    site.report(NOW, **own)

    assert (deployed(site), changes(site)) == (("* * * * *", "UTC"), 0)
    assert "own schedule ignored satellite=edge-1" in caplog.text


def test_own_schedule_of_a_receipt_that_comes_late_is_history(site: Site) -> None:
    site.report(after(minutes=10), image_count=1)

    site.report(after(minutes=11), made=after(minutes=5), own_schedule="0 3 * * *")

    assert deployed(site) == ("* * * * *", "UTC")


def test_own_schedule_is_shown(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")

    ground_control.report("edge-1", auth, own_schedule="0 3 * * *", own_timezone="Europe/Berlin")

    shown = ground_control.admin.get("/api/satellites/edge-1").json()
    assert (shown["own_schedule"], shown["own_timezone"]) == ("0 3 * * *", "Europe/Berlin")
    assert shown["schedule"] != "0 3 * * *"
