"""What is wrong with a site, since when, and how it is said."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.satellite.health import health_of, not_ready, problems_of, status_json
from harbor_satellite.satellite.status import ago
from harbor_satellite.satellite.status_words import Clock, sections_of
from tests.fakes import statuses
from tests.fakes.statuses import NOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.satellite.status import SiteStatus


def kinds(status: SiteStatus) -> list[str]:
    return [problem.kind for problem in problems_of(status)]


def words(status: SiteStatus) -> str:
    return "\n".join(f"{label}: {text}" for section in sections_of(status) for label, text in section.rows)


def expiring(**left: float) -> SiteStatus:
    site = statuses.well()
    assert site.registration
    return replace(site, registration=replace(site.registration, credential_expires_at=NOW + timedelta(**left)))


def without_state() -> SiteStatus:
    site = statuses.well()
    return replace(site, state=replace(site.state, digest="", is_converged=False, applied_at=None))


def first_run() -> SiteStatus:
    return replace(without_state(), runs=replace(statuses.well().runs, running_since=NOW))


def with_agent_service(**changes: object) -> SiteStatus:
    site = statuses.well()
    return replace(site, services=(replace(site.services[1], **changes),))


def test_problems_of_a_site_that_is_well_are_none() -> None:
    assert problems_of(statuses.well()) == ()
    assert health_of(()) == "well"
    assert not_ready(statuses.well()) == ()


@pytest.mark.parametrize(
    ("make", "kind", "health"),
    [
        (statuses.unregistered, "not_registered", "failing"),
        (statuses.disk_full, "disk_full", "failing"),
        (lambda: expiring(days=-1), "credential_expired", "failing"),
        (lambda: expiring(days=2), "credential_ends", "attention"),
        (without_state, "never_applied", "failing"),
        (first_run, "never_applied", "attention"),
        (lambda: replace(statuses.well(), agent_alive_at=NOW - timedelta(seconds=121)), "agent_down", "failing"),
        (lambda: replace(statuses.well(), disk=None), "disk_unknown", "failing"),
        (lambda: with_agent_service(is_running=False, pid=0), "service_down", "failing"),
        (lambda: with_agent_service(restarts=9, started_at=NOW), "service_restarts", "attention"),
        (lambda: replace(statuses.well(), damaged=("ledger.json is damaged",)), "damaged", "failing"),
    ],
    ids=[
        "not registered",
        "disk full",
        "credential ended",
        "credential ends",
        "nothing applied",
        "first run under way",
        "agent silent",
        "disk silent",
        "service down",
        "service restarts",
        "file damaged",
    ],
)  # fmt: skip
def test_problems_say_what_is_wrong(make: Callable[[], SiteStatus], kind: str, health: str) -> None:
    problems = problems_of(make())

    assert [problem.kind for problem in problems] == [kind]
    assert health_of(problems) == health


def test_problems_with_the_link_away_come_worst_first_and_say_since_when() -> None:
    problems = problems_of(statuses.away())

    assert [problem.kind for problem in problems] == ["run_failed", "images_failed", "centre_away"]
    assert problems[0].since == NOW - timedelta(days=3, hours=2)
    assert "cannot reach https://harbor.example.com" in problems[0].text
    assert "74 reports wait" in problems[2].text


def test_problems_an_old_restart_is_none() -> None:
    assert kinds(with_agent_service(restarts=9, started_at=NOW - timedelta(hours=1))) == []


def test_problems_a_damaged_registration_is_not_called_missing() -> None:
    damage = "/x/registration.json is damaged: 1 errors"
    status = replace(statuses.unregistered(), damaged=(damage,), is_registration_readable=False)

    assert kinds(status) == ["damaged"]


def test_problems_a_run_that_is_overdue_is_none_while_one_is_under_way() -> None:
    late = replace(statuses.well().runs, overdue_since=NOW - timedelta(hours=2))

    assert kinds(replace(statuses.well(), runs=late)) == ["run_overdue"]
    assert kinds(replace(statuses.well(), runs=replace(late, running_since=NOW))) == []


def test_not_ready_says_all_reasons() -> None:
    site = statuses.unregistered()
    silent = replace(site, registry=replace(site.registry, is_answering=False, reason="no answer within 2 s"))

    reasons = not_ready(silent)

    assert len(reasons) == 3
    assert "no answer within 2 s" in reasons[0]


def test_words_show_moments_by_the_clock_of_the_site() -> None:
    assert "Mon 23 Nov 09:00 CET, in 47 min" in words(statuses.well())


def test_words_show_a_zone_that_this_machine_does_not_know_in_utc() -> None:
    site = statuses.well()

    assert "08:00 UTC" in words(replace(site, runs=replace(site.runs, timezone="Europe/Atlantis")))


def test_words_say_what_caps_leave_and_when_windows_open() -> None:
    site = statuses.well()
    closed = replace(site.link, is_open=False, closes_at=None, opens_at=NOW + timedelta(hours=14))

    said = words(replace(site, link=closed))

    assert "read today: 112.0 MB of 500.0 MB" in said
    assert "sync windows: closed, next Mon 23 Nov 22:12 CET, in 14 h" in said


def test_words_of_an_empty_site_say_so() -> None:
    said = words(statuses.unregistered())

    assert "state: none was ever applied" in said
    assert "registered as: not registered" in said
    assert "last run: never" in said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "now"), (30, "30 s ago"), (600, "10 min ago"), (-7200, "in 2 h"), (260_000, "3 days ago")],
    ids=["now", "seconds", "minutes", "ahead", "days"],
)
def test_ago_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == said


def test_clock_names_another_year() -> None:
    assert Clock(statuses.well()).show(NOW - timedelta(days=365)) == "Sun 23 Nov 2025 08:12 CET"


def test_status_json_has_health_problems_and_every_field() -> None:
    document = json.loads(status_json(statuses.away()))

    assert document["health"] == "failing"
    assert document["problems"][0]["kind"] == "run_failed"
    assert document["link"]["away_since"] == "2026-11-20T05:12:31+00:00"
    assert document["images"]["listed"][0] == {"reference": "acme/door-counter:v1.5", "size_bytes": 38_000_000}
    assert set(document) >= {"registration", "state", "runs", "failures", "disk", "registry", "services", "runtimes"}
