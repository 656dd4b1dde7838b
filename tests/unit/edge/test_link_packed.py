"""What a site packs: nothing before the centre has said that it takes it, and nothing for a while once it refused."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.edge.event_post import EventPost
from harbor_satellite.edge.link import Centre, CentreAwayError, Packing
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.packed import pack, unpack
from harbor_satellite.state.wire import Registration, RegistryAuth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

LARGE = json.dumps([{"event": "prefect.task-run.Completed", "id": number} for number in range(40)]).encode()
SMALL = b'[{"event":"one"}]'
AGENT = "prefect/3.8.8 (API 0.8.4)"
JSON = {"Content-Type": "application/json"}
SAYS_PACKED = {**JSON, "Accept-Encoding": "gzip"}
OLD_REFUSAL = httpx.Response(403, headers=JSON, content=b'{"detail":"no"}')


class Raw(httpx.AsyncByteStream):
    """A body as it comes over a link: bytes that nobody has looked at yet."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), 65536):
            yield self._content[start : start + 65536]


def refuse_as_before(_: httpx.Request) -> httpx.Response:
    """Refuse what is packed as the gateway did that knew none."""
    return OLD_REFUSAL


def take(request: httpx.Request) -> httpx.Response:
    assert unpack(request.content, 10_000_000) == LARGE
    return httpx.Response(200, headers=SAYS_PACKED, content=b"[1]")


class FakeCentre:
    """A gateway of before, or of now."""

    def __init__(self, *, is_new: bool) -> None:
        self.says = SAYS_PACKED if is_new else JSON
        self.on_packed: Callable[[httpx.Request], httpx.Response] = take if is_new else refuse_as_before
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if "Content-Encoding" in request.headers:
            return self.on_packed(request)
        return httpx.Response(200, headers=self.says, content=b"[1]")

    @property
    def codings(self) -> list[str]:
        """How each body came."""
        return [request.headers.get("Content-Encoding", "plain") for request in self.requests]


@pytest.fixture
def store(tmp_path: Path) -> SatelliteStore:
    store = SatelliteStore(tmp_path / "edge")
    auth = RegistryAuth(url="https://harbor.test", username="robot", password=SecretStr("first"))
    url = "https://centre.test/prefect/api"
    store.save_registration(Registration(auth=auth, state="", satellite="shop-1", prefect_api_url=url))
    return store


def send(
    store: SatelliteStore, handler: Callable[[httpx.Request], httpx.Response], *bodies: bytes, agent: str = ""
) -> list[tuple[int, bytes]]:
    async def one_after_the_other() -> list[tuple[int, bytes]]:
        centre = Centre(store, transport=httpx.MockTransport(handler))
        answers = [await centre.send("POST", "/events", body, agent) for body in bodies]
        await centre.close()
        return [(status, content) for status, _, content in answers]

    return asyncio.run(one_after_the_other())


def test_body_is_plain_until_the_centre_has_said_that_it_takes_packed_ones(store: SatelliteStore) -> None:
    centre = FakeCentre(is_new=True)

    answers = send(store, centre, LARGE, LARGE, SMALL)

    assert centre.codings == ["plain", "gzip", "plain"]
    assert len(centre.requests[1].content) < len(LARGE) / 5
    assert answers == [(200, b"[1]")] * 3


def test_body_for_a_centre_that_says_nothing_stays_plain(store: SatelliteStore) -> None:
    centre = FakeCentre(is_new=False)

    send(store, centre, LARGE, LARGE, LARGE)

    assert centre.codings == ["plain"] * 3


@pytest.mark.parametrize("status", [400, 403, 415], ids=["bad request", "as the older gateway", "unsupported"])
@pytest.mark.parametrize("kind", ["application/json", "text/html"], ids=["the gateway", "what stands before it"])
def test_packed_body_that_an_older_centre_refuses_is_sent_plain_and_so_are_the_next(
    store: SatelliteStore, status: int, kind: str
) -> None:
    centre = FakeCentre(is_new=True)
    centre.on_packed = lambda _: httpx.Response(status, headers={"Content-Type": kind}, content=b"{}")

    answers = send(store, centre, SMALL, LARGE, LARGE)

    assert centre.codings == ["plain", "gzip", "plain", "plain"]
    assert answers == [(200, b"[1]")] * 3


def test_packed_body_that_is_refused_for_what_it_says_is_not_sent_again(store: SatelliteStore) -> None:
    centre = FakeCentre(is_new=True)
    centre.on_packed = lambda _: httpx.Response(403, headers=SAYS_PACKED, content=b"{}")

    answers = send(store, centre, SMALL, LARGE, LARGE)

    assert centre.codings == ["plain", "gzip", "gzip"]
    assert answers[1:] == [(403, b"{}")] * 2


def test_packed_body_while_the_centre_is_away_is_away_and_stays_packed(store: SatelliteStore) -> None:
    centre = FakeCentre(is_new=True)

    async def cut() -> list[str]:
        link = Centre(store, transport=httpx.MockTransport(centre))
        await link.send("POST", "/events", SMALL)
        centre.on_packed = lambda _: httpx.Response(503, headers=JSON, content=b"{}")
        with pytest.raises(CentreAwayError):
            await link.send("POST", "/events", LARGE)
        centre.on_packed = take
        await link.send("POST", "/events", LARGE)
        return centre.codings

    assert asyncio.run(cut()) == ["plain", "gzip", "gzip"]


def test_events_reach_a_centre_that_was_replaced_by_an_older_one(store: SatelliteStore) -> None:
    centre, older = FakeCentre(is_new=True), FakeCentre(is_new=False)
    event = json.dumps({"event": "prefect.task-run.Completed", "text": "a" * 1000})

    async def replace() -> None:
        answering = [centre]

        def whoever_is_there(request: httpx.Request) -> httpx.Response:
            return answering[-1](request)

        link = Centre(store, transport=httpx.MockTransport(whoever_is_there))
        await link.send("POST", "/events", SMALL)
        answering.append(older)
        events = EventPost(link, lambda _: None, 0.0)
        delivering = asyncio.create_task(events.deliver())
        await events.put(event)
        await events.drain(5)
        delivering.cancel()

    asyncio.run(replace())

    assert older.codings == ["gzip", "plain"]
    assert json.loads(older.requests[-1].content) == [json.loads(event)]


def test_centre_that_refused_packed_bodies_is_tried_again_some_hours_later() -> None:
    now = [1000.0]
    packing = Packing(lambda: now[0])
    packing.hear(httpx.Response(200, headers=SAYS_PACKED))

    assert packing.is_refused(OLD_REFUSAL)
    packing.hear(httpx.Response(200, headers=SAYS_PACKED))
    meanwhile = packing.is_wanted(LARGE)
    now[0] += 6 * 3600 + 1

    assert (meanwhile, packing.is_wanted(LARGE)) == (False, True)


# -- answers


def answered(content: bytes, coding: str = "gzip") -> Callable[[httpx.Request], httpx.Response]:
    headers = {**JSON, "Content-Encoding": coding, "Content-Length": str(len(content))}
    return lambda _: httpx.Response(200, headers=headers, stream=Raw(content))


def test_packed_answer_is_unpacked_and_asked_for_where_prefects_client_asks(store: SatelliteStore) -> None:
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Accept-Encoding"))
        return answered(pack(LARGE))(request)

    answers = [*send(store, answer, b"", agent=AGENT), *send(store, answer, b"")]

    assert answers == [(200, LARGE)] * 2
    assert asked == ["gzip", None]


@pytest.mark.parametrize(
    "answer",
    [
        answered(pack(b"1" * (17 * 1024 * 1024))),
        answered(pack(LARGE)[:-3]),
        answered(b"no gzip"),
        answered(LARGE, "br"),
    ],
    ids=["bomb", "cut", "damaged", "another coding"],
)
def test_packed_answer_that_cannot_be_read_is_as_if_the_centre_were_away(
    store: SatelliteStore, answer: Callable[[httpx.Request], httpx.Response]
) -> None:
    with pytest.raises(CentreAwayError):
        send(store, answer, b"", agent=AGENT)


def test_packed_answer_to_a_request_of_another_thread_is_unpacked_within_bounds(store: SatelliteStore) -> None:
    async def forward(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.Response:
        link = Centre(store, transport=httpx.MockTransport(answer))
        return await link.forward(httpx.Request("POST", "https://centre.test/satellites/sync"))

    good = asyncio.run(forward(answered(pack(LARGE))))

    assert (good.content, "Content-Encoding" in good.headers) == (LARGE, False)
    with pytest.raises(httpx.DecodingError):
        asyncio.run(forward(answered(pack(b"1" * (17 * 1024 * 1024)))))
