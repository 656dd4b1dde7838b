"""The status over HTTP: what it answers, to whom, and how little it costs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from harbor_satellite.edge.metrics import render_metrics
from harbor_satellite.edge.status_page import render_page
from harbor_satellite.edge.status_server import StatusApp, StatusServer
from harbor_satellite.registry.server_process import RegistryServer
from harbor_satellite.satellite import health
from harbor_satellite.satellite.health import problems_of
from harbor_satellite.satellite.status import FailureStatus, ImagesStatus, ImageStatus
from harbor_satellite.settings import SatelliteSettings
from tests.fakes import statuses

if TYPE_CHECKING:
    from harbor_satellite.satellite.status import SiteStatus

PATHS = ("/", "/status.json", "/healthz", "/readyz", "/metrics")


def ask(
    status: SiteStatus, path: str, method: str = "GET", host: str = "127.0.0.1:8586", listens_on: str = "127.0.0.1"
) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(StatusApp(lambda: status, listens_on))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8586") as client:
            return await client.request(method, path, headers={"host": host})

    return asyncio.run(send())


def numbers(status: SiteStatus) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("harbor_satellite_site_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(render_metrics(status).decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("path", PATHS)
def test_server_answers_a_site_that_is_well(path: str) -> None:
    answer = ask(statuses.well(), path)

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "script-src" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "make", [statuses.unregistered, statuses.away, statuses.disk_full], ids=lambda made: made.__name__
)
def test_server_answers_in_every_state(make: Any, path: str) -> None:
    assert ask(make(), path).status_code in {200, 503}


def test_health_is_the_agents_own() -> None:
    site = statuses.well()
    silent = replace(site, agent_alive_at=site.made_at.replace(hour=6))

    assert ask(statuses.unregistered(), "/healthz").status_code == 200  # the agent cannot help it
    assert ask(silent, "/healthz").status_code == 503
    assert ask(replace(site, agent_alive_at=None), "/healthz").json()["reasons"] == [
        "the agent has not shown that it is well"
    ]


def test_readiness_says_why_not() -> None:
    answer = ask(statuses.unregistered(), "/readyz")

    assert answer.status_code == 503
    assert answer.json() == {"ok": False, "reasons": ["this site is not registered", "no state was applied yet"]}


def test_readiness_holds_while_the_centre_is_away() -> None:
    assert ask(statuses.away(), "/readyz").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
def test_server_changes_nothing(method: str) -> None:
    answer = ask(statuses.well(), "/", method)

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_server_answers_head_without_a_body() -> None:
    answer = ask(statuses.well(), "/", "HEAD")

    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 1000


def test_server_knows_no_other_paths() -> None:
    assert ask(statuses.well(), "/etc/passwd").status_code == 404


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8586",
        "localhost:8586",
        "LOCALHOST",
        "[::1]:8586",
        "[::1]",
        "10.1.2.3:8586",
        "shop.lan:8586",
        "shop.lan",
    ],
)
def test_server_answers_under_its_own_names(host: str) -> None:
    assert ask(statuses.well(), "/", host=host, listens_on="shop.lan").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8586", "localhost.evil.example", "127.0.0.1.evil.example", ""]
)
def test_server_refuses_names_that_are_not_its_own(host: str) -> None:
    answer = ask(statuses.well(), "/status.json", host=host)

    assert answer.status_code == 421
    assert b"shop-0042" not in answer.content


def test_server_looks_once_a_second_however_many_ask() -> None:
    looked: list[float] = []
    now = 100.0

    def read() -> SiteStatus:
        looked.append(now)
        return statuses.well()

    async def ask_many() -> None:
        nonlocal now
        app = StatusApp(read, monotonic=lambda: now)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            await asyncio.gather(*(client.get(path) for path in PATHS * 4))
            now += 1.1
            await client.get("/")

    asyncio.run(ask_many())

    assert looked == [100.0, 101.1]


def test_server_says_when_it_cannot_show_the_status(caplog: pytest.LogCaptureFixture) -> None:
    def read() -> SiteStatus:
        raise RuntimeError("broken")

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(StatusApp(read)), base_url="http://localhost"
        ) as client:
            return await client.get("/")

    answer = asyncio.run(send())

    assert answer.status_code == 500
    assert "broken" not in answer.text
    assert "broken" in caplog.text


def test_page_shows_names_and_reasons_of_peers_as_text() -> None:
    site = statuses.away()
    harm = replace(
        site.failures[0], reference="x<script>alert(1)</script>", reason='"><img src=x onerror=alert(1)>\x1b[2J\u202e'
    )

    page = render_page(replace(site, failures=(harm,)))

    assert "<script" not in page
    assert "<img" not in page
    assert "x&lt;script&gt;" in page
    assert "\\x1b[2J\\u202e" in page


def test_page_shows_what_is_no_text_at_all() -> None:
    site = statuses.well()
    half = json.loads('"\\ud83d"')  # as a peer's JSON may have it
    site = replace(site, registry=replace(site.registry, is_answering=False, reason=half))

    assert ask(site, "/").status_code == 200


def test_advice_is_good_in_a_shell_whatever_an_image_is_called() -> None:
    site = replace(statuses.well(), failures=(FailureStatus("a/b:1;reboot", "gone"),))

    assert "edge why 'a/b:1;reboot'" in next(one.advice for one in problems_of(site) if one.kind == "images_failed")


def test_health_of_an_agent_from_the_future_is_not_good() -> None:
    site = statuses.well()

    assert ask(replace(site, agent_alive_at=site.made_at + timedelta(days=1)), "/healthz").status_code == 503


def test_page_without_problems_shows_none() -> None:
    page = render_page(statuses.well())

    assert "All is well" in page
    assert 'class="problems"' not in page
    assert "Not brought" not in page


def test_page_lists_many_images_and_counts_the_rest() -> None:
    page = render_page(statuses.many_images(700))

    assert page.count("<tr><td>") == 500
    assert "and 200 more" in page


def test_page_of_ten_thousand_failures_stays_small() -> None:
    site = statuses.away()

    page = render_page(replace(site, failures=site.failures * 5000))

    assert len(page) < 100_000
    assert "and 9950 more" in page


def test_metrics_count_a_site_that_is_well() -> None:
    found = numbers(statuses.well())

    assert found["health", "well"] == 1
    assert found["health", "failing"] == 0
    assert found["converged",] == found["registry_up",] == found["ready",] == found["registered",] == 1
    assert found["images",] == 12
    assert found["last_run_duration_seconds",] == 3.4
    assert found["last_run_source_bytes",] == 5312
    assert found["link_bytes_per_second",] == 240_000
    assert found["disk_free_bytes",] == 41e9
    assert found["service_restarts", "agent"] == 1
    assert found["next_run_timestamp_seconds",] > found["last_run_timestamp_seconds",]
    assert ("centre_away_since_timestamp_seconds",) not in found


def test_metrics_of_a_site_with_its_link_away_say_since_when() -> None:
    found = numbers(statuses.away())

    assert found["health", "failing"] == 1
    assert found["images_failed",] == 2
    assert found["reports_waiting",] == 74
    assert found["centre_away_since_timestamp_seconds",] == found["failing_since_timestamp_seconds",]


def test_metrics_have_no_more_series_with_more_images() -> None:
    site = statuses.well()
    many = ImagesStatus(10_000, 1, tuple(ImageStatus(f"a/b:{number}") for number in range(10_000)))

    assert len(numbers(replace(site, images=many, failures=statuses.away().failures * 99))) == len(numbers(site))


@pytest.fixture
def settings(tmp_path: Path) -> SatelliteSettings:
    (tmp_path / "agent.alive").touch()
    os.utime(tmp_path / "agent.alive", (time.time(), time.time()))
    return SatelliteSettings(
        _env_file=None, data_dir=tmp_path, status_listen="127.0.0.1:0", local_registry_url="http://127.0.0.1:1"
    )


def test_status_server_serves_what_is_on_disk_until_it_is_stopped(settings: SatelliteSettings) -> None:
    server = StatusServer(settings)
    server.start()
    try:
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            assert client.get("/healthz").json() == {"ok": True, "reasons": []}
            assert client.get("/status.json").json()["problems"][0]["kind"] == "not_registered"
            assert "not registered" in client.get("/").text
    finally:
        server.stop()

    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, trust_env=False)


def test_status_server_warns_and_lets_the_agent_go_on_where_the_port_is_taken(
    settings: SatelliteSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = StatusServer(settings.model_copy(update={"status_listen": f"127.0.0.1:{port}"}))
        with caplog.at_level(logging.WARNING):
            server.start()
        server.stop()

    assert server.url == ""
    assert "no status page" in caplog.text


def test_server_ends_connections_that_say_nothing() -> None:
    server = RegistryServer(StatusApp(statuses.well), "127.0.0.1", 0, connections_max=4, connection_seconds=0.1)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    port = int(server.url.rpartition(":")[2])
    idle = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(4)]
    try:
        idle[0].sendall(b"GET / HTTP/1.1\r\nHost: 127")  # and never the rest
        ends = [one.recv(100) for one in idle]

        assert ends == [b""] * 4
        assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200
    finally:
        for one in idle:
            one.close()
        server.stop()
        thread.join(5)


def test_status_server_that_shall_not_listen_does_not(settings: SatelliteSettings) -> None:
    server = StatusServer(settings.model_copy(update={"status_listen": ""}))
    server.start()

    assert server.url == ""


def test_metrics_are_all_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs/guides/site.md").read_text(encoding="utf-8")
    table = guide.partition("### Metrics")[2].partition("### Logs")[0]
    # A link that is away, a cap for the month: then every number is known.
    site = statuses.away()
    known = numbers(replace(site, link=replace(site.link, monthly_bytes=1)))

    told = {
        name for name in re.findall(r"`([a-z_]+)(?:\{[a-z]+\})?`", table) if "_" in name or name in {"groups", "images"}
    }

    assert {name for name, *_ in known} - told <= {"health", "registered", "ready", "converged"}
    assert told - {name for name, *_ in known} == {"harbor_satellite_site_"}


@pytest.mark.parametrize(
    "kind", sorted(set(re.findall(r'Problem\("([a-z_]+)"', Path(health.__file__).read_text(encoding="utf-8"))))
)
def test_problems_are_all_in_the_guide(kind: str) -> None:
    guide = (Path(__file__).parents[2] / "docs/guides/site.md").read_text(encoding="utf-8")

    assert f"`{kind}`" in guide.partition("### What can be wrong")[2].partition("### Metrics")[0]
