"""Watching: which runs are ended and why, who counts as silent, what is pruned."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from harbor_satellite.ground_control.fleet import watching
from harbor_satellite.ground_control.fleet.watching import RunFacts, SiteSigns, Verdict, verdict
from harbor_satellite.ground_control.models import OutboxEvent, Satellite, SatelliteReport, User, UserSession

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from harbor_satellite.ground_control.database import SessionFactory

NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)
RUN = RunFacts("replicate-state", "edge-1", is_running=True, since=NOW - timedelta(hours=6))
ALIVE = SiteSigns(
    is_revoked=False, last_seen=NOW - timedelta(seconds=30), reported_at=None, is_in_step=False, is_overdue=False
)


def ago(**amount: float) -> datetime:
    return NOW - timedelta(**amount)


def test_verdict_long_run_of_a_living_site_is_left_alone() -> None:
    run = replace(RUN, since=ago(days=3), last_heartbeat=ago(minutes=3))

    assert verdict(run, ALIVE, NOW) is None


@pytest.mark.parametrize(
    ("site", "word"), [(None, "deleted"), (replace(ALIVE, is_revoked=True), "revoked")], ids=["deleted", "revoked"]
)
def test_verdict_run_of_a_satellite_that_is_gone_is_cancelled(site: SiteSigns | None, word: str) -> None:
    assert verdict(RUN, site, NOW) == Verdict("cancelled", f"the satellite was {word}")


@pytest.mark.parametrize(("minutes", "is_ended"), [(14, False), (16, True)])
def test_verdict_run_that_never_began_is_crashed_after_a_while(minutes: float, *, is_ended: bool) -> None:
    found = verdict(replace(RUN, is_running=False, since=ago(minutes=minutes)), ALIVE, NOW)

    assert (found is not None) is is_ended


def test_verdict_run_whose_site_reported_to_be_done_is_crashed() -> None:
    done = replace(ALIVE, is_in_step=True, reported_at=ago(minutes=20))

    found = verdict(replace(RUN, since=ago(minutes=30)), done, NOW)

    assert found is not None
    assert found.state == "crashed"
    assert "reported" in found.reason


@pytest.mark.parametrize(
    ("run", "site"),
    [
        (RUN, replace(ALIVE, is_in_step=True, reported_at=ago(hours=7))),
        (replace(RUN, since=ago(minutes=5)), replace(ALIVE, is_in_step=True, reported_at=ago(minutes=1))),
        (replace(RUN, flow="audit-registry"), replace(ALIVE, is_in_step=True, reported_at=ago(minutes=20))),
        (RUN, replace(ALIVE, reported_at=ago(minutes=20))),
    ],
    ids=["reported before the run", "reported just now", "an audit runs in step", "not in step"],
)
def test_verdict_report_that_contradicts_nothing_ends_nothing(run: RunFacts, site: SiteSigns) -> None:
    assert verdict(run, site, NOW) is None


def test_verdict_run_of_a_silent_site_is_crashed_after_an_hour() -> None:
    silent = replace(ALIVE, last_seen=ago(minutes=59), is_overdue=True)

    assert verdict(RUN, silent, NOW) is None
    assert verdict(RUN, replace(silent, last_seen=ago(minutes=61)), NOW) is not None


def test_verdict_run_with_heartbeats_of_a_site_that_cannot_report_is_left_alone() -> None:
    silent = replace(ALIVE, last_seen=ago(hours=3), is_overdue=True)

    assert verdict(replace(RUN, last_heartbeat=ago(minutes=3)), silent, NOW) is None


def test_verdict_run_that_lost_its_heart_while_the_site_lives_is_crashed() -> None:
    found = verdict(replace(RUN, last_heartbeat=ago(hours=2)), ALIVE, NOW)

    assert found is not None
    assert "heartbeat" in found.reason


def test_verdict_run_of_a_site_that_has_just_come_back_is_left_to_its_next_heartbeat() -> None:
    back = replace(ALIVE, last_seen=ago(minutes=1), alive_since=ago(minutes=1))

    assert verdict(replace(RUN, last_heartbeat=ago(hours=2)), back, NOW) is None


def test_verdict_run_with_heartbeats_at_a_site_in_step_is_left_alone() -> None:
    mending = replace(ALIVE, is_in_step=True, reported_at=ago(minutes=20))

    assert verdict(replace(RUN, since=ago(minutes=40), last_heartbeat=ago(minutes=1)), mending, NOW) is None


def add(session: Session, name: str, lifecycle: str, last_seen: datetime | None, interval: int | None = None) -> None:
    session.add(
        Satellite(
            name=name,
            schedule="* * * * *",
            config_name="",
            created_at=NOW,
            updated_at=NOW,
            lifecycle=lifecycle,
            last_seen=last_seen,
            report_interval_seconds=interval,
        )
    )


def lifecycles(session: Session) -> dict[str, tuple[str, datetime | None]]:
    rows = session.execute(select(Satellite.name, Satellite.lifecycle, Satellite.lifecycle_since))
    return {name: (lifecycle, since) for name, lifecycle, since in rows}


def test_mark_silent_follows_each_sites_own_interval(session_factory: SessionFactory) -> None:
    with session_factory.begin() as session:
        add(session, "late", "active", ago(seconds=91), 30)
        add(session, "punctual", "active", ago(seconds=89), 30)
        add(session, "never-said", "active", ago(minutes=16))
        add(session, "back", "stale", ago(seconds=1), 30)
        add(session, "revoked", "revoked", ago(days=1), 30)
        add(session, "never-seen", "registered", None)

    with session_factory.begin() as session:
        silent = watching.mark_silent(session, NOW)
    with session_factory() as session:
        found = lifecycles(session)

    assert silent == ("late", "never-said")
    assert found["late"] == ("stale", ago(seconds=91))
    assert found["back"] == ("active", NOW)
    assert [found[name][0] for name in ("punctual", "revoked", "never-seen")] == ["active", "revoked", "registered"]


def test_mark_silent_again_changes_nothing(session_factory: SessionFactory) -> None:
    with session_factory.begin() as session:
        add(session, "late", "active", ago(hours=1), 30)

    for expected in (("late",), ()):
        with session_factory.begin() as session:
            assert watching.mark_silent(session, NOW) == expected


def test_site_signs_leave_out_who_is_gone(session_factory: SessionFactory) -> None:
    with session_factory.begin() as session:
        add(session, "edge-1", "active", ago(seconds=1), 30)
        add(session, "edge-2", "revoked", None)

    with session_factory() as session:
        found = watching.site_signs(session, {"edge-1", "edge-2", "nope"}, NOW)

    assert set(found) == {"edge-1", "edge-2"}
    assert (found["edge-1"].is_overdue, found["edge-2"].is_overdue, found["edge-2"].is_revoked) == (False, True, True)


def test_prune_rows_keeps_what_is_young_and_what_is_shown(session_factory: SessionFactory) -> None:
    with session_factory.begin() as session:
        add(session, "edge-1", "active", NOW)
        user = session.scalars(select(User)).one()
        for expires_at, token in ((ago(hours=1), "a" * 64), (NOW + timedelta(hours=1), "b" * 64)):
            session.add(UserSession(user_id=user.id, token_hash=token, expires_at=expires_at, created_at=ago(days=2)))
        event = {"event": "x", "resource_id": "x", "payload": {}, "attempts": 1, "available_at": NOW}
        session.add(OutboxEvent(**event, event_id="1", created_at=ago(days=9), delivered_at=ago(days=8)))
        session.add(OutboxEvent(**event, event_id="2", created_at=ago(days=9), delivered_at=None))
        session.flush()
        satellite = session.scalars(select(Satellite)).one()
        for days, body in ((200, None), (199, {"name": "edge-1"}), (1, None)):
            session.add(
                SatelliteReport(
                    satellite_id=satellite.id,
                    received_at=ago(days=days),
                    reported_at=ago(days=days),
                    bytes_from_source=0,
                    image_count=0,
                    failure_count=0,
                    body=body,
                )
            )

    with session_factory.begin() as session:
        found = watching.prune_rows(session, NOW, timedelta(days=30))

    assert found == {"audit_events": 0, "reports": 1, "outbox": 1, "sessions": 1}
    with session_factory() as session:
        assert session.scalar(select(func.count()).select_from(SatelliteReport)) == 2
