"""A whole site on a host of its own, whose link is cut, throttled and refused, while a client pulls in a loop.

The site's schedule is due once a year: what reaches it sooner comes by Prefect's events, or by the site's own clock
where Prefect cannot be had. What its parts do when they are killed: ``test_edge_kills.py``.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.acceptance.centre import wait_until
from tests.acceptance.shop import TAG, Shop
from tests.fakes.host import Host, refused_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.acceptance.centre import Centre
    from tests.acceptance.edge_site import Puller

SECONDS = 60.0
"""What is said to take seconds takes no longer, on a machine that others use as well; the schedule takes months."""
LONGEST_PULL_SECONDS = 15.0  # as of what a run does to the registry; a busy machine makes it some seconds
RATE = 200_000  # bytes per second
LARGE_BYTES = 1_600_000
OPENED: dict[str, float] = {}


@pytest.fixture(scope="module")
def opened(centre: Centre, tmp_path_factory: pytest.TempPathFactory, unique: Callable[[str], str]) -> Iterator[Shop]:
    name = unique("cuts")
    with Host([port for port in (urlsplit(url).port for url in (centre.url, centre.central.url)) if port]) as host:
        shop = Shop(name, tmp_path_factory.mktemp(name) / "site", centre, host)
        with shop.site:
            OPENED[name] = shop.open()
            yield shop


@pytest.fixture
def shop(opened: Shop) -> Iterator[Shop]:
    opened.be_well()
    yield opened
    opened.host.restore()
    opened.host.unthrottle()


def test_first_replication_starts_right_after_registration_and_not_when_the_schedule_says(shop: Shop) -> None:
    assert OPENED[shop.name] < SECONDS


def test_update_reaches_the_site_by_an_event_within_seconds(shop: Shop) -> None:
    with shop.pulling() as puller:
        digest = shop.publish()

        assert shop.wait(digest) < SECONDS
    assert_served(puller)


@pytest.mark.slow
def test_run_that_was_cut_in_the_middle_of_a_layer_ends_well_and_brings_each_byte_once(shop: Shop) -> None:
    with shop.pulling() as puller:
        shop.host.throttle(RATE)
        before = shop.host.crossed_bytes()[0]
        crossed = lambda: shop.host.crossed_bytes()[0] - before  # noqa: E731 - one line
        digest = shop.publish(LARGE_BYTES)
        wait_until(crossed, lambda found: found > LARGE_BYTES // 3, "the middle of the layer")
        run = shop.wait_run(lambda run: run["state_type"] == "RUNNING", "the run")
        shop.host.cut()
        time.sleep(4)
        shop.host.refuse()
        time.sleep(2)
        shop.host.restore()
        shop.wait(digest)
        came = crossed()
        shop.wait_quiet()
    ended = shop.wait_run(lambda found: found["id"] == run["id"], "that run")
    assert ended["state_type"] == "COMPLETED", shop.log(run["id"])
    assert came < LARGE_BYTES * 1.2
    # What a run did is on its way for seconds after its end: tasks as events, and what it logged in batches.
    wait_until(lambda: set(shop.tasks(run["id"]).values()), lambda found: found == {"COMPLETED"}, "its tasks' ends")
    wait_until(lambda: shop.log(run["id"]), lambda log: "replicated state=" in log, "all that it logged")
    assert_served(puller)


def test_run_that_was_wanted_while_the_link_was_dead_is_carried_out_once_it_is_back(shop: Shop) -> None:
    with shop.pulling() as puller:
        shop.host.cut()
        digest = shop.publish()
        wait_until(lambda: shop.runs("SCHEDULED"), _asked_for, "a run to be asked for")
        shop.host.restore()
        shop.wait(digest)
        shop.wait_quiet()
    assert shop.ended() == "COMPLETED"
    assert_served(puller)


def test_prefect_dead_site_replicates_by_its_own_clock_and_reports(shop: Shop) -> None:
    with shop.pulling() as puller:
        shop.host.refuse(shop.ground_control_port)  # so that no run comes before Prefect is gone
        digest = shop.publish()
        with refused_here(shop.prefect_port):
            shop.host.restore()
            shop.miss_a_run()
            took = shop.wait(digest)
            shop.centre.wait_status(shop.name, lambda status: status["in_step"], "the report")
        shop.wait_quiet()
    assert took < SECONDS
    assert_served(puller)


def test_ground_control_dead_site_replicates_by_its_own_clock_and_its_receipts_come_later_in_order(shop: Shop) -> None:
    states = []
    with shop.pulling() as puller:
        shop.host.refuse(shop.ground_control_port)
        for _ in range(2):
            digest = shop.publish()
            states.append(shop.centre.state_digest(shop.name))
            shop.miss_a_run()
            shop.wait(digest)
            wait_until(lambda: str(shop.store.applied().state_digest), lambda found: found == states[-1], "the record")
        before = shop.receipts()
        shop.host.restore()
        receipts = wait_until(shop.receipts, lambda found: found[-1] == states[-1], "the receipts")
        shop.wait_quiet()
    assert not set(states) & set(before)
    assert [state for state in dict.fromkeys(receipts[len(before) :]) if state in states] == states
    assert_served(puller)


def test_harbor_dead_run_fails_and_says_why_and_the_next_one_brings_what_is_missing(shop: Shop) -> None:
    with shop.pulling() as puller:
        shop.host.refuse(shop.harbor_port)
        shop.publish()
        run = shop.wait_run(lambda found: found["state_type"] == "FAILED", "the run to fail")
        shop.host.restore()
        digest = shop.publish()
        shop.wait(digest)
        shop.wait_quiet()
    assert shop.centre.central.url.removeprefix("http://") in run["state"]["message"]
    assert_served(puller)


def test_everything_dead_for_longer_than_the_site_waits_it_serves_tries_and_recovers_by_itself(shop: Shop) -> None:
    with shop.pulling() as puller:
        shop.host.refuse()
        shop.miss_a_run()
        wait_until(lambda: shop.store.applied().failing_since, bool, "a run by the site's own clock to fail")
        digest = shop.publish()
        shop.host.restore()
        shop.wait(digest)
        shop.wait_quiet()
    assert shop.ended() == "COMPLETED"
    assert_served(puller)


def test_agent_killed_pulls_go_on_and_it_works_again(shop: Shop) -> None:
    restarts = shop.site.service("agent")["restarts"]
    with shop.pulling() as puller:
        shop.site.kill("agent")
        wait_until(lambda: shop.site.service("agent"), lambda seen: seen["pid"] and seen["restarts"] > restarts, "it")
        shop.wait(shop.publish())
    assert_served(puller)


@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGKILL, SECONDS), (signal.SIGSTOP, 90.0)], ids=["killed", "silent"]
)
def test_registry_that_does_not_serve_is_there_again_within_seconds(shop: Shop, number: int, seconds: float) -> None:
    before = time.monotonic()
    restarts = shop.site.service("registry")["restarts"]
    os.kill(shop.site.service("registry")["pid"], number)
    wait_until(lambda: shop.site.service("registry")["restarts"], lambda found: found > restarts, "another registry")
    wait_until(lambda: shop.site.tag(shop.repository, TAG), bool, "it to serve")
    took = time.monotonic() - before
    with shop.pulling() as puller:
        wait_until(lambda: puller.pulls, lambda pulls: pulls > 3, "some pulls")
    assert took < seconds
    assert_served(puller)


def test_whole_site_killed_serves_again_and_goes_on(shop: Shop) -> None:
    shop.site.kill()
    before = time.monotonic()
    shop.site.start()
    wait_until(lambda: shop.site.tag(shop.repository, TAG), bool, "the registry to serve")
    took = time.monotonic() - before
    with shop.pulling() as puller:
        shop.wait(shop.publish())
    assert took < SECONDS
    assert_served(puller)


def test_stopped_in_the_middle_of_a_layer_ends_in_time_and_goes_on_there_after_a_start(shop: Shop) -> None:
    shop.host.throttle(RATE)
    before = shop.host.crossed_bytes()[0]
    digest = shop.publish(LARGE_BYTES)
    wait_until(
        lambda: shop.host.crossed_bytes()[0] - before, lambda found: found > LARGE_BYTES // 2, "the middle of the layer"
    )
    assert shop.site.stop() < 10
    shop.site.start()
    shop.wait(digest)
    assert shop.host.crossed_bytes()[0] - before < LARGE_BYTES * 1.3
    shop.wait_quiet()  # whoever had no time to say that the run was lost has said so at its next start


def assert_served(puller: Puller) -> None:
    """Hold a client that pulled in a loop to: no pull failed, and none took long."""
    assert (puller.failures, puller.longest_seconds < LONGEST_PULL_SECONDS) == ([], True), puller.longest_seconds
    assert puller.pulls > 3


def _asked_for(runs: list[dict[str, Any]]) -> bool:
    return any(not run["auto_scheduled"] for run in runs)
