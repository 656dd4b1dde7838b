"""Metrics and probes: who may read them, what they count, and what they say when something is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import text

from harbor_satellite.errors import RemoteError
from harbor_satellite.ground_control import outbox
from harbor_satellite.ground_control.api.app import AppOptions, create_app
from harbor_satellite.ground_control.api.readiness import ReadinessProbe
from harbor_satellite.ground_control.database import make_engine, make_session_factory
from harbor_satellite.ground_control.satellites.sources import OciSource
from tests.fixtures_ground_control import SOURCE_URL, running_ground_control, serve

if TYPE_CHECKING:
    from pathlib import Path

    from harbor_satellite.ground_control.database import SessionFactory
    from tests.fixtures_ground_control import GroundControl

TOKEN = "scrape-" + "x" * 32
OPTIONS = AppOptions(source_url=SOURCE_URL, metrics_token=SecretStr(TOKEN))


class SickSource(OciSource):
    """Cannot be reached."""

    def check(self) -> None:
        raise RemoteError("no answer")


def scraped(running: GroundControl) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    response = running.anonymous.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200, response.text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_metrics_count_fleet_and_outbox(session_factory: SessionFactory) -> None:
    with running_ground_control(session_factory, OciSource(), OPTIONS) as running:
        with session_factory.begin() as session:
            outbox.enqueue_group_changed(session, "shop", running.clock())
        found = scraped(running)

    assert found["harbor_satellite_satellites", (("state", "in_step"),)] == 0
    assert found["harbor_satellite_outbox_events", ()] == 1
    assert found["harbor_satellite_outbox_age_seconds", ()] >= 0
    assert found["harbor_satellite_database_up", ()] == 1
    assert found["harbor_satellite_rollouts", (("state", "running"),)] == 0


def test_metrics_count_requests_by_template_never_by_path(session_factory: SessionFactory) -> None:
    with running_ground_control(session_factory, OciSource(), OPTIONS) as running:
        running.anonymous.get("/satellites/ztr/a-secret-token")
        running.anonymous.get("/api/satellites/edge-1/labels")
        running.anonymous.get("/no/such/path")
        running.anonymous.request("BREW", "/ping")
        found = scraped(running)
        page = running.anonymous.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text

    routes = {dict(labels)["route"] for name, labels in found if name == "harbor_satellite_http_requests_total"}
    assert {"/satellites/ztr/{token}", "/api/satellites/{satellite}/labels", "unmatched"} <= routes
    assert found["harbor_satellite_site_calls_total", (("call", "claim"), ("outcome", "refused"))] == 1
    assert not any(word in page for word in ("a-secret-token", "edge-1", "such", "BREW"))


def test_metrics_of_the_fleet_are_read_once_in_a_while(session_factory: SessionFactory) -> None:
    with running_ground_control(session_factory, OciSource(), OPTIONS) as running:
        before = scraped(running)
        with session_factory.begin() as session:
            outbox.enqueue_group_changed(session, "shop", running.clock())
        after = scraped(running)

    key = ("harbor_satellite_outbox_events", ())
    assert before[key] == after[key] == 0


def test_metrics_are_shown_to_people_and_to_the_token_only(session_factory: SessionFactory) -> None:
    basic = ("admin", "Ground-Control-1")
    with running_ground_control(session_factory, OciSource(), OPTIONS) as running:
        answers = [
            running.anonymous.get("/metrics"),
            running.anonymous.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}x"}),
            running.anonymous.get("/metrics", auth=basic),
        ]

    assert [answer.status_code for answer in answers] == [401, 401, 200]


def test_metrics_without_a_token_set_are_for_people_only(ground_control: GroundControl) -> None:
    for header in ("Bearer", "Bearer None"):
        assert ground_control.anonymous.get("/metrics", headers={"Authorization": header}).status_code == 401
    assert ground_control.admin.get("/metrics").status_code == 200


def test_metrics_and_probes_without_database(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'no' / 'gc.db'}")
    app = create_app(OPTIONS, make_session_factory(engine), OciSource())

    with serve(app) as url:
        metrics = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        ready, alive = httpx.get(f"{url}/readyz"), httpx.get(f"{url}/healthz")
    engine.dispose()

    assert "harbor_satellite_database_up 0.0" in metrics.text
    assert (ready.status_code, ready.json()["database"]) == (503, "down")
    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})


def test_readyz_of_a_schema_that_was_not_migrated_is_not_ready(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'gc.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE something (id INTEGER)"))
    app = create_app(OPTIONS, make_session_factory(engine), OciSource())

    found = ReadinessProbe(app.state.context).look()
    engine.dispose()

    assert (found.database, found.schema, found.is_ready) == ("up", "down", False)


def test_readyz_source_and_prefect_away_are_told_and_fail_nothing(session_factory: SessionFactory) -> None:
    options = AppOptions(source_url=SOURCE_URL, prefect_api_internal_url="http://prefect.test/api")
    app = create_app(options, session_factory, SickSource())
    transport = httpx.MockTransport(lambda _request: httpx.Response(503))

    found = ReadinessProbe(app.state.context, transport).look()

    assert (found.source, found.prefect, found.is_ready) == ("down", "down", True)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_credentials(ground_control: GroundControl, path: str) -> None:
    assert ground_control.anonymous.get(path).status_code == 200
