"""Limits: a fleet behind one address is not in its own way, and one crazy caller is in its own only."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from harbor_satellite.ground_control.api.throttle import KnownCallers, RateLimits, TokenBuckets
from harbor_satellite.ground_control.models import Credential, Satellite
from harbor_satellite.ground_control.tokens import hash_token
from tests.fixtures_ground_control import ADMIN_PASSWORD

if TYPE_CHECKING:
    import httpx

    from harbor_satellite.ground_control.database import SessionFactory
    from tests.fixtures_ground_control import GroundControl


def test_bucket_lets_a_burst_pass_then_its_rate() -> None:
    buckets = TokenBuckets(burst=3, per_second=0.5)

    burst = [buckets.take("a", 0.0) for _ in range(4)]
    later = [buckets.take("a", moment) for moment in (1.0, 2.0, 3.0)]

    assert burst == [None, None, None, 2]
    assert later == [1, None, 1]


def test_bucket_holds_no_more_than_its_burst() -> None:
    buckets = TokenBuckets(burst=2, per_second=1)
    buckets.take("a", 0.0)

    assert [buckets.take("a", 1000.0) for _ in range(3)] == [None, None, 1]


def test_bucket_is_one_for_each_caller() -> None:
    buckets = TokenBuckets(burst=1, per_second=1)
    buckets.take("a", 0.0)

    assert (buckets.take("a", 0.0), buckets.take("b", 0.0)) == (1, None)


def test_buckets_remember_a_bounded_number_of_callers() -> None:
    buckets = TokenBuckets(burst=1, per_second=1, capacity=10)

    for caller in range(1000):
        buckets.take(caller, 0.0)

    assert len(buckets._levels) == 10


def test_known_caller_is_forgotten_after_its_own_failures() -> None:
    known = KnownCallers(max_failures=2)
    known.note_success("a")

    known.note_failure("a")
    assert "a" in known
    known.note_failure("a")

    assert "a" not in known


def test_limits_let_a_thousand_satellites_report_at_once() -> None:
    limits = RateLimits()

    answers = {limits.satellites.take(satellite, float(second)) for second in (0, 60) for satellite in range(1000)}

    assert answers == {None}


def report(running: GroundControl, name: str, auth: tuple[str, str]) -> httpx.Response:
    return running.report(name, auth)


def test_crazy_satellite_only_hurts_itself(ground_control: GroundControl) -> None:
    crazy, calm = ground_control.enroll("crazy"), ground_control.enroll("calm")

    answers = [report(ground_control, "crazy", crazy) for _ in range(60)]

    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert int(refused[0].headers["Retry-After"]) >= 1
    assert report(ground_control, "calm", calm).status_code == 200


def _many_satellites(factory: SessionFactory, count: int) -> list[tuple[str, tuple[str, str]]]:
    """Registered satellites with their credentials, made without the source."""
    now, secret = datetime.now(UTC), "one secret for all of them"
    with factory.begin() as session:
        for number in range(count):
            satellite = Satellite(
                name=f"edge-{number}", schedule="0 3 * * *", config_name="", created_at=now, updated_at=now
            )
            session.add(satellite)
            session.flush()
            session.add(
                Credential(
                    satellite_id=satellite.id,
                    username=f"satellite-edge-{number}",
                    secret_hash=hash_token(SecretStr(secret)),
                    source_credential_id=None,
                    granted_projects=[],
                    created_at=now,
                )
            )
    return [(f"edge-{number}", (f"satellite-edge-{number}", secret)) for number in range(count)]


@pytest.mark.slow
def test_thousand_satellites_behind_one_address_report_without_a_429(ground_control: GroundControl) -> None:
    satellites = _many_satellites(ground_control.factory, 1000)

    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda one: report(ground_control, *one).status_code, satellites)

    assert Counter(answers) == {200: 1000}


def test_flood_of_wrong_secrets_does_not_starve_satellites(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")

    flood = [report(ground_control, "edge-1", (auth[0], "wrong")).status_code for _ in range(70)]
    others = [report(ground_control, "edge-1", (f"guess-{n}", "wrong")).status_code for n in range(30)]

    assert flood[-1] == 429
    assert set(others) == {401}
    assert report(ground_control, "edge-1", auth).status_code == 200


def test_flood_of_wrong_passwords_starves_neither_satellites_nor_people(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    ground_control.context.address_failures._limit = 5
    try:
        answers = [
            ground_control.anonymous.post("/login", json={"username": f"guess-{n}", "password": "x"}).status_code
            for n in range(8)
        ]
    finally:
        ground_control.context.address_failures._limit = 200

    assert (answers[4], answers[7]) == (401, 429)
    assert report(ground_control, "edge-1", auth).status_code == 200
    body = {"username": "admin", "password": ADMIN_PASSWORD}
    assert ground_control.anonymous.post("/login", json=body).status_code == 200


def test_person_that_calls_too_fast_is_told_to_wait(ground_control: GroundControl) -> None:
    user = ground_control.anonymous.post("/login", json={"username": "admin", "password": ADMIN_PASSWORD}).json()
    headers = {"Authorization": f"Bearer {user['token']}"}
    buckets = ground_control.context.limits.people
    key = next(reversed(buckets._levels), None)
    ground_control.anonymous.get("/api/users", headers=headers)
    key = next(reversed(buckets._levels))
    buckets._levels[key] = (-1000.0, ground_control.context.monotonic())
    try:
        answer = ground_control.anonymous.get("/api/users", headers=headers)
    finally:
        buckets._levels.clear()

    assert (answer.status_code, int(answer.headers["Retry-After"]) > 1) == (429, True)
