"""Taking in reports: what one costs, what it changes, and in which order reports are believed."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, func, select, update

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.ground_control.fleet import reports
from harbor_satellite.ground_control.fleet.report_values import is_late
from harbor_satellite.ground_control.models import AppliedGroupRow, Credential, Satellite, SatelliteReport
from harbor_satellite.ground_control.satellites import satellite_states
from harbor_satellite.ground_control.satellites.credentials import SatelliteIdentity
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.wire import StatusReport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.ground_control.database import SessionFactory
    from tests.fixtures_ground_control import GroundControl

NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)
FIRST, SECOND = (Digest.of(name) for name in (b"first", b"second"))


def after(**amount: float) -> datetime:
    return NOW + timedelta(**amount)


class Site:
    """One satellite that reports straight to the use case, at moments that a test chooses."""

    def __init__(self, factory: SessionFactory) -> None:
        self.factory = factory
        with factory.begin() as session:
            row = Satellite(name="edge-1", schedule="* * * * *", config_name="", created_at=NOW, updated_at=NOW)
            session.add(row)
            session.flush()
            made = {"username": "a", "secret_hash": "a", "granted_projects": [], "created_at": NOW}
            credential = Credential(satellite_id=row.id, **made)
            session.add(credential)
            session.flush()
            self.identity = SatelliteIdentity(row.id, row.name, credential.id)

    def report(self, now: datetime, made: datetime | None = None, **values: Any) -> bool:
        """Report; tells whether a renewal is due."""
        body = StatusReport(name="edge-1", request_created_time=made or now, **values)
        with self.factory.begin() as session:
            return reports.record_report(session, self.identity, body, now).is_renewal_due

    def publish(self, digest: Digest, now: datetime) -> None:
        with self.factory.begin() as session:
            satellite_states.record_satellite_state(session, "edge-1", digest, now)

    @property
    def row(self) -> Satellite:
        with self.factory() as session:
            return session.scalars(select(Satellite)).one()

    @property
    def report_count(self) -> int:
        with self.factory() as session:
            return session.scalar(select(func.count()).select_from(SatelliteReport)) or 0


@pytest.fixture
def site(session_factory: SessionFactory) -> Site:
    return Site(session_factory)


@contextmanager
def statements_of(factory: SessionFactory) -> Iterator[list[str]]:
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):  # SQLite's own
            found.append(statement)

    engine = factory.kw["bind"]
    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


def test_report_without_news_costs_one_update_and_no_row(site: Site) -> None:
    site.report(NOW, image_count=3, activity="12 kept in 0.2 s")
    with statements_of(site.factory) as statements:
        site.report(
            after(minutes=1),
            image_count=3,
            activity="12 kept in 0.3 s",
            cpu_percent=3.5,
            memory_used_bytes=5,
            storage_used_bytes=6,
            bytes_today=7,
            storage_free_bytes=8,
            last_sync_duration_ms=9,
        )

    assert [statement.split()[0] for statement in statements] == ["UPDATE"]
    assert site.report_count == 1
    row = site.row
    assert (row.last_seen, row.bytes_today, row.storage_free_bytes) == (after(minutes=1), 7, 8)
    assert row.activity == "12 kept in 0.3 s"


@pytest.mark.parametrize(
    "news",
    [
        {"image_count": 4},
        {"latest_state_digest": str(FIRST)},
        {"activity": "paused: the daily cap is reached"},
        {"failures": [{"reference": "acme/app:v1", "reason": "no"}]},
        {"groups": [{"group": "shop", "generation": 1}]},
        {"is_rolled_back": True},
        {"cached_images": [{"reference": "a", "size_bytes": 1}]},
    ],
    ids=lambda news: next(iter(news)),
)
def test_report_with_news_is_kept(site: Site, news: dict[str, Any]) -> None:
    site.report(NOW)

    site.report(after(minutes=1), **news)

    assert site.report_count == 2


def test_report_fills_the_satellites_row(site: Site) -> None:
    site.publish(FIRST, NOW)

    site.report(
        after(minutes=1),
        latest_state_digest=str(FIRST),
        applied_at=NOW,
        image_count=4,
        failures=[{"reference": "acme/app:v1", "reason": "nul \u0000"}],
        bytes_this_month=5,
        link_bytes_per_second=6,
    )

    row = site.row
    assert (row.applied_digest, row.applied_at, row.image_count) == (str(FIRST), NOW, 4)
    assert (row.failure_count, row.failure_reason) == (1, "acme/app:v1: nul \N{REPLACEMENT CHARACTER}")
    assert (row.bytes_this_month, row.link_bytes_per_second) == (5, 6)
    assert (row.lifecycle, row.lifecycle_since) == ("active", after(minutes=1))
    assert row.behind_since is None


@pytest.mark.parametrize(("lifecycle", "expected"), [("stale", "active"), ("revoked", "revoked")])
def test_report_of_a_stale_site_makes_it_active_and_of_a_revoked_one_does_not(
    site: Site, lifecycle: str, expected: str
) -> None:
    site.report(NOW)
    with site.factory.begin() as session:
        session.execute(update(Satellite).values(lifecycle=lifecycle))

    site.report(after(minutes=1))

    assert site.row.lifecycle == expected


def test_behind_since_is_the_oldest_publication_not_applied(site: Site) -> None:
    site.publish(FIRST, NOW)
    site.report(after(minutes=1), latest_state_digest=str(FIRST))
    site.publish(SECOND, after(minutes=2))
    site.publish(Digest.of(b"third"), after(minutes=3))

    site.report(after(minutes=4), latest_state_digest=str(FIRST), image_count=1)

    assert site.row.behind_since == after(minutes=2)


def test_behind_since_of_a_site_on_its_way_stays_where_it_was(site: Site) -> None:
    site.publish(FIRST, NOW)
    site.report(after(minutes=1), latest_state_digest=str(FIRST))
    site.publish(SECOND, after(minutes=2))

    site.report(after(minutes=3), latest_state_digest="")

    assert site.row.behind_since == after(minutes=2)


def test_behind_since_of_a_site_in_step_that_broke_is_now(site: Site) -> None:
    site.publish(FIRST, NOW)
    site.report(after(minutes=1), latest_state_digest=str(FIRST))

    site.report(after(minutes=9), latest_state_digest="")

    assert site.row.behind_since == after(minutes=9)


def test_behind_since_is_cleared_once_the_centre_goes_back_to_what_the_site_has(site: Site) -> None:
    site.publish(FIRST, NOW)
    for minute in (1, 2):
        site.report(after(minutes=minute), latest_state_digest=str(FIRST))
    with site.factory.begin() as session:
        session.execute(update(Satellite).values(behind_since=NOW))

    site.report(after(minutes=3), latest_state_digest=str(FIRST))

    assert (site.row.behind_since, site.report_count) == (None, 1)


def test_applied_groups_follow_the_newest_report(site: Site) -> None:
    first = [{"group": "a", "generation": 1, "digest": str(FIRST)}, {"group": "b", "generation": 1}]
    second = [{"group": "a", "generation": 1, "digest": str(FIRST)}, {"group": "c", "generation": 2}]
    site.report(NOW, groups=first)

    site.report(after(minutes=1), groups=second)

    with site.factory() as session:
        rows = session.scalars(select(AppliedGroupRow).order_by(AppliedGroupRow.group_name)).all()
    assert [(row.group_name, row.generation, row.reported_at) for row in rows] == [
        ("a", 1, NOW),
        ("c", 2, after(minutes=1)),
    ]


def test_report_kept_at_the_site_is_history_and_turns_nothing_back(site: Site) -> None:
    site.report(after(minutes=10), latest_state_digest=str(SECOND), image_count=2)

    site.report(after(minutes=11), made=after(minutes=5), latest_state_digest=str(FIRST), image_count=1)

    row = site.row
    assert (row.applied_digest, row.image_count) == (str(SECOND), 2)
    assert row.last_seen == after(minutes=10)
    with site.factory() as session:
        listed = reports.list_reports(session, "edge-1", 10)
        status = reports.show_status(session, "edge-1", after(minutes=12))
    assert [item.image_count for item in listed] == [1, 2]
    assert status.report.image_count == 2


def test_reports_kept_at_the_site_never_push_out_the_newest(site: Site) -> None:
    site.report(after(hours=5), image_count=999)

    for number in range(reports.KEPT_REPORTS + 5):
        site.report(after(hours=5), made=after(minutes=number), image_count=number)

    with site.factory() as session:
        assert reports.show_status(session, "edge-1", after(hours=5)).report.image_count == 999
    assert site.report_count <= reports.KEPT_REPORTS + 1


def test_reports_are_kept_up_to_a_number_and_only_the_newest_whole(site: Site) -> None:
    for number in range(reports.KEPT_REPORTS + 5):
        site.report(after(minutes=number), image_count=number)

    with site.factory() as session:
        counts = session.scalars(select(SatelliteReport.image_count).order_by(SatelliteReport.id)).all()
        whole = session.scalars(select(SatelliteReport.image_count).where(SatelliteReport.body.is_not(None))).all()
    assert counts == list(range(5, 105))
    assert whole == [104]


@pytest.mark.parametrize(
    ("made", "newest_made", "newest_received", "expected"),
    [
        (NOW, None, None, False),
        (NOW, NOW, NOW, False),
        (after(minutes=-1), NOW, NOW, True),
        (after(days=-8), NOW, NOW, False),
        (after(days=-1), NOW, after(minutes=-16), False),
    ],
    ids=["first", "same moment", "kept", "clock set back by a week", "nothing newer came for long"],
)
def test_is_late(
    made: datetime, newest_made: datetime | None, newest_received: datetime | None, *, expected: bool
) -> None:
    assert is_late(made, newest_made, newest_received, NOW) is expected


def test_report_of_a_clock_far_ahead_does_not_hide_those_that_follow(site: Site) -> None:
    site.report(NOW, made=after(days=3650), image_count=1)

    site.report(after(minutes=1), image_count=2)

    assert site.row.image_count == 2


def test_report_of_a_site_whose_clock_is_wrong_for_good_is_believed(site: Site) -> None:
    for minute in (1, 2):
        site.report(after(minutes=minute), made=after(days=-300, minutes=minute), image_count=minute)

    assert site.row.image_count == 2


def test_report_is_told_of_a_renewal_whether_it_has_news_or_not(site: Site) -> None:
    before = site.report(NOW)
    with site.factory.begin() as session:
        session.execute(update(Credential).values(is_renewal_due=True))

    assert (before, site.report(after(minutes=1)), site.report(after(minutes=2), image_count=1)) == (False, True, True)


def test_report_answer_is_empty_unless_there_is_something_to_say(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    quiet = ground_control.report("edge-1", auth)
    with ground_control.factory.begin() as session:
        session.execute(update(Credential).values(is_renewal_due=True))

    told = ground_control.report("edge-1", auth)

    assert (quiet.status_code, quiet.content) == (200, b"")
    assert (told.status_code, told.json()) == (200, {"is_renewal_due": True})


@pytest.mark.parametrize(
    "values",
    [
        {"groups": [{"group": "a\u0000"}]},
        {"groups": [{"group": "a", "generation": 2**31}]},
        {"groups": [{"group": "a", "digest": "sha256:1"}]},
        {"storage_free_bytes": 2**63},
        {"link_bytes_per_second": 2**63},
    ],
    ids=repr,
)
def test_report_that_cannot_be_stored_changes_nothing(site: Site, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        site.report(NOW, **values)

    assert (site.row.last_seen, site.report_count) == (None, 0)
