"""Zero touch registration: who gets the credential, and who does not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from harbor_satellite.ground_control.models import Credential, RegistrationToken

if TYPE_CHECKING:
    from tests.fixtures_ground_control import GroundControl, HarborParts


def test_claim_answers_what_the_original_and_our_sites_read(ground_control: GroundControl) -> None:
    ground_control.sync_group("shop", "acme/app")
    token = ground_control.register("edge-1", "shop")

    response = ground_control.anonymous.get(f"/satellites/ztr/{token}")

    assert response.status_code == 200
    body = response.json()
    assert set(body["auth"]) == {"url", "username", "password", "expires_at"}
    assert body["auth"]["expires_at"] is None
    assert body["auth"]["url"] == "http://source.test:5000"
    assert body["auth"]["username"] == "satellite-edge-1"
    assert len(body["auth"]["password"]) >= 32
    assert body["state"] == "http://source.test:5000/satellite/satellite-state/edge-1/state:latest"
    assert (body["satellite"], body["work_pool"], body["groups"]) == ("edge-1", "satellite-edge-1", ["shop"])
    assert body["schedule"] == "0 * * * *"
    assert response.headers["Cache-Control"] == "no-store"


def test_claim_twenty_at_once_exactly_one_wins(ground_control: GroundControl) -> None:
    token = ground_control.register("edge-1")

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: ground_control.claim(token), range(20)))

    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 19
    (winner,) = (answer.json()["auth"] for answer in answers if answer.status_code == 200)
    assert ground_control.report("edge-1", (winner["username"], winner["password"])).status_code == 200


def test_claim_twenty_at_once_at_harbor_exactly_one_wins(harbor_ground_control: HarborParts) -> None:
    token = harbor_ground_control.ground_control.register("edge-1")

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: harbor_ground_control.ground_control.claim(token), range(20)))

    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 19
    assert len(harbor_ground_control.fake.accounts.robots) == 1


@pytest.mark.parametrize("by_path", [True, False], ids=["original form", "our form"])
def test_claim_used_token_is_refused(ground_control: GroundControl, by_path: bool) -> None:  # noqa: FBT001
    token = ground_control.register("edge-1")
    assert ground_control.claim(token).status_code == 200

    again = ground_control.anonymous.get(f"/satellites/ztr/{token}") if by_path else ground_control.claim(token)

    assert again.status_code == 401
    assert again.json() == {"message": "invalid token", "code": 401}


def test_claim_expired_token_is_refused(ground_control: GroundControl) -> None:
    token = ground_control.register("edge-1")
    ground_control.clock.advance(hours=24, seconds=1)

    assert ground_control.claim(token).status_code == 401


@pytest.mark.parametrize("token", ["unknown", "x" * 5000, "\x00", "ü"], ids=["unknown", "long", "nul", "not ascii"])
def test_claim_unknown_token_is_refused(ground_control: GroundControl, token: str) -> None:
    assert ground_control.claim(token).status_code == 401


def test_claim_revoked_token_is_refused(ground_control: GroundControl) -> None:
    token = ground_control.register("edge-1")

    assert ground_control.admin.delete("/api/satellites/edge-1/token").status_code == 204

    assert ground_control.claim(token).status_code == 401


def test_claim_repeated_with_its_key_gives_a_credential_that_works(ground_control: GroundControl) -> None:
    token = ground_control.register("edge-1")
    lost = ground_control.claim(token, "key-of-the-site").json()["auth"]

    again = ground_control.claim(token, "key-of-the-site")

    assert again.status_code == 200
    auth = again.json()["auth"]
    assert auth["password"] != lost["password"]
    assert ground_control.report("edge-1", (auth["username"], auth["password"])).status_code == 200
    assert ground_control.report("edge-1", (lost["username"], lost["password"])).status_code == 401


def test_claim_repeated_without_end_is_slowed_down(ground_control: GroundControl) -> None:
    token, other = ground_control.register("edge-1"), ground_control.register("edge-2")

    answers = [ground_control.claim(token, "key-of-the-site") for _ in range(31)]

    assert [answer.status_code for answer in answers] == [200] * 30 + [429]
    assert int(answers[-1].headers["Retry-After"]) <= 60
    assert ground_control.claim(other).status_code == 200


@pytest.mark.parametrize("key", [None, "", "another"], ids=["none", "empty", "another"])
def test_claim_repeated_with_another_key_is_refused(ground_control: GroundControl, key: str | None) -> None:
    token = ground_control.register("edge-1")
    ground_control.claim(token, "key-of-the-site")

    assert ground_control.claim(token, key).status_code == 401


def test_claim_repeated_after_the_first_report_is_refused(ground_control: GroundControl) -> None:
    token = ground_control.register("edge-1")
    auth = ground_control.claim(token, "key").json()["auth"]
    assert ground_control.report("edge-1", (auth["username"], auth["password"])).status_code == 200

    assert ground_control.claim(token, "key").status_code == 401


def test_claim_repeated_by_the_same_site_after_the_token_s_time(ground_control: GroundControl) -> None:
    token = ground_control.register("edge-1")
    ground_control.claim(token, "key")
    ground_control.clock.advance(days=3)

    assert ground_control.claim(token, "key").status_code == 200


def test_claims_while_the_source_hangs_do_not_hold_up_reports(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    auth = running.enroll("edge-0")
    tokens = [running.register(f"edge-{number}") for number in range(1, 41)]
    fake.delay_seconds = 0.05

    with ThreadPoolExecutor(40) as pool:
        claims = [pool.submit(running.claim, token) for token in tokens]
        reports = [running.report("edge-0", auth).status_code for _ in range(3)]
        fake.delay_seconds = 0
        answers = [claim.result() for claim in claims]

    assert reports == [200] * 3
    assert {answer.status_code for answer in answers} <= {200, 502}
    refused = [answer for answer in answers if answer.status_code == 502]
    assert all(answer.headers["Retry-After"] == "5" for answer in refused)


def test_claim_reissued_token_replaces_the_lost_credential(ground_control: GroundControl) -> None:
    lost = ground_control.enroll("edge-1")
    assert ground_control.report("edge-1", lost).status_code == 200

    reissued = ground_control.admin.post("/api/satellites/edge-1/token")
    answer = ground_control.claim(reissued.json()["token"])

    assert (reissued.status_code, answer.status_code) == (200, 200)
    auth = answer.json()["auth"]
    assert ground_control.report("edge-1", lost).status_code == 401
    assert ground_control.report("edge-1", (auth["username"], auth["password"])).status_code == 200


def test_reissue_ends_the_tokens_before_it(ground_control: GroundControl) -> None:
    first = ground_control.register("edge-1")
    second = ground_control.admin.post("/api/satellites/edge-1/token").json()["token"]

    assert ground_control.claim(first).status_code == 401
    assert ground_control.claim(second).status_code == 200


def test_claim_source_down_can_be_repeated(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    token = running.register("edge-1")
    fake.is_down = True

    refused = running.claim(token)
    fake.is_down = False
    answer = running.claim(token)

    assert refused.status_code == 502
    assert refused.headers["Retry-After"] == "7"
    assert harbor_ground_control.url not in refused.text
    assert answer.status_code == 200


def test_claim_at_harbor_makes_a_robot_that_may_pull_from_all_groups(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    running.sync_group("shop", "acme/app", "acme/deep/er", "missing/thing")
    running.sync_group("ops", "tools/cli")

    username, secret = running.enroll("edge-1", "shop", "ops")

    (robot,) = fake.accounts.robots.values()
    assert (username, secret) == ("robot$edge-1", robot.secret)
    assert [permission["namespace"] for permission in robot.permissions] == ["acme", "satellite", "tools"]
    assert robot.permissions[0]["access"] == [
        {"resource": "repository", "action": "read"},
        {"resource": "repository", "action": "pull"},
        {"resource": "artifact", "action": "read"},
    ]
    assert fake.accounts.projects["satellite"] is False
    assert running.report("edge-1", (username, secret)).status_code == 200


def test_claim_takes_over_a_robot_that_a_crash_left_behind(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    token = running.register("edge-1")
    running.enroll("edge-2")
    (leftover,) = fake.accounts.robots.values()
    leftover.name = "edge-1"

    answer = running.claim(token)

    assert answer.status_code == 200
    (robot,) = fake.accounts.robots.values()
    assert robot.secret == answer.json()["auth"]["password"]


def test_claim_leaves_a_stranger_s_robot_alone(harbor_ground_control: HarborParts) -> None:
    fake, running = harbor_ground_control.fake, harbor_ground_control.ground_control
    token = running.register("edge-1")
    running.enroll("edge-2")
    (stranger,) = fake.accounts.robots.values()
    stranger.name, stranger.description = "edge-1", "the CI's"

    assert running.claim(token).status_code == 409
    assert list(fake.accounts.robots.values()) == [stranger]


def test_secrets_are_stored_as_hashes_only(ground_control: GroundControl) -> None:
    token = ground_control.register("edge-1")
    secret = ground_control.claim(token, "claim-key-in-clear").json()["auth"]["password"]

    with ground_control.factory() as session:
        credential = session.scalars(select(Credential)).one()
        row = session.scalars(select(RegistrationToken)).one()

    stored = {str(value) for each in (credential, row) for value in vars(each).values()}
    assert stored.isdisjoint({token, secret, "claim-key-in-clear"})
