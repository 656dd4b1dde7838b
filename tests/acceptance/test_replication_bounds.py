"""The site's bounds on its link hold at the link itself: rate, caps, sync windows."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.acceptance import artifacts, asking
from tests.acceptance.pulling import pull
from tests.acceptance.replicating import kill, run_place, until_done, wait_for
from tests.fakes.link import link

if TYPE_CHECKING:
    from pathlib import Path

    from harbor_satellite.processes import Child
    from tests.acceptance.site import Site
    from tests.fakes.link import Link

APP, OTHER = "acme/app:v1", "acme/other:v1"
RATE = "HARBOR_SATELLITE_BYTES_PER_SECOND"
DAILY = "HARBOR_SATELLITE_DAILY_BYTES"
MONTHLY = "HARBOR_SATELLITE_MONTHLY_BYTES"
WINDOWS = "HARBOR_SATELLITE_SYNC_WINDOWS"
BUFFERS_BYTES = 700_000  # what sockets and the line hold when a read ends
BURST_SECONDS = 0.25
HEADS_BYTES = 60_000  # of HTTP, and manifests


def test_rate_limit_holds_for_what_is_read(tmp_path: Path) -> None:
    rate = 1_000_000
    with run_place(tmp_path) as (place, site), link(site.url) as local:
        images = {name: artifacts.push_large_image(place.central, name, 1_200_000, 1_300_000) for name in (APP, OTHER)}
        place.decide({"group": images})
        site.settings[RATE] = str(rate)
        site.settings["HARBOR_SATELLITE_LOCAL_REGISTRY_URL"] = local.url

        began = time.monotonic()
        run = site.start("sync")
        counts = count_until_ended(run, local, began)

        assert (run.returncode, site.holds(*images)) == (0, images)
        assert counts[-1][1] > 5_000_000
        # What is read is written at once: so that is never ahead of the rate either, whoever was slow in between.
        assert [count for seconds, count in counts if count > rate * (seconds + BURST_SECONDS) + HEADS_BYTES] == []


def count_until_ended(run: Child, line: Link, began: float) -> list[tuple[float, int]]:
    """Read what the run has sent over a line, again and again, each with a time that is not before it."""
    counts = []
    while True:
        has_ended = run.returncode is not None
        count = line.counters().bytes_from_client
        counts.append((time.monotonic() - began, count))
        if has_ended:
            return counts
        time.sleep(0.02)


@pytest.mark.parametrize("setting", [DAILY, pytest.param(MONTHLY, marks=pytest.mark.slow)])
def test_cap_stops_in_the_middle_of_a_layer_and_the_rest_comes_when_it_is_raised(tmp_path: Path, setting: str) -> None:
    size, cap = 8_000_000, 3_000_000
    with run_place(tmp_path) as (place, site):
        digest = artifacts.push_large_image(place.central, APP, size)
        place.decide({"group": {APP: digest}})
        place.wan.shape(bytes_per_second=8_000_000)
        site.settings[setting] = str(cap)

        stopped = site.sync()
        first = place.wan.counters()
        refused = site.paused_sync()
        second = place.wan.counters()
        site.settings[setting] = str(100 * cap)
        until_done(site)

        assert (stopped.returncode, stopped.references("paused")) == (3, [APP])
        assert "cap" in stopped.said["paused"][0]["reason"]
        assert first.bytes_to_client <= cap + BUFFERS_BYTES
        assert "cap" in refused
        assert second == first
        assert place.wan.counters().bytes_to_client <= size + BUFFERS_BYTES
        assert site.holds(APP) == {APP: digest}


def test_daily_cap_that_was_reached_yesterday_lets_the_rest_come_today(tmp_path: Path) -> None:
    size, cap = 5_000_000, 3_000_000
    with run_place(tmp_path) as (place, site):
        digest = artifacts.push_large_image(place.central, APP, size)
        place.decide({"group": {APP: digest}})
        place.wan.shape(bytes_per_second=8_000_000)
        site.settings[DAILY] = str(cap)
        stopped = site.sync()

        move_ledger_back_a_day(site)
        run = site.sync()

        assert (stopped.returncode, stopped.references("paused")) == (3, [APP])
        assert (run.returncode, site.holds(APP)) == (0, {APP: digest})
        assert place.wan.counters().bytes_to_client <= size + BUFFERS_BYTES


def move_ledger_back_a_day(site: Site) -> None:
    """Let a day pass: the process's clock cannot be set, its ledger's days can."""
    path = site.data_dir / "ledger.json"
    document = json.loads(path.read_text())
    document["days"] = {
        (datetime.fromisoformat(day) - timedelta(days=1)).date().isoformat(): count
        for day, count in document["days"].items()
    }
    path.write_text(json.dumps(document))


def test_cap_holds_over_runs_of_many_small_images(tmp_path: Path) -> None:
    cap = 600_000
    names = [f"acme/app-{number}:v1" for number in range(20)]
    with run_place(tmp_path) as (place, site):
        place.decide({"group": {name: place.push(name, name, 100_000) for name in names}})
        site.settings[DAILY] = str(cap)

        run = site.sync()
        site.paused_sync()

        assert run.returncode == 3
        assert run.references("failed") == []
        assert place.wan.counters().bytes_to_client <= cap + BUFFERS_BYTES


@pytest.mark.slow
def test_cap_holds_over_runs_that_are_killed(tmp_path: Path) -> None:
    size, cap = 9_000_000, 4_000_000
    with run_place(tmp_path) as (place, site):
        place.decide({"group": {APP: artifacts.push_large_image(place.central, APP, size)}})
        place.wan.shape(bytes_per_second=4_000_000)
        site.settings[DAILY] = str(cap)
        for _ in range(3):
            before = place.wan.counters().bytes_to_client
            run = site.start("sync")
            wait_for(partial(_came, place.wan, before + 500_000), run)
            kill(run)

        run_to_the_end = site.sync()

        assert (run_to_the_end.returncode, run_to_the_end.references("paused")) == (3, [APP])
        assert cap // 2 < place.wan.counters().bytes_to_client <= cap + BUFFERS_BYTES


def _came(wan: Link, count: int) -> bool:
    return wan.counters().bytes_to_client > count


def test_outside_the_sync_windows_nothing_is_asked_of_the_source(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        old = {APP: place.push(APP, "old")}
        place.decide({"group": old})
        until_done(site)
        new = {APP: place.push(APP, "new")}
        place.decide({"group": new})
        place.wan.reset()
        site.settings[WINDOWS] = window_around(datetime.now(UTC) + timedelta(hours=12))

        said = site.paused_sync()
        meanwhile = place.wan.counters()
        with asking.client(base_url=site.url, timeout=60.0) as client:
            held = pull(client, "acme/app", "v1")
        site.settings[WINDOWS] = window_around(datetime.now(UTC))
        run = site.sync()

        assert "outside the sync windows" in said
        assert meanwhile.connections == 0
        assert held == old[APP]
        assert (run.returncode, site.holds(APP)) == (0, new)


def window_around(moment: datetime) -> str:
    """Write a window of two hours around a moment, in UTC."""
    begin, end = moment - timedelta(hours=1), moment + timedelta(hours=1)
    return f"{begin:%H:%M}-{end:%H:%M}"


@pytest.mark.slow
def test_window_of_another_time_zone_is_read_by_the_site_s_clock(tmp_path: Path) -> None:
    with run_place(tmp_path) as (place, site):
        place.decide({"group": {APP: place.push(APP, "app")}})
        site.settings[WINDOWS] = window_around(datetime.now(UTC))
        site.settings["HARBOR_SATELLITE_TIMEZONE"] = "Asia/Tokyo"

        said = site.paused_sync()

        assert "outside the sync windows" in said
        assert place.wan.counters().connections == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_window_that_closes_stops_in_the_middle_of_a_layer(tmp_path: Path) -> None:
    size = 60_000_000
    with run_place(tmp_path) as (place, site):
        digest = artifacts.push_large_image(place.central, APP, size)
        place.decide({"group": {APP: digest}})
        now = datetime.now(UTC)
        if now.second > 30:  # else there may be no time left to begin in
            time.sleep(60.5 - now.second)
            now = datetime.now(UTC)
        place.wan.shape(bytes_per_second=size // 90)
        site.settings[WINDOWS] = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(minutes=1):%H:%M}"

        run = site.start("sync")
        run.wait(120)
        stopped = place.wan.counters().bytes_to_client
        place.wan.shape(bytes_per_second=20_000_000)
        del site.settings[WINDOWS]
        until_done(site)

        assert run.returncode == 3
        assert stopped < size
        assert place.wan.counters().bytes_to_client <= size + BUFFERS_BYTES
        assert site.holds(APP) == {APP: digest}
