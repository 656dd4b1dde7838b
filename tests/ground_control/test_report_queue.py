"""Reports written together: each is answered after its commit, with its own answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from harbor_satellite.ground_control.api.report_queue import ReportQueue
from harbor_satellite.ground_control.fleet import reports
from harbor_satellite.ground_control.fleet.idle_reports import checked_report
from harbor_satellite.ground_control.models import Credential, Satellite
from harbor_satellite.ground_control.satellites.credentials import SatelliteIdentity
from harbor_satellite.state.wire import StatusReport

if TYPE_CHECKING:
    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.fleet.idle_reports import CheckedReport

NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
COUNT = 20


class Sites:
    """Satellites of which each has reported once."""

    def __init__(self, factory: SessionFactory) -> None:
        self.factory = factory
        self.identities: list[SatelliteIdentity] = []
        for number in range(COUNT):
            self._enroll(f"edge-{number:02}")

    def report(self, number: int, now: datetime = LATER, **values: Any) -> CheckedReport:
        identity = self.identities[number]
        body = StatusReport(name=identity.name, request_created_time=now, **values)
        return checked_report(identity, body, now)

    def last_seen(self) -> list[datetime | None]:
        with self.factory() as session:
            return list(session.scalars(select(Satellite.last_seen).order_by(Satellite.id)))

    def _enroll(self, name: str) -> None:
        with self.factory.begin() as session:
            row = Satellite(name=name, schedule="* * * * *", config_name="", created_at=NOW, updated_at=NOW)
            session.add(row)
            session.flush()
            made = {"username": name, "secret_hash": name, "granted_projects": [], "created_at": NOW}
            credential = Credential(satellite_id=row.id, **made)
            session.add(credential)
            session.flush()
            self.identities.append(SatelliteIdentity(row.id, name, credential.id))
            reports.record_report(session, self.identities[-1], StatusReport(name=name, request_created_time=NOW), NOW)


@pytest.fixture
def sites(session_factory: SessionFactory) -> Sites:
    return Sites(session_factory)


def answers_of(factory: SessionFactory, given: list[CheckedReport]) -> list[bool | None]:
    async def ask() -> list[bool | None]:
        queue = ReportQueue(factory)
        return await asyncio.gather(*(queue.note_nothing_new(one) for one in given))

    return asyncio.run(ask())


def test_queue_reports_without_news_are_all_written(sites: Sites) -> None:
    answers = answers_of(sites.factory, [sites.report(number) for number in range(COUNT)])

    assert answers == [False] * COUNT
    assert sites.last_seen() == [LATER] * COUNT


def test_queue_reports_of_a_moment_share_a_transaction(sites: Sites) -> None:
    commits: list[object] = []
    note = commits.append
    event.listen(sites.factory, "after_commit", note)

    answers_of(sites.factory, [sites.report(number) for number in range(COUNT)])

    event.remove(sites.factory, "after_commit", note)
    assert len(commits) == 1


def test_queue_report_with_news_is_not_written_and_holds_up_no_other(sites: Sites) -> None:
    given = [sites.report(0), sites.report(1, image_count=5), sites.report(2)]

    answers = answers_of(sites.factory, given)

    assert answers == [False, None, False]
    assert sites.last_seen()[:3] == [LATER, NOW, LATER]


def test_queue_renewal_due_of_one_site_is_told_to_that_one(sites: Sites) -> None:
    with sites.factory.begin() as session:
        mine = Credential.id == sites.identities[1].credential_id
        session.execute(update(Credential).where(mine).values(is_renewal_due=True))

    answers = answers_of(sites.factory, [sites.report(number) for number in range(3)])

    assert answers == [False, True, False]


def test_queue_two_reports_of_one_site_are_written_in_turn(sites: Sites) -> None:
    latest = LATER + timedelta(seconds=1)

    answers = answers_of(sites.factory, [sites.report(0), sites.report(0, latest)])

    assert answers == [False, False]
    assert sites.last_seen()[0] == latest


def test_queue_database_fails_tells_every_caller(sites: Sites) -> None:
    given = [sites.report(number) for number in range(3)]
    with sites.factory.begin() as session:
        session.execute(text("ALTER TABLE satellites RENAME TO away"))

    async def ask() -> list[bool | BaseException | None]:
        queue = ReportQueue(sites.factory)
        return await asyncio.gather(*(queue.note_nothing_new(one) for one in given), return_exceptions=True)

    answers = asyncio.run(ask())

    with sites.factory.begin() as session:
        session.execute(text("ALTER TABLE away RENAME TO satellites"))
    assert [isinstance(answer, SQLAlchemyError) for answer in answers] == [True] * 3


def test_queue_caller_that_goes_away_takes_no_report_with_it(sites: Sites) -> None:
    async def ask() -> bool | None:
        queue = ReportQueue(sites.factory)
        gone = asyncio.ensure_future(queue.note_nothing_new(sites.report(0)))
        stays = asyncio.ensure_future(queue.note_nothing_new(sites.report(1)))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    answer = asyncio.run(ask())

    assert answer is False
    assert sites.last_seen()[:2] == [LATER, LATER]
