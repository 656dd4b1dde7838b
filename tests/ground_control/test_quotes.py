"""What a rollout would cost: bytes, time, disk and broken limits, and the API around rollouts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, select, update

from harbor_satellite.ground_control.models import AppliedGroupRow, AuditEvent, Satellite, SatelliteConfig
from harbor_satellite.ground_control.rollouts import quotes
from harbor_satellite.ground_control.rollouts.rollout_plan import Wave
from harbor_satellite.ground_control.rollouts.rollouts import RolloutPlan
from tests.ground_control.fleet_simulation import MEBIBYTE, NOW, Fleet

if TYPE_CHECKING:
    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.rollouts.quotes import Quote, SiteQuote
    from tests.fixtures_ground_control import GroundControl


@pytest.fixture
def fleet(session_factory: SessionFactory) -> Fleet:
    fleet = Fleet(session_factory)
    fleet.add_group()
    fleet.publish(1)
    return fleet


def quote(fleet: Fleet, **values: Any) -> Quote:
    with fleet.factory() as session:
        return quotes.quote_rollout(session, RolloutPlan("shop", None, (Wave("all", percent=100),)), **values)


def quote_one(fleet: Fleet, *, config: dict[str, Any] | None = None, **values: Any) -> SiteQuote:
    """Quote generation 2 for one site that is on generation 1."""
    (name,) = fleet.add_satellites(1)
    fleet.publish_satellites()
    fleet.report([name])
    with fleet.factory.begin() as session:
        if config is not None:
            row = {"name": "slow", "source_registry": "", "content": config, "created_at": NOW, "updated_at": NOW}
            session.add(SatelliteConfig(**row))
            values["config_name"] = "slow"
        if values:
            session.execute(update(Satellite).values(**values))
    fleet.publish(2)
    (site,) = quote(fleet).sites
    return site


def test_quote_counts_what_the_site_s_generation_does_not_have(fleet: Fleet) -> None:
    site = quote_one(fleet)

    assert (site.from_generation, site.bytes_at_most) == (1, MEBIBYTE)


def test_quote_of_a_site_without_a_receipt_counts_everything(fleet: Fleet) -> None:
    fleet.add_satellites(1)

    (site,) = quote(fleet).sites

    assert (site.from_generation, site.bytes_at_most) == (0, 2 * MEBIBYTE)


def test_quote_without_sizes_says_that_it_does_not_know(fleet: Fleet) -> None:
    fleet.publish(2, size=None)
    fleet.add_satellites(1)

    found = quote(fleet)

    assert (found.bytes_at_most, found.unknown_bytes) == (None, 1)
    assert (found.sites[0].bytes_at_most, found.sites[0].seconds) == (None, None)


def test_quote_of_a_link_that_was_never_measured_has_no_time(fleet: Fleet) -> None:
    assert quote_one(fleet).seconds is None


@pytest.mark.parametrize(
    ("config", "seconds"), [(None, 1.0), ({"bytes_per_second": MEBIBYTE // 4}, 4.0)], ids=["link", "cap"]
)
def test_quote_takes_the_slower_of_link_and_cap(fleet: Fleet, config: dict[str, Any] | None, seconds: float) -> None:
    site = quote_one(fleet, config=config, link_bytes_per_second=MEBIBYTE)

    assert site.seconds == seconds


@pytest.mark.parametrize(("free", "fits"), [(None, None), (MEBIBYTE, True), (MEBIBYTE - 1, False)])
def test_quote_compares_with_the_free_disk(fleet: Fleet, free: int | None, fits: object) -> None:
    site = quote_one(fleet, storage_free_bytes=free)

    assert site.fits_on_disk is fits


def test_quote_names_the_caps_that_it_breaks(fleet: Fleet) -> None:
    config = {"daily_bytes": MEBIBYTE, "monthly_bytes": 100 * MEBIBYTE}

    site = quote_one(fleet, config=config, bytes_today=1, bytes_this_month=1)

    assert site.breaks_caps == ("daily_bytes",)


@pytest.mark.parametrize(
    ("windows", "fits"),
    [(["02:00-02:10"], False), (["02:00-03:00"], True), (["Sun 23:50-24:00", "Mon 00:00-00:10"], True), ([], None)],
    ids=["too short", "long enough", "over the end of the week", "always open"],
)
def test_quote_compares_with_the_longest_window(fleet: Fleet, windows: list[str], fits: object) -> None:
    site = quote_one(fleet, config={"sync_windows": windows}, link_bytes_per_second=MEBIBYTE // 1000)

    assert site.fits_in_window is fits


def test_quote_of_many_sites_is_a_small_answer_of_few_questions(fleet: Fleet) -> None:
    names = fleet.add_satellites(50)
    fleet.publish(2)
    asked: list[object] = []
    with fleet.factory.begin() as session:
        ids = session.scalars(select(Satellite.id).where(Satellite.name.in_(names[:40]))).all()
        session.add_all(
            AppliedGroupRow(satellite_id=key, group_name="shop", generation=1, digest="", reported_at=NOW)
            for key in ids
        )

    with fleet.factory() as session:
        event.listen(session.connection(), "before_cursor_execute", lambda *given: asked.append(given))
        plan = RolloutPlan("shop", None, (Wave("all", percent=100),))
        found = quotes.quote_rollout(session, plan, limit=3, offset=1)

    assert [site.satellite for site in found.sites] == names[1:4]
    assert (found.total, found.bytes_at_most) == (50, (40 + 20) * MEBIBYTE)
    assert len(asked) < 10


# -- over HTTP ----------------------------------------------------------------------------------------------------


@pytest.fixture
def served(ground_control: GroundControl) -> GroundControl:
    fleet = Fleet(ground_control.factory)
    fleet.add_group()
    fleet.publish(1)
    fleet.add_satellites(4)
    fleet.publish(2)
    return ground_control


BODY = {"group": "shop", "waves": [{"percent": 25, "soak_seconds": 60, "name": "canary"}], "max_failures": 1}


def test_api_rollout_is_planned_started_and_shown(served: GroundControl) -> None:
    planned = served.admin.post("/api/rollouts", json=BODY)
    started = served.admin.post(f"/api/rollouts/{planned.json()['id']}/start")

    listed = served.admin.get("/api/rollouts", params={"group": "shop", "state": "running"})
    satellites = served.admin.get(f"/api/rollouts/{planned.json()['id']}/satellites", params={"wave": 1})
    assert (planned.status_code, planned.json()["state"]) == (201, "planned")
    assert (started.json()["state"], started.json()["generation"]) == ("running", 2)
    assert [(wave["name"], wave["total"], wave["waiting"]) for wave in started.json()["waves"]] == [
        ("canary", 1, 1),
        ("everybody else", 3, 3),
    ]
    assert (listed.headers["X-Total-Count"], len(satellites.json())) == ("1", 3)


def test_api_second_rollout_of_a_group_conflicts(served: GroundControl) -> None:
    first, second = (served.admin.post("/api/rollouts", json=BODY).json()["id"] for _ in range(2))
    served.admin.post(f"/api/rollouts/{first}/start")

    answer = served.admin.post(f"/api/rollouts/{second}/start")

    assert answer.status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        {**BODY, "waves": []},
        {**BODY, "waves": [{"percent": 5, "label": {"ring": "a"}}]},
        {**BODY, "waves": [{"percent": 101}]},
        {**BODY, "receipt_timeout_seconds": 0},
    ],
    ids=["no waves", "two ways", "too many", "no time"],
)
def test_api_rollout_that_makes_no_sense_is_refused(served: GroundControl, body: dict[str, Any]) -> None:
    assert served.admin.post("/api/rollouts", json=body).status_code in {400, 422}


def test_api_quote_changes_nothing(served: GroundControl) -> None:
    answer = served.admin.post("/api/rollouts/quote", json=BODY, params={"limit": 2})

    assert (answer.status_code, answer.json()["total"], len(answer.json()["satellites"])) == (200, 4, 2)
    assert served.admin.get("/api/rollouts").json() == []


def test_api_pin_is_held_and_let_go_and_both_are_in_the_audit_log(served: GroundControl) -> None:
    path = "/api/satellites/edge-00000/pins/shop"

    held = served.admin.put(path, json={"generation": 1}).json()
    released = served.admin.delete(path).json()

    assert (held["generation"], held["is_held"], held["is_rollback"]) == (1, True, True)
    assert (released["generation"], released["is_held"]) == (2, False)
    with served.factory() as session:
        mine = select(AuditEvent.action).where(AuditEvent.resource == "satellite:edge-00000")
        actions = session.scalars(mine.order_by(AuditEvent.id)).all()
    assert actions == ["pin.hold", "pin.release"]


def test_api_pin_to_a_generation_that_is_not_kept_is_not_found(served: GroundControl) -> None:
    answer = served.admin.put("/api/satellites/edge-00000/pins/shop", json={"generation": 7})

    assert answer.status_code == 404


@pytest.mark.parametrize("verb", ["pause", "resume", "abort", "rollback"])
def test_api_verbs_are_refused_where_they_do_not_fit(served: GroundControl, verb: str) -> None:
    rollout = served.admin.post("/api/rollouts", json=BODY).json()["id"]
    served.admin.post(f"/api/rollouts/{rollout}/abort", json={"reason": "changed my mind"})

    answer = served.admin.post(f"/api/rollouts/{rollout}/{verb}")

    assert answer.status_code == (200 if verb == "rollback" else 409)
