"""A server that does not look again and again whether it is to stop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import httpx

from harbor_satellite.registry.server_process import RegistryServer

if TYPE_CHECKING:
    import pytest
    from starlette.types import Receive, Scope, Send


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_server_that_sleeps_serves_and_ends_as_soon_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harbor_satellite.registry.server_process._DATE_SECONDS", 60.0)
    server = RegistryServer(_nothing, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()

    with httpx.Client(trust_env=False) as client:
        answer = client.get(server.url)
    server.stop()
    thread.join(10)

    assert answer.status_code == 204
    assert "date" in answer.headers
    assert not thread.is_alive()


def test_server_that_is_told_to_stop_before_it_runs_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harbor_satellite.registry.server_process._DATE_SECONDS", 60.0)
    server = RegistryServer(_nothing, "127.0.0.1", 0)
    server.stop()
    thread = threading.Thread(target=server.run)
    thread.start()
    thread.join(10)

    assert not thread.is_alive()
