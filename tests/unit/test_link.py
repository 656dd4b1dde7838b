"""The WAN on loopback that other tests and the benchmarks trust: its counters, its faults, its shape."""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from harbor_satellite.oci.digest import Digest
from tests.fakes.link import link
from tests.fakes.link_requests import RequestCounter
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.link import Link

CONTENT = bytes(range(256)) * 4000  # about 1 MB
GET = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
PUT = b"PUT /v2/a HTTP/1.1\r\nContent-Length: 21\r\n\r\n" + b"GET / HTTP/1.1\r\n\r\n..."
CHUNKED = b"PATCH /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\n\r\n\r\n\r\n0\r\n\r\n"


@pytest.fixture
def wan() -> Iterator[Link]:
    """A line to a registry that holds one large blob."""
    fake = FakeRegistry()
    with fake.serving() as url, link(url) as line:
        fake.add_blob("acme/app", CONTENT)
        yield line


def blob_url(line: Link) -> str:
    return f"{line.url}/v2/acme/app/blobs/{Digest.of(CONTENT)}"


def test_link_carries_bytes_unchanged_and_counts_them(wan: Link) -> None:
    connection = http.client.HTTPConnection(wan.host)
    answers = []
    for _ in range(3):
        connection.request("GET", blob_url(wan).removeprefix(wan.url))
        answers.append(connection.getresponse().read())
    connection.close()

    counters = wan.counters()
    assert answers == [CONTENT] * 3
    assert 3 * len(CONTENT) < counters.bytes_to_client < 3 * len(CONTENT) + 3000
    assert (counters.requests, counters.connections) == (3, 1)
    assert wan.requests() == [f"GET {blob_url(wan).removeprefix(wan.url)}"] * 3


def test_link_cut_at_count_ends_the_connection_there_once(wan: Link) -> None:
    wan.cut_at(300_000)

    with pytest.raises(httpx.HTTPError):
        httpx.get(blob_url(wan))
    at_cut = wan.counters().bytes_to_client

    assert at_cut == 300_000
    assert httpx.get(blob_url(wan)).content == CONTENT


@pytest.mark.parametrize("is_reset", [True, False], ids=["RST", "FIN"])
def test_link_cut_ends_a_connection_at_rest(wan: Link, is_reset: bool) -> None:  # noqa: FBT001
    wan.shape(bytes_per_second=100_000)

    with httpx.Client() as client, client.stream("GET", blob_url(wan)) as answer:
        wan.cut(is_reset=is_reset)

        with pytest.raises(httpx.HTTPError):
            answer.read()


def test_link_down_refuses_until_up(wan: Link) -> None:
    wan.down()

    with pytest.raises(httpx.ConnectError):
        httpx.get(blob_url(wan))
    wan.up()

    assert httpx.get(blob_url(wan)).content == CONTENT


def test_link_hang_is_silent_until_up(wan: Link) -> None:
    wan.hang()

    with pytest.raises(httpx.ReadTimeout):
        httpx.get(blob_url(wan), timeout=httpx.Timeout(5, read=0.2))
    silent = wan.counters()
    wan.up()

    assert (silent.connections, silent.bytes_to_client) == (1, 0)
    assert httpx.get(blob_url(wan)).content == CONTENT


def test_link_latency_and_width_are_never_less_than_asked(wan: Link) -> None:
    wan.shape(rtt_seconds=0.1, bytes_per_second=5_000_000)
    started = time.monotonic()

    content = httpx.get(blob_url(wan)).content

    # Making the connection, asking, and the bytes; only the lower bound holds on a busy machine.
    assert time.monotonic() - started > 0.1 + 0.1 + len(CONTENT) / 5_000_000 - 0.01
    assert content == CONTENT


def test_link_reset_starts_counting_anew(wan: Link) -> None:
    httpx.get(blob_url(wan))

    wan.reset()

    assert (wan.counters().bytes_to_client, wan.counters().requests, wan.requests()) == (0, 0, [])


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_request_counter_counts_heads_not_bodies_however_cut(size: int) -> None:
    seen: list[str] = []
    counter = RequestCounter(seen.append)
    stream = GET + GET + PUT + CHUNKED + GET

    for start in range(0, len(stream), size):
        counter.feed(stream[start : start + size])

    assert seen == ["GET /v2/", "GET /v2/", "PUT /v2/a", "PATCH /b", "GET /v2/"]


def test_request_counter_leaves_tls_alone() -> None:
    seen: list[str] = []
    counter = RequestCounter(seen.append)

    counter.feed(b"\x16\x03\x01\x02\x00" + GET)
    counter.feed(GET)

    assert seen == []
