"""A site's proxy, a link that counts, and the gateway: what crosses packed arrives as it was sent."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from harbor_satellite.edge.proxy import RunningProxy
from harbor_satellite.ground_control.api.context import GATEWAY_PATH, AppOptions
from harbor_satellite.ground_control.satellites.sources import OciSource
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.state.wire import Registration, RegistryAuth
from tests.fakes.link import link
from tests.fixtures_ground_control import SOURCE_URL, _fresh, running_ground_control, serve
from tests.ground_control.postgres import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from harbor_satellite.ground_control.database import SessionFactory
    from tests.fakes.link import Link

RUN = "11111111-1111-4111-8111-111111111111"
TASK = "22222222-2222-4222-8222-222222222222"
DOCUMENT = {"id": RUN, "work_pool_name": "satellite-shop-1", "tags": ["satellite:shop-1"] * 100}
LINES = [
    {"name": "prefect.flow_runs", "level": 20, "message": f"copied {number}", "flow_run_id": RUN}
    | {"timestamp": "2026-11-22T20:00:00Z"}
    for number in range(40)
]


@dataclass
class Prefect:
    """What stands behind the gateway: knows one run, and keeps what it is told."""

    events: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["path"].removeprefix("/api")
        if path in {"/events", "/logs/"}:
            told = json.loads(body)
            self.lines += told if path == "/logs/" else []
            # The centre tells of satellites as well.
            self.events += [one for one in told if one.get("event", "").startswith("prefect.task-run.")]
            status, answer = 201, b"null"
        else:
            status, answer = (200, json.dumps(DOCUMENT).encode()) if path == f"/flow_runs/{RUN}" else (404, b"{}")
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": answer})


@dataclass
class Way:
    """A site's proxy before the gateway."""

    prefect: Prefect
    line: Link
    proxy: RunningProxy

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        auth = httpx.BasicAuth(*self.proxy.auth_string.split(":"))
        agent = {"User-Agent": "prefect/3.8.8 (API 0.8.4)"}
        answer = httpx.request(method, self.proxy.url + path, json=body, auth=auth, headers=agent, timeout=30)
        answer.raise_for_status()
        return answer

    def emit(self, events: list[dict[str, Any]]) -> None:
        header = httpx.BasicAuth(*self.proxy.auth_string.split(":"))._auth_header
        url = self.proxy.url.replace("http://", "ws://") + "/events/in"
        with connect(
            url, subprotocols=[Subprotocol("prefect")], additional_headers={"Authorization": header}
        ) as socket:
            socket.send(json.dumps({"type": "auth", "token": self.proxy.auth_string}))
            socket.recv(10)
            for event in events:
                socket.send(json.dumps(event))

    @contextmanager
    def counted(self) -> Iterator[dict[str, int]]:
        """Give what crosses meanwhile, in bytes."""
        counted: dict[str, int] = {}
        self.line.reset()
        yield counted
        counters = self.line.counters()
        counted.update(up=counters.bytes_from_client, down=counters.bytes_to_client)


@pytest.fixture
def way(session_factory: SessionFactory, tmp_path: Path) -> Iterator[Way]:
    prefect = Prefect()
    with serve(prefect) as prefect_url:
        options = AppOptions(
            source_url=SOURCE_URL,
            prefect_api_internal_url=f"{prefect_url}/api",
            prefect_api_auth=SecretStr("admin:only-the-centre-knows"),
        )
        with (
            running_ground_control(session_factory, OciSource(), options) as running,
            link(running.url) as line,
        ):
            username, secret = _fresh(running).enroll("shop-1")
            store = SatelliteStore(tmp_path / "edge")
            auth = RegistryAuth(url=SOURCE_URL, username=username, password=SecretStr(secret))
            gateway = f"{line.url}{GATEWAY_PATH}"
            store.save_registration(Registration(auth=auth, state="", satellite="shop-1", prefect_api_url=gateway))
            proxy = RunningProxy(store)
            proxy.start()
            try:
                yield Way(prefect, line, proxy)
            finally:
                proxy.stop(5)


def event(number: int) -> dict[str, Any]:
    return {
        "event": "prefect.task-run.Completed",
        "id": RUN,
        "occurred": f"2026-11-22T20:00:{number:02}Z",
        "resource": {"prefect.resource.id": f"prefect.task-run.{TASK}"},
        "related": [{"prefect.resource.id": f"prefect.flow-run.{RUN}", "prefect.resource.role": "flow-run"}],
        "payload": {"task_run": {"task_key": "copy", "dynamic_key": "0"}, "validated_state": {"type": "COMPLETED"}},
    }


def test_events_and_log_lines_cross_the_link_packed_and_arrive_whole_and_in_order(way: Way) -> None:
    events = [event(number) for number in range(40)]
    way.ask("GET", "/flow_runs/" + RUN)  # any answer says that the centre takes packed bodies

    with way.counted() as crossed:
        way.emit(events)
        wait_for(lambda: len(way.prefect.events) == len(events), "the events")
        way.ask("POST", "/logs/", LINES)

    assert [one["occurred"] for one in way.prefect.events] == [one["occurred"] for one in events]
    assert [line["message"] for line in way.prefect.lines] == [line["message"] for line in LINES]
    assert crossed["up"] < len(json.dumps(events) + json.dumps(LINES)) / 6


def test_long_answer_crosses_the_link_packed_and_is_whole(way: Way) -> None:
    with way.counted() as crossed:
        answer = way.ask("GET", "/flow_runs/" + RUN)

    assert answer.json() == DOCUMENT
    assert crossed["down"] < len(json.dumps(DOCUMENT)) / 4
