"""The fleet: who is not on the state that it should be on, why, and how the list is filtered."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, select

from harbor_satellite.ground_control.groups import groups
from harbor_satellite.ground_control.models import (
    AuditEvent,
    GenerationPin,
    Group,
    GroupState,
    Satellite,
    SatelliteGroup,
    UnresolvedArtifact,
)
from harbor_satellite.ground_control.satellites import satellite_states
from harbor_satellite.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures_ground_control import GroundControl

FIRST, SECOND = (Digest.of(name) for name in (b"first", b"second"))


def publish(running: GroundControl, satellite: str, digest: Digest) -> None:
    with running.factory.begin() as session:
        satellite_states.record_satellite_state(session, satellite, digest, running.clock())


def publish_group(running: GroundControl, group: str, generation: int) -> None:
    with running.factory.begin() as session:
        row = groups.show_group(session, group)
        session.add(
            GroupState(
                group_id=row.id, generation=generation, digest=str(FIRST), content="{}", created_at=running.clock()
            )
        )


def fleet(running: GroundControl, **query: Any) -> list[dict[str, Any]]:
    response = running.admin.get("/api/fleet", params=query)
    assert response.status_code == 200, response.text
    rows: list[dict[str, Any]] = response.json()
    return rows


def states(running: GroundControl) -> dict[str, str]:
    return {row["name"]: row["state"] for row in fleet(running)}


@pytest.fixture
def one_of_each(ground_control: GroundControl) -> GroundControl:
    """A satellite in every state; each has the name of its state."""
    running = ground_control
    running.register("never-seen")
    stale = running.enroll("stale")
    running.report("stale", stale)
    running.clock.advance(hours=1)
    names = ("waiting", "in-step", "rolled-back", "failing", "behind", "revoked")
    auths = {name: running.enroll(name) for name in names}
    for name in ("in-step", "rolled-back", "failing", "behind"):
        publish(running, name, FIRST)
        publish(running, name, SECOND)
    reports: dict[str, dict[str, Any]] = {
        "waiting": {},
        "in-step": {"latest_state_digest": str(SECOND)},
        "rolled-back": {"latest_state_digest": str(FIRST), "is_rolled_back": True},
        "failing": {"failures": [{"reference": "acme/app:v1", "reason": "digest mismatch"}]},
        "behind": {"latest_state_digest": str(FIRST), "activity": "paused: no window is open until 22:00"},
        "revoked": {},
    }
    for name, values in reports.items():
        assert running.report(name, auths[name], **values).status_code == 200
    with running.factory.begin() as session:
        row = session.scalars(select(Satellite).where(Satellite.name == "revoked")).one()
        row.lifecycle = "revoked"
    return running


def test_fleet_gives_each_satellite_its_state(one_of_each: GroundControl) -> None:
    found = states(one_of_each)

    assert found == {name: name.replace("-", "_") for name in found}
    assert len(found) == 8


def test_fleet_summary_counts_what_the_list_shows(one_of_each: GroundControl) -> None:
    summary = one_of_each.admin.get("/api/fleet/summary").json()

    assert set(summary["states"].values()) == {1}
    assert len(summary["states"]) == summary["satellite_count"] == 8
    assert summary["lifecycles"] == {"registered": 1, "active": 6, "stale": 0, "revoked": 1}
    assert summary["oldest_lag_seconds"] >= 0


def test_fleet_reasons_name_what_an_operator_needs(one_of_each: GroundControl) -> None:
    reasons = {row["name"]: row["reason"] for row in fleet(one_of_each)}

    assert reasons["in-step"] == ""
    assert "1 failed since" in reasons["failing"]
    assert "acme/app:v1: digest mismatch" in reasons["failing"]
    assert "no window is open until 22:00" in reasons["behind"]
    assert "due every 30 s" in reasons["stale"]


@pytest.mark.parametrize("state", ["in_step", "behind", "failing", "stale", "never_seen", "revoked", "waiting"])
def test_fleet_filter_by_state_gives_only_that(one_of_each: GroundControl, state: str) -> None:
    response = one_of_each.admin.get("/api/fleet", params={"state": state})

    assert [row["state"] for row in response.json()] == [state]
    assert response.headers["X-Total-Count"] == "1"


def test_fleet_sorted_by_lag_begins_with_the_longest(ground_control: GroundControl) -> None:
    for name in ("edge-1", "edge-2", "edge-3"):
        auth = ground_control.enroll(name)
        ground_control.report(name, auth)
    publish(ground_control, "edge-2", FIRST)
    ground_control.clock.advance(seconds=10)
    publish(ground_control, "edge-3", FIRST)

    longest_first = fleet(ground_control, sort="-lag")
    shortest_first = fleet(ground_control, sort="lag")

    assert [row["name"] for row in longest_first] == ["edge-2", "edge-3", "edge-1"]
    assert [row["name"] for row in shortest_first] == ["edge-1", "edge-3", "edge-2"]
    assert 10 <= longest_first[0]["lag_seconds"] < 40


@pytest.mark.parametrize(
    "sort", ["name", "-name", "last_seen", "-last_seen", "failures", "-failures", "bytes", "-bytes"]
)
def test_fleet_sorted_is_whole_in_every_order(one_of_each: GroundControl, sort: str) -> None:
    first = fleet(one_of_each, sort=sort, limit=5)
    rest = fleet(one_of_each, sort=sort, limit=5, offset=5)

    assert len({row["name"] for row in first + rest}) == 8


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 501},
        {"offset": -1},
        {"state": "fine"},
        {"sort": "colour"},
        {"label": "region"},
        {"label": ["a=b"] * 11},
        {"name": "A\u0000"},
        {"group": "No Group"},
    ],
    ids=repr,
)
def test_fleet_bad_query_is_refused(ground_control: GroundControl, query: dict[str, Any]) -> None:
    assert ground_control.admin.get("/api/fleet", params=query).status_code == 400


def test_fleet_row_names_wanted_and_applied_generations(ground_control: GroundControl) -> None:
    ground_control.sync_group("shop", "acme/app")
    auth = ground_control.enroll("edge-1", "shop")
    publish_group(ground_control, "shop", 1)
    publish_group(ground_control, "shop", 2)
    publish(ground_control, "edge-1", SECOND)
    groups_said = [{"group": "shop", "generation": 1, "digest": str(FIRST)}]
    ground_control.report("edge-1", auth, groups=groups_said)

    (row,) = fleet(ground_control, group="shop")

    assert row["groups"] == [
        {"group": "shop", "wanted_generation": 2, "applied_generation": 1, "is_held": False, "unresolved_count": 0}
    ]
    assert "shop is at generation 1 of 2" in row["reason"]


def test_fleet_row_names_held_pins_and_what_the_source_lacks(ground_control: GroundControl) -> None:
    ground_control.sync_group("shop", "acme/app")
    auth = ground_control.enroll("edge-1", "shop")
    publish_group(ground_control, "shop", 1)
    publish(ground_control, "edge-1", FIRST)
    ground_control.report("edge-1", auth, latest_state_digest=str(FIRST))
    now = ground_control.clock()
    with ground_control.factory.begin() as session:
        member = session.scalars(select(SatelliteGroup)).one()
        ids = {"satellite_id": member.satellite_id, "group_id": member.group_id}
        session.add(GenerationPin(**ids, generation=1, is_held=True, updated_at=now))
        session.add(UnresolvedArtifact(group_id=member.group_id, reference="acme/app:v1", reason="gone", since=now))

    (row,) = fleet(ground_control)

    assert row["state"] == "in_step"
    assert row["reason"] == "shop is held at generation 1; the source lacks 1 of what its groups name"


def test_fleet_summary_says_how_far_each_group_is(ground_control: GroundControl) -> None:
    ground_control.sync_group("shop", "acme/app")
    publish_group(ground_control, "shop", 3)
    for name, generation in (("edge-1", 3), ("edge-2", 2)):
        auth = ground_control.enroll(name, "shop")
        ground_control.report(name, auth, groups=[{"group": "shop", "generation": generation, "digest": str(FIRST)}])
    ground_control.register("edge-3", "shop")

    (progress,) = ground_control.admin.get("/api/fleet/summary").json()["groups"]

    assert progress == {"group": "shop", "generation": 3, "satellite_count": 3, "in_step_count": 1}


def test_fleet_staged_group_wants_what_was_released(ground_control: GroundControl) -> None:
    ground_control.sync_group("shop", "acme/app")
    publish_group(ground_control, "shop", 3)
    ground_control.register("edge-1", "shop")
    with ground_control.factory.begin() as session:
        row = session.scalars(select(Group)).one()
        row.is_staged, row.released_generation = True, 2

    (found,) = fleet(ground_control)

    assert found["groups"][0]["wanted_generation"] == 2


@pytest.fixture
def counted_queries(ground_control: GroundControl) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    engine = ground_control.factory.kw["bind"]
    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


def test_fleet_page_costs_the_same_queries_whatever_its_size(
    ground_control: GroundControl, counted_queries: list[str]
) -> None:
    ground_control.sync_group("shop", "acme/app")
    for number in range(12):
        ground_control.register(f"edge-{number:02}", "shop")

    counts = []
    for limit in (1, 12):
        counted_queries.clear()
        assert len(fleet(ground_control, limit=limit)) == limit
        counts.append(len(counted_queries))

    assert counts[0] == counts[1]


def test_labels_replaced_are_shown_filtered_by_and_recorded(ground_control: GroundControl) -> None:
    ground_control.register("edge-1")
    ground_control.register("edge-2")
    labels = {"region": "north", "kind/size": "Large 2"}

    first = ground_control.admin.put("/api/satellites/edge-1/labels", json={"old": "1"})
    second = ground_control.admin.put("/api/satellites/edge-1/labels", json=labels)

    assert (first.status_code, second.status_code) == (200, 200)
    assert ground_control.admin.get("/api/satellites/edge-1/labels").json() == labels
    found = fleet(ground_control, label=["region=north", "kind/size=Large 2"])
    assert [(row["name"], row["labels"]) for row in found] == [("edge-1", labels)]
    assert fleet(ground_control, label=["region=north", "kind/size=small"]) == []
    with ground_control.factory() as session:
        changes = session.scalars(select(AuditEvent.changes).order_by(AuditEvent.id)).all()
    assert changes[-1] == {"old": ["1", None], "region": [None, "north"], "kind/size": [None, "Large 2"]}


@pytest.mark.parametrize(
    "labels",
    [{"": "x"}, {"A": "x"}, {"-a": "x"}, {"a-": "x"}, {"a" * 64: "x"}, {"a": "x" * 64}, {"a": "\u0000"}, {"a": 1}, []],
    ids=repr,
)
def test_labels_that_break_a_rule_change_nothing(ground_control: GroundControl, labels: Any) -> None:
    ground_control.register("edge-1")
    ground_control.admin.put("/api/satellites/edge-1/labels", json={"region": "north"})

    response = ground_control.admin.put("/api/satellites/edge-1/labels", json=labels)

    assert response.status_code == 400
    assert ground_control.admin.get("/api/satellites/edge-1/labels").json() == {"region": "north"}


def test_labels_of_an_unknown_satellite_are_not_found(ground_control: GroundControl) -> None:
    assert ground_control.admin.put("/api/satellites/nope/labels", json={}).status_code == 404
    assert ground_control.admin.get("/api/satellites/nope/labels").status_code == 404


@pytest.mark.parametrize("path", ["/api/fleet", "/api/fleet/summary", "/api/satellites/edge-1/reports"])
def test_fleet_is_shown_to_nobody_who_is_not_logged_in(ground_control: GroundControl, path: str) -> None:
    assert ground_control.anonymous.get(path).status_code == 401


def test_reports_are_listed_newest_first_with_their_groups(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    said = [{"group": "shop", "generation": 3, "digest": str(FIRST)}]
    ground_control.report("edge-1", auth, image_count=1)
    ground_control.report("edge-1", auth, image_count=2, groups=said)

    listed = ground_control.admin.get("/api/satellites/edge-1/reports", params={"limit": 10}).json()

    assert [item["image_count"] for item in listed] == [2, 1]
    assert listed[0]["groups"] == said


def test_fleet_stale_is_told_by_the_clock_not_by_a_flow(ground_control: GroundControl) -> None:
    auth = ground_control.enroll("edge-1")
    ground_control.report("edge-1", auth)  # every 30 s
    before = states(ground_control)

    ground_control.clock.offset += timedelta(seconds=91)

    assert (before, states(ground_control)) == ({"edge-1": "waiting"}, {"edge-1": "stale"})
