"""Reports on their way: kept when the centre is away, in order when it is back, short when nothing happened."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import resource
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.edge.delivery import _compose, deliver, leave_receipt, report_interval
from harbor_satellite.edge.link import lend
from harbor_satellite.edge.reporter import Reporter, retry_seconds
from harbor_satellite.errors import AuthenticationError, RemoteError
from harbor_satellite.satellite.applied import LastRun
from harbor_satellite.satellite.spool import Spool
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from harbor_satellite.state.wire import Registration, RegistryAuth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

URL = "https://centre.test"
NOW = datetime(2026, 11, 22, 20, tzinfo=UTC)


class Centre:
    """Ground Control, as far as reports go."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.refused: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], httpx.Response] = lambda _: TAKEN
        self.is_away = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.is_away:
            raise httpx.ConnectError("the link is cut")
        is_packed = request.headers.get("Content-Encoding") == "gzip"
        body = json.loads(gzip.decompress(request.content) if is_packed else request.content)
        answer = self.answer({**body, "is_packed": is_packed})
        (self.taken if answer.is_success else self.refused).append(body)
        return answer


TAKEN = httpx.Response(200, json={"is_short_taken": True})


class Site:
    """A registered site whose runs a test tells of."""

    def __init__(self, folder: Path, centre: Centre) -> None:
        self.centre = centre
        self.store = SatelliteStore(folder)
        auth = RegistryAuth(url="https://harbor.test", username="robot", password=SecretStr("x"))
        self.store.save_registration(Registration(auth=auth, state="", satellite="shop-1"))
        self.settings = SatelliteSettings(data_dir=folder, ground_control_url=URL)

    def run(self, summary: str) -> None:
        """Leave the record of a run, and its receipt."""
        self.store.save_applied(replace(self.store.applied(), last_run=LastRun(NOW, 1.0, 0, 0, 0, summary)))
        leave_receipt(self.settings)

    def deliver(self) -> bool:
        """Deliver; tells whether there was news."""
        return deliver(self.settings, transport=httpx.MockTransport(self.centre)).is_news

    @property
    def waiting(self) -> int:
        return len(Spool(self.store.folder).waiting())

    def activities(self) -> list[str]:
        return [body["activity"] for body in self.centre.taken]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "edge", Centre())


def test_deliver_receipts_of_an_outage_oldest_first_and_once(site: Site) -> None:
    site.centre.is_away = True
    for name in ("a", "b", "c"):
        site.run(f"copied {name}")
        with pytest.raises(RemoteError):
            site.deliver()
    site.centre.is_away = False

    site.deliver()

    assert site.activities() == ["copied a", "copied b", "copied c"]
    assert site.waiting == 0


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock as another process of the site would."""
    path.touch()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_receipt_that_waits_for_another_is_not_kept_after_it_as_news(site: Site) -> None:
    site.run("older")

    with ThreadPoolExecutor(1) as pool:
        with held(site.store.folder / ".spool.lock"):
            leaving = pool.submit(leave_receipt, site.settings)
            wait((leaving,), timeout=0.5)  # it has come to the lock
            site.store.save_applied(replace(site.store.applied(), last_run=LastRun(NOW, 1.0, 0, 0, 0, "newer")))
            Spool(site.store.folder).add(_compose(site.settings, site.store, "shop-1"))
        leaving.result()
    site.deliver()

    assert site.activities() == ["older", "newer"]


def test_deliver_meanwhile_a_run_ends_tells_last_how_the_site_is_then(site: Site) -> None:
    site.run("older")

    def while_it_is_taken(body: dict[str, Any]) -> httpx.Response:
        if body["activity"] == "older" and site.waiting == 1:
            site.run("newer")
        return TAKEN

    site.centre.answer = while_it_is_taken
    site.deliver()

    assert (site.activities(), site.waiting) == (["older", "newer"], 0)


def test_deliver_past_a_report_whose_content_is_damaged(site: Site) -> None:
    site.run("a")
    site.run("b")
    path = Spool(site.store.folder).waiting()[0].path
    packed = bytearray(path.read_bytes())
    packed[12:40] = bytes(28)
    path.write_bytes(bytes(packed))

    site.deliver()

    assert (site.activities(), site.waiting) == (["b"], 0)


def test_deliver_in_the_agents_process_goes_over_the_connections_that_are_there(site: Site) -> None:
    lend(httpx.MockTransport(site.centre))
    try:
        deliver(site.settings)
    finally:
        lend(None)

    assert site.activities() == ["no run yet"]


@contextlib.contextmanager
def disk_that_takes_nothing() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_deliver_from_a_full_disk_tells_the_centre_all_the_same(site: Site) -> None:
    site.deliver()
    site.store.save_applied(replace(site.store.applied(), last_run=LastRun(NOW, 1.0, 0, 0, 0, "the disk is full")))

    with disk_that_takes_nothing():
        site.deliver()
        site.deliver()

    assert site.activities()[1:] == ["the disk is full"] * 2


def test_deliver_what_waits_from_a_full_disk_is_told_once(site: Site) -> None:
    site.run("before")

    with disk_that_takes_nothing():
        site.deliver()

    assert (site.activities(), site.waiting) == (["before"], 0)


def test_deliver_from_a_site_whose_spool_cannot_be_used_tells_the_centre_all_the_same(site: Site) -> None:
    (site.store.folder / "spool").write_text("what a broken disk has made of it")

    site.deliver()

    assert len(site.centre.taken) == 1


def test_deliver_run_that_repeats_the_one_before_leaves_one_receipt(site: Site) -> None:
    for seconds in (1, 2):
        site.run(f"source is away since {seconds} s")

    assert site.waiting == 1


def test_deliver_without_news_is_short(site: Site) -> None:
    site.run("12 kept in 1.0 s")
    site.deliver()

    assert site.deliver() is False

    whole, short = site.centre.taken
    assert (whole["is_as_before"], short["is_as_before"]) == (False, True)
    assert short["news_digest"] == whole["news_digest"]
    assert not short.keys() & {"cached_images", "groups", "failures", "decisions"}


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(200, json={"is_report_wanted": True}), httpx.Response(200)],
    ids=["it lacks the one before", "it does not know short ones"],
)
def test_deliver_short_one_that_is_not_taken_is_followed_by_the_whole(site: Site, answer: httpx.Response) -> None:
    site.deliver()
    site.centre.answer = lambda body: answer if body.get("is_as_before") else TAKEN

    site.deliver()

    assert [body["is_as_before"] for body in site.centre.taken] == [False, True, False]


def test_deliver_to_the_originals_centre_is_always_whole(site: Site) -> None:
    site.centre.answer = lambda _: httpx.Response(200)

    for _ in range(3):
        site.deliver()

    assert [body["is_as_before"] for body in site.centre.taken] == [False] * 3


def test_deliver_killed_before_a_receipt_was_removed_sends_it_again_and_nothing_else(site: Site) -> None:
    site.run("copied a")
    (spooled,) = Spool(site.store.folder).waiting()
    content = spooled.path.read_bytes()
    site.deliver()
    spooled.path.write_bytes(content)

    site.deliver()
    site.deliver()

    assert site.activities() == ["copied a"] * 3
    assert [body["is_as_before"] for body in site.centre.taken] == [False, False, True]


def test_deliver_refused_for_good_is_set_aside_and_the_rest_goes_on(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("bad", "good"):
        site.run(f"copied {name}")
    site.centre.answer = lambda body: httpx.Response(413) if body["activity"] == "copied bad" else TAKEN

    site.deliver()

    assert site.activities() == ["copied good"]
    assert site.waiting == 0
    assert "set aside" in caplog.text


@pytest.mark.parametrize("status", [401, 408, 429, 500, 503])
def test_deliver_refused_for_now_is_kept(site: Site, status: int) -> None:
    site.run("copied a")
    site.centre.answer = lambda _: httpx.Response(status)

    with pytest.raises((RemoteError, AuthenticationError)):
        site.deliver()

    assert site.waiting == 1


@pytest.mark.parametrize("status", [200, 404, 511])
def test_deliver_to_a_captive_portal_is_no_delivery(site: Site, status: int) -> None:
    site.run("copied a")
    site.centre.answer = lambda _: httpx.Response(status, html="<html>log in</html>")

    with pytest.raises(RemoteError, match="not Ground Control"):
        site.deliver()

    assert site.waiting == 1


def test_deliver_large_report_is_compressed_once_the_centre_said_that_it_may(site: Site) -> None:
    seen: list[bool] = []

    def answer(body: dict[str, Any]) -> httpx.Response:
        seen.append(body["is_packed"])
        return TAKEN

    site.centre.answer = answer
    for name in ("a", "b"):
        site.run(f"copied {name} " + "x" * 900)
        site.deliver()

    assert seen == [False, True]


def test_deliver_to_a_centre_that_was_set_back_to_an_older_release_is_plain(site: Site) -> None:
    site.run("copied a " + "x" * 900)
    site.deliver()
    site.centre.answer = lambda body: httpx.Response(400) if body["is_packed"] else httpx.Response(200)
    site.run("copied b " + "x" * 900)

    site.deliver()

    assert [activity[:8] for activity in site.activities()] == ["copied a", "copied b"]


def test_deliver_tells_how_many_receipts_were_dropped(site: Site) -> None:
    site.run("copied a")
    (site.store.folder / "spool" / "dropped").write_text("7")

    site.deliver()

    assert site.centre.taken[0]["dropped_receipts"] == 7
    assert Spool(site.store.folder).dropped == 0


def test_deliver_damaged_record_of_what_was_taken_costs_a_whole_report(site: Site) -> None:
    site.deliver()
    (site.store.folder / "reported.json").write_text("half a fi")

    site.deliver()

    assert [body["is_as_before"] for body in site.centre.taken] == [False, False]


def test_deliver_says_what_was_set_at_the_site_and_when_the_next_one_is_due(site: Site) -> None:
    site.settings = SatelliteSettings(
        data_dir=site.store.folder, ground_control_url=URL, schedule="0 3 * * *", timezone="Europe/Berlin"
    )
    site.store.write_document(
        "site-config.json",
        {"serial": 1, "state_digest": None, "config": {"schedule": "1 1 * * *", "report_interval_seconds": 120}},
    )

    site.deliver()

    (said,) = site.centre.taken
    assert (said["own_schedule"], said["own_timezone"]) == ("0 3 * * *", "Europe/Berlin")
    assert (said["state_report_interval"], report_interval(site.settings)) == ("120s", 120)


def test_deliver_of_a_site_without_own_schedule_says_none(site: Site) -> None:
    site.deliver()

    assert (site.centre.taken[0]["own_schedule"], site.centre.taken[0]["own_timezone"]) == ("", "")


# -- the reporter


def reporter(site: Site, fraction: float = 0.5) -> Reporter:
    transport = httpx.MockTransport(site.centre)
    return Reporter("shop-1", transport=transport, fraction=lambda: fraction, load=lambda: site.settings)


def test_reporter_waits_an_interval_after_a_report(site: Site) -> None:
    assert reporter(site).report_once() == pytest.approx(570.0)
    assert len(site.centre.taken) == 1


def test_reporter_waits_longer_after_each_failure_and_starts_anew_after_a_success(site: Site) -> None:
    one = reporter(site, 1.0)
    site.centre.is_away = True
    waits = [one.report_once() for _ in range(6)]
    site.centre.is_away = False
    one.report_once()
    site.centre.is_away = True

    assert waits == [30, 60, 120, 240, 480, 600]
    assert one.report_once() == 30


def test_reporter_whose_settings_are_wrong_goes_on(site: Site) -> None:
    def broken() -> SatelliteSettings:
        raise ValueError("no such time zone")

    assert Reporter("shop-1", load=broken).report_once() > 0


def test_reporter_whose_settings_cannot_be_read_at_its_start_lives_on() -> None:
    def unreadable() -> SatelliteSettings:
        raise PermissionError("the file of settings")

    one = Reporter("shop-1", load=unreadable)
    one.start()
    one._thread.join(0.3)

    assert one._thread.is_alive()
    one.stop(5)
    assert not one._thread.is_alive()


def test_reporter_heeds_when_the_centre_says_to_come_again(site: Site) -> None:
    site.centre.answer = lambda _: httpx.Response(429, headers={"Retry-After": "200"})

    assert reporter(site).report_once() == 200


def test_reporters_of_a_fleet_begin_at_other_moments() -> None:
    assert len({round(Reporter(f"shop-{number}")._phase * 300) for number in range(20)}) > 15


def test_reporter_nudged_reports_at_once_and_stops(site: Site) -> None:
    one = reporter(site)
    one.start()

    one.nudge()
    for _ in range(200):
        if site.centre.taken:
            break
        one._thread.join(0.005)
    one.stop(5)

    assert len(site.centre.taken) == 1
    assert not one._thread.is_alive()


@pytest.mark.parametrize("failures", [1, 2, 50, 10_000])
def test_retry_seconds_are_bounded_by_the_interval(failures: int) -> None:
    assert 15 <= retry_seconds(failures, 300, 0.0) <= retry_seconds(failures, 300, 1.0) <= 300
