"""What need not cross the link: heartbeats, the pool, and for how long."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from harbor_satellite.edge.local_answers import LocalAnswers, sent_body

POOL, BEAT = "/work_pools/satellite-1", "/work_pools/satellite-1/workers/heartbeat"
POLL = "/work_pools/satellite-1/get_scheduled_flow_runs"
NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)
ANSWER = (200, {"content-type": "application/json"}, b'{"name":"satellite-1"}')


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def local(clock: Clock) -> LocalAnswers:
    return LocalAnswers(clock)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/csrf-token", 422, {"detail": "CSRF protection is disabled."}),
        ("/admin/storage", 200, {"default_result_storage_block_id": None}),
    ],
)
def test_what_every_centre_answers_alike_is_not_asked_for(
    local: LocalAnswers, path: str, status: int, said: object
) -> None:
    found = local.find("GET", path)

    assert found is not None
    assert (found[0], json.loads(found[2])) == (status, said)


def test_pool_is_asked_for_once_in_an_hour(local: LocalAnswers, clock: Clock) -> None:
    assert local.find("GET", POOL) is None
    local.note("GET", POOL, ANSWER)

    clock.now += 3599
    assert local.find("GET", POOL) == ANSWER
    clock.now += 2
    assert local.find("GET", POOL) is None


def test_deployment_is_read_once_by_a_run_and_anew_by_the_next(local: LocalAnswers, clock: Clock) -> None:
    deployment = "/deployments/44a68f03"
    local.note("GET", deployment, ANSWER)

    clock.now += 59
    assert local.find("GET", deployment) == ANSWER
    clock.now += 2
    assert local.find("GET", deployment) is None
    local.note("GET", deployment, ANSWER)
    local.note("POST", POLL, (200, {}, b'[{"flow_run":{}}]'))
    assert local.find("GET", deployment) is None


def test_name_of_a_flow_is_known_to_the_next_run(local: LocalAnswers) -> None:
    local.note("GET", "/flows/540a1d77", ANSWER)

    local.note("POST", POLL, (200, {}, b'[{"flow_run":{}}]'))

    assert local.find("GET", "/flows/540a1d77") == ANSWER


def test_heartbeat_crosses_the_link_every_ten_minutes(local: LocalAnswers, clock: Clock) -> None:
    assert local.find("POST", BEAT) is None
    local.note("POST", BEAT, (204, {}, b""))

    clock.now += 599
    assert local.find("POST", BEAT) == (204, {}, b"")
    clock.now += 2
    assert local.find("POST", BEAT) is None


def test_poll_always_crosses_the_link(local: LocalAnswers) -> None:
    local.note("POST", POLL, (200, {}, b"[]"))

    assert local.find("POST", POLL) is None


def test_run_that_arrives_makes_the_pool_be_read_anew_and_an_empty_poll_does_not(local: LocalAnswers) -> None:
    local.note("GET", POOL, ANSWER)

    local.note("POST", POLL, (200, {}, b"[]"))
    assert local.find("GET", POOL) == ANSWER
    local.note("POST", POLL, (200, {}, b'[{"flow_run":{}}]'))
    assert local.find("GET", POOL) is None


# -- the short question


def poll(seconds: float) -> bytes:
    return json.dumps({"scheduled_before": (NOW + timedelta(seconds=seconds)).isoformat()}).encode()


@pytest.mark.parametrize(
    ("seconds", "asked"), [(60, "60"), (59.2, "60"), (-5, "0"), (10**6, "3600")], ids=["", "part", "past", "far"]
)
def test_poll_is_asked_as_a_short_question_by_the_clock_of_the_site(
    local: LocalAnswers, seconds: float, asked: str
) -> None:
    assert local.question("POST", POLL, poll(seconds), NOW) == f"/work_pools/satellite-1/due/{asked}"


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"scheduled_before":"soon"}', b'{"scheduled_before":"2026-01-01"}']
)
def test_poll_that_is_odd_is_passed_as_it_is(local: LocalAnswers, body: bytes) -> None:
    assert local.question("POST", POLL, body, NOW) is None


def test_short_question_with_nothing_due_answers_the_poll(local: LocalAnswers) -> None:
    assert local.told(204) == (200, {"content-type": "application/json"}, b"[]")


@pytest.mark.parametrize("status", [200, 401, 429])
def test_short_question_answered_otherwise_is_followed_by_the_poll(local: LocalAnswers, status: int) -> None:
    assert local.told(status) is None
    assert local.question("POST", POLL, poll(60), NOW) is not None


def test_short_question_is_not_asked_of_a_centre_that_does_not_know_it(local: LocalAnswers, clock: Clock) -> None:
    local.told(403)

    assert local.question("POST", POLL, poll(60), NOW) is None
    clock.now += 6 * 3600 + 1
    assert local.question("POST", POLL, poll(60), NOW) is not None


@pytest.mark.parametrize("status", [404, 403, 500])
def test_refusal_makes_everything_be_asked_anew(local: LocalAnswers, status: int) -> None:
    local.note("GET", POOL, ANSWER)
    local.note("POST", BEAT, (204, {}, b""))

    local.note("POST", POLL, (status, {}, b"{}"))

    assert (local.find("GET", POOL), local.find("POST", BEAT)) == (None, None)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/flow_runs/1"),
        ("GET", "/deployments/1/x"),
        ("POST", "/flow_runs/filter"),
        ("PATCH", POOL),
        ("GET", POOL + "/x"),
    ],
)
def test_what_may_change_at_any_time_is_never_kept(local: LocalAnswers, method: str, path: str) -> None:
    local.note(method, path, ANSWER)

    assert local.find(method, path) is None


def test_kept_answers_are_bounded(local: LocalAnswers) -> None:
    for number in range(100):
        local.note("GET", f"/work_queues/{number}", ANSWER)
    local.note("GET", POOL, (200, {}, b"x" * 70_000))

    assert len([number for number in range(100) if local.find("GET", f"/work_queues/{number}")]) <= 32
    assert local.find("GET", POOL) is None


def test_heartbeat_says_how_seldom_it_crosses_the_link() -> None:
    body = {"name": "satellite-1", "heartbeat_interval_seconds": 60, "metadata": None}

    sent = json.loads(sent_body("POST", BEAT, json.dumps(body).encode()))

    assert sent == {**body, "heartbeat_interval_seconds": 600}


@pytest.mark.parametrize("body", [b"", b"[]", b"no JSON", b'{"heartbeat_interval_seconds":"x"}'])
def test_heartbeat_that_is_none_is_passed_as_it_is(body: bytes) -> None:
    assert sent_body("POST", BEAT, body) == body
