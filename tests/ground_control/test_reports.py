"""Status reports: who may send them, what is kept, and what it says about being in step."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import select

from harbor_satellite.ground_control.models import SatelliteReport
from harbor_satellite.ground_control.satellites import satellite_states
from harbor_satellite.oci.digest import Digest
from harbor_satellite.state.wire import LIST_MAX_LENGTH

if TYPE_CHECKING:
    from tests.fixtures_ground_control import GroundControl

FIRST, SECOND, THIRD = (Digest.of(name) for name in (b"first", b"second", b"third"))

ORIGINAL_REPORT = {
    "name": "edge-1",
    "activity": "",
    "state_report_interval": "@every 00h00m30s",
    "latest_state_digest": "",
    "latest_config_digest": "",
    "memory_used_bytes": 0,
    "storage_used_bytes": 18446744073709551615,
    "cpu_percent": 1.5,
    "request_created_time": "2026-11-22T20:15:26.543210987+02:00",
    "last_sync_duration_ms": 0,
    "image_count": 1,
    "cached_images": [{"reference": "localhost:8585/acme/app:v1", "size_bytes": 7}],
}


def publish(running: GroundControl, digest: Digest) -> None:
    with running.factory.begin() as session:
        satellite_states.record_satellite_state(session, "edge-1", digest, running.clock())


def status(running: GroundControl) -> dict[str, Any]:
    response = running.admin.get("/api/satellites/edge-1/status")
    assert response.status_code == 200
    document: dict[str, Any] = response.json()
    return document


def test_report_of_the_original_is_taken(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")

    response = ground_control.anonymous.post("/satellites/sync", json=ORIGINAL_REPORT, auth=auth)

    assert (response.status_code, response.content) == (200, b"")
    images = ground_control.admin.get("/api/satellites/edge-1/images").json()
    assert images == [{"reference": "localhost:8585/acme/app:v1", "size_bytes": 7}]
    shown = status(ground_control)
    assert (shown["ImageCount"], shown["CpuPercent"], shown["LatestStateDigest"]) == (1, 1.5, None)
    assert shown["ReportedAt"] == "2026-11-22T18:15:26.543210Z"


def test_report_zero_time_of_go_is_taken(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")

    times = {"request_created_time": "0001-01-01T00:00:00Z", "applied_at": "9999-12-31T23:59:59-11:00"}
    assert ground_control.report("edge-1", auth, **times).status_code == 200
    assert status(ground_control)["reported_at"] > "2026"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "edge-2"}, 403),
        ({"name": ""}, 403),
        ({"state_report_interval": "soon"}, 400),
        ({"state_report_interval": "30"}, 400),
        ({"state_report_interval": "-30s"}, 400),
        ({"state_report_interval": "0s"}, 400),
        ({"state_report_interval": "1.5s"}, 400),
        ({"latest_state_digest": "sha256:12"}, 400),
        ({"image_count": -1}, 400),
        ({"image_count": 2**63}, 400),
        ({"bytes_from_source": 10**40}, 400),
        ({"bytes_today": 2**63}, 400),
        ({"bytes_this_month": -1}, 400),
        ({"decisions": [{"reference": "acme/app:v1"}]}, 400),
        ({"name": None}, 400),
        ({"cached_images": [{}]}, 400),
        ({"activity": "x" * 2000}, 400),
    ],
    ids=repr,
)
def test_report_bad_value_is_refused(ground_control: GroundControl, changes: dict[str, Any], code: int) -> None:
    auth = ground_control.enroll("edge-1")

    response = ground_control.anonymous.post("/satellites/sync", json={"name": "edge-1", **changes}, auth=auth)

    assert (response.status_code, response.json()["code"]) == (code, code)
    assert ground_control.admin.get("/api/satellites/edge-1/status").status_code == 404


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_report_number_that_is_none_is_refused(ground_control: GroundControl, number: str) -> None:
    auth = ground_control.enroll("edge-1")

    response = ground_control.anonymous.post(
        "/satellites/sync",
        content=f'{{"name": "edge-1", "cpu_percent": {number}}}',
        headers={"Content-Type": "application/json"},
        auth=auth,
    )

    assert response.status_code == 400


def test_report_odd_text_is_kept(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")

    assert ground_control.report("edge-1", auth, activity="nul \u0000 and \u2028").status_code == 200
    assert status(ground_control)["Activity"] == "nul \u0000 and \u2028"


@pytest.mark.parametrize(
    "auth",
    [
        None,
        ("satellite-edge-1", "wrong"),
        ("satellite-edge-2", "wrong"),
        ("", ""),
        ("admin", "Ground-Control-1"),
        ("nul\u0000", "x"),
    ],
    ids=repr,
)
def test_report_without_the_right_credential_is_refused(
    ground_control: GroundControl, auth: tuple[str, str] | None
) -> None:
    ground_control.enroll("edge-1")

    given = httpx.BasicAuth(*auth) if auth else None
    response = ground_control.anonymous.post(
        "/satellites/sync", json={"name": "edge-1"}, auth=given or httpx.USE_CLIENT_DEFAULT
    )

    assert (response.status_code, response.json()["code"]) == (401, 401)
    assert "WWW-Authenticate" in response.headers


def test_status_says_whether_the_site_is_in_step_and_since_when_not(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    ground_control.report("edge-1", auth)
    assert (status(ground_control)["in_step"], status(ground_control)["lag_seconds"]) == (False, None)

    publish(ground_control, FIRST)
    ground_control.report("edge-1", auth, latest_state_digest=str(FIRST))
    assert (status(ground_control)["in_step"], status(ground_control)["lag_seconds"]) == (True, 0)

    ground_control.clock.advance(minutes=10)
    publish(ground_control, SECOND)
    ground_control.clock.advance(minutes=10)
    publish(ground_control, THIRD)
    ground_control.clock.advance(minutes=10)
    shown = status(ground_control)
    assert (shown["latest_state_digest"], shown["wanted_state_digest"]) == (str(FIRST), str(THIRD))
    assert shown["in_step"] is False
    assert 20 * 60 <= shown["lag_seconds"] < 20 * 60 + 30

    ground_control.report("edge-1", auth, latest_state_digest=str(SECOND))
    assert 10 * 60 <= status(ground_control)["lag_seconds"] < 10 * 60 + 30

    ground_control.report("edge-1", auth, latest_state_digest=str(THIRD))
    assert status(ground_control)["in_step"] is True


def test_status_carries_bytes_failures_and_groups(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    values = {
        "bytes_from_source": 123,
        "copied_count": 2,
        "deleted_count": 1,
        "image_count": 4,
        "applied_at": "2026-11-22T20:00:00Z",
        "failures": [{"reference": "acme/app:v1", "reason": "digest mismatch"}],
        "groups": [{"group": "shop", "generation": 3, "digest": str(FIRST)}],
    }
    ground_control.report("edge-1", auth, **values)

    shown = status(ground_control)

    assert {key: shown[key] for key in values} == values
    assert shown["last_seen"] is not None
    assert shown["is_stale"] is False


def test_status_site_that_was_rolled_back_says_so_beside_being_out_of_step(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    publish(ground_control, FIRST)
    publish(ground_control, SECOND)
    ground_control.report("edge-1", auth, latest_state_digest=str(FIRST), is_rolled_back=True)
    rolled_back = status(ground_control)

    ground_control.report("edge-1", auth, latest_state_digest=str(SECOND))

    assert (rolled_back["is_rolled_back"], rolled_back["in_step"]) == (True, False)
    followed_again = status(ground_control)
    assert (followed_again["is_rolled_back"], followed_again["in_step"]) == (False, True)


def decision(number: int) -> dict[str, str]:
    return {
        "reference": f"library/some-team/some-application-{number:05}:2026.11.{number:05}",
        "digest": str(Digest.of(str(number).encode())),
        "action": "copied",
        "rule": "wanted",
        "reason": "wanted by group shop, generation 12; the local registry had another digest under this tag",
    }


def test_status_full_report_is_stored_and_answered_whole(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    values: dict[str, Any] = {
        "decisions": [decision(number) for number in range(LIST_MAX_LENGTH)],
        "failures": [{"reference": item["reference"], "reason": "x" * 200} for item in map(decision, range(10_000))],
        "bytes_today": 5 * 10**9,
        "bytes_this_month": 2**63 - 1,
    }
    images = [{"reference": item["reference"], "size_bytes": 10**9} for item in values["decisions"]]

    answer = ground_control.report("edge-1", auth, cached_images=images, **values)

    assert answer.status_code == 200
    shown = status(ground_control)
    assert {key: shown[key] for key in values} == values


def test_report_more_decisions_than_a_report_may_have_is_refused(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")

    answer = ground_control.report("edge-1", auth, decisions=[decision(1)] * (LIST_MAX_LENGTH + 1))

    assert (answer.status_code, "decisions" in answer.json()["message"]) == (400, True)


def test_status_report_of_the_previous_release_shows_the_defaults(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    ground_control.report("edge-1", auth)
    new = {"is_rolled_back", "decisions", "bytes_today", "bytes_this_month"}
    with ground_control.factory.begin() as session:
        row = session.scalars(select(SatelliteReport)).one()
        row.body = {key: value for key, value in row.body.items() if key not in new}

    shown = status(ground_control)

    assert [shown[key] for key in sorted(new)] == [0, 0, [], False]


def test_status_and_images_before_the_first_report(ground_control: GroundControl) -> None:
    ground_control.register("edge-1")

    assert ground_control.admin.get("/api/satellites/edge-1/status").status_code == 404
    assert ground_control.admin.get("/api/satellites/edge-1/images").json() == []
    assert ground_control.admin.get("/api/satellites/nope/images").status_code == 404


def test_fifty_satellites_behind_one_address_report_without_a_429(ground_control: GroundControl) -> None:
    auths = {f"edge-{number}": ground_control.enroll(f"edge-{number}") for number in range(50)}
    for _ in range(100):  # one of them is broken, and another machine beside them guesses
        ground_control.report("edge-0", ("satellite-edge-0", "wrong"))

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda item: ground_control.report(*item), list(auths.items()) * 3))

    assert {answer.status_code for answer in answers} == {200}


def test_wrong_secret_again_and_again_is_told_to_wait(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")

    answers = [ground_control.report("edge-1", (auth[0], "wrong")) for _ in range(61)]

    assert [answer.status_code for answer in answers] == [401] * 60 + [429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert ground_control.report("edge-1", auth).status_code == 200
