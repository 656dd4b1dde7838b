"""Replication rules: their credentials, and endpoint and rule made at Harbor."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.ground_control.api.app import AppOptions
from harbor_satellite.ground_control.groups.harbor_rules import remove_rule
from harbor_satellite.ground_control.models import GroupRule, OutboxEvent
from tests.fixtures_ground_control import SOURCE_URL, running_ground_control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from tests.fixtures_ground_control import GroundControl, HarborParts

IN_HARBOR = {"in_harbor": {"name_filter": "acme/**", "tag_filter": "v*"}}


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)


@contextmanager
def reachable(parts: HarborParts) -> Iterator[GroundControl]:
    """Ground Control that knows under which URL Harbor reaches it."""
    shared = parts.ground_control
    with running_ground_control(shared.factory, shared.source, AppOptions(source_url=SOURCE_URL)) as running:
        object.__setattr__(running.context.options, "public_url", running.url)  # its port is known only now
        running.admin.headers["Authorization"] = shared.admin.headers["Authorization"]
        running.sync_group("shops")
        yield running


def make_rule(running: GroundControl, body: dict[str, Any]) -> httpx.Response:
    return running.admin.post("/api/groups/shops/rule", json=body)


def members(running: GroundControl) -> list[tuple[str, list[str]]]:
    shown = running.admin.get("/api/groups/shops").json()["members"]
    return [(item["repository"], item["tag"]) for item in shown]


def test_rule_is_shown_without_its_secret(ground_control: GroundControl) -> None:
    ground_control.sync_group("shops")

    issued = make_rule(ground_control, {}).json()
    shown = ground_control.admin.get("/api/groups/shops/rule").json()

    assert (issued["namespace"], issued["username"], len(issued["secret"]) > 40) == ("shops", "shops", True)
    assert shown == {key: value for key, value in issued.items() if key != "secret"}
    with ground_control.factory() as session:
        assert issued["secret"] not in session.scalars(select(GroupRule.secret_hash)).one()


def test_rule_of_a_group_without_one_is_not_found(ground_control: GroundControl) -> None:
    ground_control.sync_group("shops")

    answers = [
        ground_control.admin.request(method, f"/api/groups/{group}/rule")
        for method in ("GET", "DELETE")
        for group in ("shops", "none")
    ]

    assert {answer.status_code for answer in answers} == {404}


def test_rule_made_again_has_a_new_secret_and_its_members(ground_control: GroundControl) -> None:
    ground_control.sync_group("shops")
    old, new = (make_rule(ground_control, {}).json()["secret"] for _ in range(2))

    statuses = [ground_control.anonymous.get("/v2/", auth=("shops", secret)).status_code for secret in (old, new)]

    assert statuses == [401, 200]


def test_delete_rule_takes_its_members_and_tells(ground_control: GroundControl) -> None:
    ground_control.sync_group("shops")
    auth = ("shops", make_rule(ground_control, {}).json()["secret"])
    raw = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
    assert ground_control.anonymous.put("/v2/shops/acme/app/manifests/v1", content=raw, auth=auth).status_code == 201
    with ground_control.factory.begin() as session:
        for event in session.scalars(select(OutboxEvent)):
            session.delete(event)

    answer = ground_control.admin.delete("/api/groups/shops/rule")

    assert answer.status_code == 200
    assert members(ground_control) == []
    assert ground_control.anonymous.get("/v2/", auth=auth).status_code == 401
    with ground_control.factory() as session:
        assert [row.payload for row in session.scalars(select(OutboxEvent))] == [{"group": "shops"}]


def test_rule_in_harbor_without_harbor_is_refused(ground_control: GroundControl) -> None:
    ground_control.sync_group("shops")

    answer = make_rule(ground_control, IN_HARBOR)

    assert (answer.status_code, "no Harbor" in answer.json()["message"]) == (400, True)
    assert ground_control.admin.get("/api/groups/shops/rule").status_code == 404


def test_rule_in_harbor_sends_what_is_there_what_comes_and_what_goes(harbor_ground_control: HarborParts) -> None:
    fake = harbor_ground_control.fake
    with reachable(harbor_ground_control) as running:
        fake.push("acme/team/app", "v1", platforms=("linux/amd64", "linux/arm64"))
        fake.push("acme/team/app", "nightly")

        made = make_rule(running, IN_HARBOR)
        wait_for(lambda: len(members(running)) == 1)
        at_first = members(running)
        fake.push("acme/tool", "v2")
        wait_for(lambda: len(members(running)) == 2)

        assert made.status_code == 200, made.text
        assert at_first == [("acme/team/app", ["v1"])]
        assert members(running) == [("acme/team/app", ["v1"]), ("acme/tool", ["v2"])]
        uploads = [path for path in fake.requests if "/blobs/uploads" in path]
        assert uploads == []


def test_delete_rule_takes_away_what_was_made_at_harbor(harbor_ground_control: HarborParts) -> None:
    replication = harbor_ground_control.fake.replication
    with reachable(harbor_ground_control) as running:
        make_rule(running, IN_HARBOR)
        made = (len(replication.endpoints), len(replication.rules))

        answer = running.admin.delete("/api/groups/shops/rule")

        assert made == (1, 1)
        assert (answer.status_code, replication.endpoints, replication.rules) == (200, {}, {})


def test_delete_group_takes_away_what_was_made_at_harbor(harbor_ground_control: HarborParts) -> None:
    replication = harbor_ground_control.fake.replication
    with reachable(harbor_ground_control) as running:
        make_rule(running, IN_HARBOR)

        answer = running.admin.delete("/api/groups/shops")

        assert (answer.status_code, replication.endpoints, replication.rules) == (200, {}, {})


def test_harbor_that_is_down_leaves_credential_and_group_as_they_were(harbor_ground_control: HarborParts) -> None:
    fake = harbor_ground_control.fake
    with reachable(harbor_ground_control) as running:
        secret = make_rule(running, IN_HARBOR).json()["secret"]
        fake.is_down = True

        answers = [
            make_rule(running, IN_HARBOR),
            running.admin.delete("/api/groups/shops/rule"),
            running.admin.delete("/api/groups/shops"),
        ]

        assert [answer.status_code for answer in answers] == [502, 502, 502]
        assert running.anonymous.get("/v2/", auth=("shops", secret)).status_code == 200


def test_harbor_that_is_gone_can_be_left_behind(harbor_ground_control: HarborParts) -> None:
    fake = harbor_ground_control.fake
    with reachable(harbor_ground_control) as running:
        make_rule(running, IN_HARBOR)
        fake.is_down = True

        answer = running.admin.delete("/api/groups/shops", params={"keep_in_harbor": True})

        assert answer.status_code == 200
        assert running.admin.get("/api/groups/shops").status_code == 404


def test_rule_with_a_label_runs_on_a_schedule(harbor_ground_control: HarborParts) -> None:
    with reachable(harbor_ground_control) as running:
        answer = make_rule(running, {"in_harbor": {"name_filter": "acme/**", "label": "edge"}})

        (rule,) = harbor_ground_control.fake.replication.rules.values()
        assert (answer.status_code, rule["trigger"]["type"]) == (200, "scheduled")


def test_remove_rule_made_at_a_harbor_that_is_the_source_no_more_says_so() -> None:
    with pytest.raises(InvalidInputError, match="rule 2 and endpoint 1"):
        remove_rule(None, 1, 2)
