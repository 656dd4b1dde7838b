"""A real Ground Control, a real agent's way to it, and a link that is cut: receipts come in order, each once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from harbor_satellite.edge.delivery import leave_receipt
from harbor_satellite.edge.proxy import RunningProxy
from harbor_satellite.edge.reporter import Reporter
from harbor_satellite.ground_control.database import make_engine, make_session_factory, migrate
from harbor_satellite.ground_control.fleet import reports
from harbor_satellite.ground_control.models import Satellite
from harbor_satellite.ground_control.people import users
from harbor_satellite.ground_control.satellites.sources import OciSource
from harbor_satellite.satellite.applied import LastRun
from harbor_satellite.satellite.spool import Spool
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from harbor_satellite.state.wire import Registration
from tests.fakes.link import link
from tests.fixtures_ground_control import ADMIN_PASSWORD, GroundControl, _fresh, running_ground_control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.link import Link


class World:
    """Both ends, the link between them, and the site's reporter, which a test lets report."""

    def __init__(self, folder: Path, wan: Link, centre: GroundControl, proxy: RunningProxy) -> None:
        self.wan = wan
        self.centre = centre
        self.store = SatelliteStore(folder)
        self.settings = SatelliteSettings(data_dir=folder, ground_control_url=wan.url)
        self.reporter = Reporter("shop-1", transport=proxy.transport, load=lambda: self.settings)

    def run(self, number: int) -> None:
        """Leave the record of a run, and its receipt."""
        last = LastRun(datetime.now(UTC), 1.0, number, number, 0, f"run {'x' * number}")
        self.store.save_applied(replace(self.store.applied(), last_run=last))
        leave_receipt(self.settings)

    def history(self) -> list[int]:
        """Return how many bytes each run read, as the centre has it, in the order of arrival."""
        with self.centre.factory() as session:
            rows = reports.list_reports(session, "shop-1", 100)
            return [row.bytes_from_source for row in reversed(rows)]

    def activity(self) -> str:
        with self.centre.factory() as session:
            return session.scalars(select(Satellite.activity)).one()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    url = f"sqlite:///{tmp_path / 'centre.sqlite'}"
    migrate(url)
    engine = make_engine(url)
    factory = make_session_factory(engine)
    with factory.begin() as session:
        users.ensure_first_user(session, SecretStr(ADMIN_PASSWORD), datetime.now(UTC))
    with running_ground_control(factory, OciSource()) as running, link(running.url) as wan:
        centre = _fresh(running)
        answer = centre.claim(centre.register("shop-1")).json()
        store = SatelliteStore(tmp_path / "edge")
        store.save_registration(Registration.model_validate(answer))
        proxy = RunningProxy(store)
        proxy.start()
        try:
            yield World(tmp_path / "edge", wan, centre, proxy)
        finally:
            proxy.stop(1)
    engine.dispose()


def test_receipts_of_a_cut_link_arrive_in_order_and_once(world: World) -> None:
    world.run(1)
    world.reporter.report_once()
    world.wan.down()
    for number in (2, 3, 4):
        world.run(number)
        world.reporter.report_once()
    assert world.history() == [1]
    world.wan.up()

    world.reporter.report_once()
    world.reporter.report_once()

    assert world.history() == [1, 2, 3, 4]
    assert (world.activity(), Spool(world.store.folder).waiting()) == ("run xxxx", [])


def test_receipts_whose_delivery_is_cut_in_the_middle_arrive_in_order_and_once(world: World) -> None:
    world.reporter.report_once()
    world.wan.reset()
    for number in (2, 3, 4, 5):
        world.run(number)
    world.wan.cut_at(60, 250)  # within the first answer, which the centre has given by then, and within a later one

    for _ in range(4):
        world.reporter.report_once()

    assert world.history() == [0, 2, 3, 4, 5]
    assert Spool(world.store.folder).waiting() == []


def test_idle_reports_share_one_connection_and_are_small(world: World) -> None:
    for _ in range(2):
        world.reporter.report_once()
    world.wan.reset()

    for _ in range(5):
        world.reporter.report_once()

    counters = world.wan.counters()
    assert (counters.connections, counters.requests) == (0, 5)
    assert (counters.bytes_from_client + counters.bytes_to_client) / 5 < 900
    assert world.history() == [0]


def test_report_after_the_centre_was_restored_from_a_backup_is_whole_again(world: World) -> None:
    world.run(1)
    world.reporter.report_once()
    with world.centre.factory.begin() as session:
        session.scalars(select(Satellite)).one().report_fingerprint = None

    world.reporter.report_once()

    assert (world.history(), world.activity()) == ([1, 1], "run x")
