"""The proxy of a site: the present credential, a password of its own, and patience while the centre is away."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from harbor_satellite.edge.link import Centre, CentreAwayError, SharedTransport
from harbor_satellite.edge.proxy import EdgeProxy, RunningProxy
from harbor_satellite.errors import AuthenticationError, RemoteError
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.wire import Registration, RegistryAuth

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.types import Message

PASSWORD = "of-this-start"
AUTH = ("edge", PASSWORD)


class Gateway:
    """What answers at the centre."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200, json={"a": 1})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(request)


def register(store: SatelliteStore, secret: str) -> None:
    auth = RegistryAuth(url="https://harbor.test", username="robot", password=SecretStr(secret))
    url = "https://centre.test/prefect/api"
    store.save_registration(Registration(auth=auth, state="", satellite="shop-1", prefect_api_url=url))


@pytest.fixture
def store(tmp_path: Path) -> SatelliteStore:
    store = SatelliteStore(tmp_path / "edge")
    register(store, "first")
    return store


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def ask(
    store: SatelliteStore, gateway: Gateway, path: str, auth: tuple[str, str] | None = AUTH, **request: Any
) -> httpx.Response:
    async def one() -> httpx.Response:
        proxy = EdgeProxy(Centre(store, transport=httpx.MockTransport(gateway)), PASSWORD)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(proxy), base_url="http://proxy.test") as client:
            return await client.request("POST", path, auth=auth, **request)

    return asyncio.run(one())


def test_request_is_sent_with_the_sites_credential_and_nothing_of_the_caller(
    store: SatelliteStore, gateway: Gateway
) -> None:
    headers = {"Cookie": "a=b", "User-Agent": "prefect/3.8.8 (API 0.8.4)"}

    answer = ask(store, gateway, "/api/logs/", json=[1], headers=headers)

    (sent,) = gateway.requests
    assert answer.json() == {"a": 1}
    assert str(sent.url) == "https://centre.test/prefect/api/logs/"
    assert sent.headers["Authorization"] == httpx.BasicAuth("robot", "first")._auth_header
    assert sent.headers["User-Agent"] == headers["User-Agent"]
    assert "Cookie" not in sent.headers


@pytest.mark.parametrize("auth", [None, ("edge", "guessed"), ("robot", "first")])
def test_caller_without_the_password_is_refused(
    store: SatelliteStore, gateway: Gateway, auth: tuple[str, str] | None
) -> None:
    assert ask(store, gateway, "/api/logs/", auth).status_code == 401
    assert gateway.requests == []


@pytest.mark.parametrize("path", ["/", "/other", "/apix/y"])
def test_path_outside_the_api_is_not_there(store: SatelliteStore, gateway: Gateway, path: str) -> None:
    assert ask(store, gateway, path).status_code == 404


def fail(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectTimeout("the link is cut")


AWAY: dict[str, Callable[[httpx.Request], httpx.Response]] = {
    "link cut": fail,
    "server error": lambda _: httpx.Response(502, json={}),
    "captive portal": lambda _: httpx.Response(200, html="<html>"),
    "redirect": lambda _: httpx.Response(302, headers={"Location": "https://login.test"}),
    "too large": lambda _: httpx.Response(
        200, content=b"1" * (17 * 1024 * 1024), headers={"Content-Type": "application/json"}
    ),
}


@pytest.mark.parametrize("answer", AWAY.values(), ids=AWAY.keys())
def test_centre_away_is_maintenance(
    store: SatelliteStore, gateway: Gateway, answer: Callable[[httpx.Request], httpx.Response]
) -> None:
    gateway.answer = answer

    found = ask(store, gateway, "/api/logs/")

    assert (found.status_code, found.headers["Prefect-Maintenance"], found.headers["Retry-After"]) == (503, "true", "5")


def test_refusal_of_the_gateway_is_passed_back(store: SatelliteStore, gateway: Gateway) -> None:
    gateway.answer = lambda _: httpx.Response(403, json={"detail": "no"})

    assert ask(store, gateway, "/api/logs/").status_code == 403


def test_credential_renewed_meanwhile_is_used_at_once(store: SatelliteStore, gateway: Gateway) -> None:
    second = httpx.BasicAuth("robot", "second")._auth_header

    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["Authorization"] == second:
            return httpx.Response(200, json={})
        register(store, "second")
        return httpx.Response(401, json={})

    gateway.answer = answer

    assert ask(store, gateway, "/api/logs/").status_code == 200


def test_credential_that_is_refused_is_renewed_once_and_used(store: SatelliteStore, gateway: Gateway) -> None:
    second = httpx.BasicAuth("robot", "second")._auth_header
    gateway.answer = lambda request: httpx.Response(200 if request.headers["Authorization"] == second else 401, json={})
    renewals = []

    def renew() -> None:
        renewals.append(1)
        register(store, "second")

    async def ask_thrice() -> list[int]:
        centre = Centre(store, renew=renew, transport=httpx.MockTransport(gateway))
        return [answer[0] for answer in await asyncio.gather(*(centre.send("POST", "/logs/", b"[]") for _ in range(3)))]

    assert (asyncio.run(ask_thrice()), renewals) == ([200, 200, 200], [1])


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        pytest.param(AuthenticationError("revoked"), 401, id="refused for good"),
        pytest.param(RemoteError("the source is away", retryable=True), "away", id="cannot be renewed now"),
        pytest.param(OSError(28, "No space left on device"), "away", id="cannot be kept"),
    ],
)
def test_credential_that_cannot_be_renewed(
    store: SatelliteStore, gateway: Gateway, error: Exception, outcome: int | str
) -> None:
    gateway.answer = lambda _: httpx.Response(401, json={})

    def renew() -> None:
        raise error

    async def ask_once() -> int | str:
        centre = Centre(store, renew=renew, transport=httpx.MockTransport(gateway))
        try:
            return (await centre.send("POST", "/logs/", b"[]"))[0]
        except CentreAwayError:
            return "away"

    assert asyncio.run(ask_once()) == outcome


def test_damaged_registration_is_maintenance_and_says_no_secret(
    store: SatelliteStore, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    (store.folder / "registration.json").write_text('{"auth": {"password": "first"}}')

    assert ask(store, gateway, "/api/logs/").status_code == 503
    assert "first" not in caplog.text


def test_password_is_another_one_at_each_start(store: SatelliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = [RunningProxy(store) for _ in range(2)]

    assert len({proxy.auth_string for proxy in proxies}) == 2
    for proxy in proxies:
        assert proxy.auth_string.partition(":")[2] not in proxy.url
        proxy._socket.close()


def test_request_whose_caller_hangs_up_before_its_end_does_not_cross_the_link(
    store: SatelliteStore, gateway: Gateway
) -> None:
    parts: list[Message] = [
        {"type": "http.request", "body": b'[{"message":', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return parts.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    async def inside() -> None:
        proxy = EdgeProxy(Centre(store, transport=httpx.MockTransport(gateway)), PASSWORD)
        header = httpx.BasicAuth(*AUTH)._auth_header.encode()
        scope = {"type": "http", "method": "POST", "path": "/api/logs/", "headers": [(b"authorization", header)]}
        await proxy(scope, receive, send)

    asyncio.run(inside())

    assert gateway.requests == []
    assert sent[0]["status"] == 499


# -- websockets


def talk(proxy: EdgeProxy, path: str, frames: list[Any], *, seconds: float = 0.2) -> list[Message]:
    """Send frames through a websocket, and give the centre a moment."""
    incoming: list[Message] = [{"type": "websocket.connect"}]
    incoming += [{"type": "websocket.receive", "text": json.dumps(frame)} for frame in frames]
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0) if incoming else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        sent.append(message)

    async def inside() -> None:
        delivering = asyncio.create_task(proxy._events.deliver())
        header = httpx.BasicAuth(*AUTH)._auth_header.encode()
        scope = {"type": "websocket", "path": path, "headers": [(b"authorization", header)]}
        await proxy(scope, receive, send)
        await proxy.drain(seconds)
        delivering.cancel()

    asyncio.run(inside())
    return sent


def test_events_are_kept_until_the_centre_has_them(
    store: SatelliteStore, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harbor_satellite.edge.event_post._RETRY_SECONDS", 0.01)
    gateway.answer = lambda request: httpx.Response(503, json={}) if len(gateway.requests) < 3 else httpx.Response(204)
    proxy = EdgeProxy(Centre(store, transport=httpx.MockTransport(gateway)), PASSWORD)

    sent = talk(
        proxy, "/api/events/in", [{"type": "auth", "token": f"edge:{PASSWORD}"}, {"id": 1}, {"id": 2}], seconds=5
    )

    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send"]
    assert [request.url.path for request in gateway.requests] == ["/prefect/api/events"] * 3
    assert json.loads(gateway.requests[-1].content) == [{"id": 1}, {"id": 2}]


def test_websocket_of_the_worker_is_404_so_that_it_uses_requests(store: SatelliteStore, gateway: Gateway) -> None:
    proxy = EdgeProxy(Centre(store, transport=httpx.MockTransport(gateway)), PASSWORD)

    sent = talk(proxy, "/api/work_pools/satellite-shop-1/workers/connect", [])

    assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 404)


@pytest.mark.parametrize(
    "frame", [{"type": "auth", "token": "edge:guessed"}, {"type": "auth"}, {"token": "\ud800"}, [], "x"]
)
def test_websocket_without_the_password_is_closed(store: SatelliteStore, gateway: Gateway, frame: Any) -> None:
    proxy = EdgeProxy(Centre(store, transport=httpx.MockTransport(gateway)), PASSWORD)

    sent = talk(proxy, "/api/events/in", [frame, {"id": 1}])

    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert gateway.requests == []


def test_websocket_for_events_out_is_quiet_and_costs_the_link_nothing(store: SatelliteStore, gateway: Gateway) -> None:
    proxy = EdgeProxy(Centre(store, transport=httpx.MockTransport(gateway)), PASSWORD)

    sent = talk(proxy, "/api/events/out", [{"type": "auth", "token": f"edge:{PASSWORD}"}, {"type": "filter"}])

    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send"]
    assert gateway.requests == []


def test_websocket_that_says_nothing_is_closed(
    store: SatelliteStore, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harbor_satellite.edge.proxy._GREETING_SECONDS", 0.01)
    proxy = EdgeProxy(Centre(store, transport=httpx.MockTransport(gateway)), PASSWORD)
    sent: list[Message] = []
    incoming: list[Message] = [{"type": "websocket.connect"}]

    async def receive() -> Message:
        return incoming.pop(0) if incoming else await asyncio.Future()

    async def send(message: Message) -> None:
        sent.append(message)

    async def inside() -> None:
        scope = {"type": "websocket", "path": "/api/events/in", "headers": []}
        await asyncio.wait_for(proxy(scope, receive, send), 5)

    asyncio.run(inside())

    assert sent[-1]["type"] == "websocket.close"


def test_large_events_are_delivered_in_requests_that_the_gateway_takes(store: SatelliteStore, gateway: Gateway) -> None:
    gateway.answer = lambda _: httpx.Response(204)
    proxy = EdgeProxy(Centre(store, transport=httpx.MockTransport(gateway)), PASSWORD)
    events = [{"id": number, "text": "a" * 200_000} for number in range(30)]

    talk(proxy, "/api/events/in", [{"type": "auth", "token": f"edge:{PASSWORD}"}, *events], seconds=5)

    assert max(len(request.content) for request in gateway.requests) < 2 * 1024 * 1024
    assert [one["id"] for request in gateway.requests for one in json.loads(request.content)] == list(range(30))


def test_event_that_is_too_large_is_dropped_and_the_next_is_delivered(
    store: SatelliteStore, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.answer = lambda _: httpx.Response(204)
    proxy = EdgeProxy(Centre(store, transport=httpx.MockTransport(gateway)), PASSWORD)
    frames = [{"type": "auth", "token": f"edge:{PASSWORD}"}, {"text": "a" * 1_100_000}, {"id": 2}]

    talk(proxy, "/api/events/in", frames, seconds=5)

    assert [json.loads(request.content) for request in gateway.requests] == [[{"id": 2}]]
    assert "too large" in caplog.text


# -- what need not cross the link

POLL = "/api/work_pools/satellite-shop-1/get_scheduled_flow_runs"


def poll_body() -> dict[str, Any]:
    return {"scheduled_before": (datetime.now(UTC) + timedelta(seconds=60)).isoformat(), "work_queue_names": []}


def test_poll_with_nothing_due_is_a_short_question(store: SatelliteStore, gateway: Gateway) -> None:
    gateway.answer = lambda _: httpx.Response(204)

    answer = ask(store, gateway, POLL, json=poll_body())

    (sent,) = gateway.requests
    assert (answer.status_code, answer.json()) == (200, [])
    assert sent.url.path == "/prefect/api/work_pools/satellite-shop-1/due/60"
    assert {name.lower() for name in sent.headers} == {"host", "authorization", "content-length"}


@pytest.mark.parametrize("status", [200, 403], ids=["something is due", "an older centre"])
def test_poll_that_cannot_be_answered_shortly_is_passed_on(
    store: SatelliteStore, gateway: Gateway, status: int
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status if "/due/" in request.url.path else 200, json=[{"flow_run": {}}])

    gateway.answer = answer

    assert ask(store, gateway, POLL, json=poll_body()).json() == [{"flow_run": {}}]
    assert [request.url.path.rpartition("/")[2] for request in gateway.requests] == ["60", "get_scheduled_flow_runs"]


def test_poll_while_the_link_is_cut_is_maintenance_and_says_since_when(store: SatelliteStore, gateway: Gateway) -> None:
    gateway.answer = fail
    backs: list[int] = []

    async def cut_and_mend() -> list[object]:
        proxy = EdgeProxy(Centre(store, transport=httpx.MockTransport(gateway)), PASSWORD, lambda: backs.append(1))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(proxy), base_url="http://proxy.test") as client:
            first = (await client.post(POLL, auth=AUTH, json=poll_body())).status_code
            since = proxy.away_since
            await client.post(POLL, auth=AUTH, json=poll_body())
            gateway.answer = lambda _: httpx.Response(204)
            still = proxy.away_since
            last = (await client.post(POLL, auth=AUTH, json=poll_body())).status_code
            return [first, since is not None, since == still, last, proxy.away_since]

    assert asyncio.run(cut_and_mend()) == [503, True, True, 200, None]
    assert backs == [1]


def test_request_of_another_thread_goes_over_the_proxys_connections(store: SatelliteStore, gateway: Gateway) -> None:
    gateway.answer = lambda request: httpx.Response(200, json={"got": request.content.decode()})

    async def lend() -> httpx.Response:
        centre = Centre(store, transport=httpx.MockTransport(gateway))
        loop = asyncio.get_running_loop()

        def in_thread() -> httpx.Response:
            with httpx.Client(transport=SharedTransport(centre, lambda: loop)) as client:
                return client.post("https://centre.test/satellites/sync", content=b"a report", auth=("robot", "x"))

        return await asyncio.to_thread(in_thread)

    answer = asyncio.run(lend())

    assert answer.json() == {"got": "a report"}
    assert gateway.requests[0].headers["Authorization"] == httpx.BasicAuth("robot", "x")._auth_header


@pytest.mark.parametrize("is_large", [False, True], ids=["link cut", "too large"])
def test_request_of_another_thread_that_fails_is_an_error_of_the_http_library(
    store: SatelliteStore, gateway: Gateway, *, is_large: bool
) -> None:
    gateway.answer = AWAY["too large"] if is_large else fail

    async def lend() -> None:
        centre = Centre(store, transport=httpx.MockTransport(gateway))
        await centre.forward(httpx.Request("POST", "https://centre.test/satellites/sync"))

    with pytest.raises(httpx.HTTPError):
        asyncio.run(lend())


def test_request_of_another_thread_before_the_proxy_runs_fails(store: SatelliteStore) -> None:
    with httpx.Client(transport=SharedTransport(Centre(store), lambda: None)) as client, pytest.raises(httpx.HTTPError):
        client.get("https://centre.test/")
