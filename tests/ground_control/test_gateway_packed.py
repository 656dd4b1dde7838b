"""Packed bodies at the gateway: both ways, said beforehand, and never unpacked without bound."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.ground_control.test_gateway import AUTH, RUN, TASK, World, task_event

if TYPE_CHECKING:
    import httpx

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.ground_control.gateway.app import Gateway

PACKED = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
LONG = {"id": RUN, "work_pool_name": "satellite-mine", "name": "replicate-state mine " * 60}


@pytest.fixture
def world(session_factory: SessionFactory) -> World:
    return World(session_factory)


def test_packed_events_reach_prefect_as_plain_ones_do(world: World) -> None:
    events = [task_event(TASK, RUN)] * 20

    answer = world.ask("POST", "/events", content=gzip.compress(json.dumps(events).encode()), headers=PACKED)

    sent = world.prefect.requests[-1]
    assert (answer.status_code, world.counters.events_passed) == (204, 20)
    assert len(json.loads(sent.content)) == 20
    assert "Content-Encoding" not in sent.headers


def test_answer_with_a_body_says_that_packed_ones_are_taken_and_a_poll_of_nothing_stays_short(world: World) -> None:
    answers = [world.ask("GET", f"/flow_runs/{RUN}"), world.ask("GET", "/health"), world.ask("DELETE", "/flows/")]

    short = world.ask("POST", "/work_pools/satellite-mine/due/60")
    assert [answer.headers.get("Accept-Encoding") for answer in answers] == ["gzip"] * 3
    assert (short.status_code, dict(short.headers)) == (204, {})


UNREADABLE = {
    "a head": b"\x1f\x8b",
    "no gzip": b'{"state":{"type":"RUNNING"}}',
    "cut": gzip.compress(b'{"state":{"type":"RUNNING"}}')[:-4],
    "two in one": gzip.compress(b'{"state":') + gzip.compress(b'{"type":"RUNNING"}}'),
    "empty": b"",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_packed_body_that_cannot_be_unpacked_is_400_and_says_what_is_taken(world: World, content: bytes) -> None:
    answer = world.ask("POST", f"/flow_runs/{RUN}/set_state", content=content, headers=PACKED)

    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (400, "gzip")
    assert world.prefect.requests == []


REFUSED: dict[str, dict[str, Any]] = {
    "bomb": {"content": gzip.compress(b'"' + b"a" * 50_000_000 + b'"'), "headers": PACKED},
    "one byte too many": {"content": gzip.compress(b" " * (4 * 1024 * 1024 + 1)), "headers": PACKED},
    "no JSON inside": {"content": gzip.compress(b"[" * 100_000), "headers": PACKED},
    "twice packed": {"content": gzip.compress(b"{}"), "headers": {**PACKED, "Content-Encoding": "gzip, gzip"}},
    "another coding": {"content": b"{}", "headers": {**PACKED, "Content-Encoding": "br"}},
    "coding said twice": {
        "content": gzip.compress(b"{}"),
        "headers": [*PACKED.items(), ("Content-Encoding", "identity")],
    },
    "no JSON outside": {"content": gzip.compress(b"{}"), "headers": {**PACKED, "Content-Type": "text/plain"}},
}


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED.keys())
def test_packed_body_that_is_too_large_or_could_be_read_in_two_ways_is_refused(
    world: World, request_: dict[str, Any]
) -> None:
    answer = world.ask("POST", f"/flow_runs/{RUN}/set_state", **request_)

    assert answer.status_code == 403
    assert world.prefect.requests == []


def test_satellite_that_sends_bodies_that_unpack_to_much_is_slowed_down(world: World) -> None:
    bomb = gzip.compress(b"[" + b" " * (4 * 1024 * 1024 - 2) + b"]")

    async def throw(client: httpx.AsyncClient, gateway: Gateway) -> float:
        for _ in range(10):
            await client.post("/events", content=bomb, headers=PACKED, auth=AUTH)
        taken = 0
        while gateway._buckets.take("mine", world.monotonic) is None:
            taken += 1
        return taken

    # Of the 1000 that a satellite has: one for each call, one for its events, and one for each 256 KiB.
    assert world.run(throw) == 1000 - 10 * (2 + 16)


# -- answers


def test_long_answer_is_packed_for_whom_takes_it_so(world: World) -> None:
    world.prefect.documents[f"/flow_runs/{RUN}"] = LONG

    async def ask(client: httpx.AsyncClient, _: Gateway) -> list[tuple[str | None, int, Any]]:
        found = []
        for accepted in ("gzip", "identity", "gzip;q=0"):
            headers = {"Accept-Encoding": accepted}
            async with client.stream("GET", f"/flow_runs/{RUN}", auth=AUTH, headers=headers) as answer:
                raw = b"".join([piece async for piece in answer.aiter_raw()])
            coding = answer.headers.get("Content-Encoding")
            document = json.loads(gzip.decompress(raw) if coding else raw)
            assert int(answer.headers["Content-Length"]) == len(raw)
            found.append((coding, len(raw), document))
        return found

    packed, plain, refused = world.run(ask)

    assert [one[0] for one in (packed, plain, refused)] == ["gzip", None, None]
    assert packed[2] == plain[2] == refused[2] == LONG
    assert packed[1] < plain[1] / 5


def test_very_long_answer_is_packed_too(world: World) -> None:
    world.prefect.documents[f"/flow_runs/{RUN}"] = {**LONG, "parameters": {"a": "b" * 200_000}}

    answer = world.ask("GET", f"/flow_runs/{RUN}", headers={"Accept-Encoding": "gzip"})

    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.json()["parameters"] == {"a": "b" * 200_000}


def test_short_answer_is_not_packed(world: World) -> None:
    answer = world.ask("GET", "/health", headers={"Accept-Encoding": "gzip"})

    assert (answer.json(), answer.headers.get("Content-Encoding")) == (True, None)
