"""A Harbor client whose answers a test writes down, and Harbor's real answers to feed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import SecretStr

from harbor_satellite.harbor.client import HarborClient

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).parents[2] / "data" / "harbor"


def golden(name: str) -> Any:
    return json.loads((DATA / name).read_text())


def answering(answer: Callable[[httpx.Request], httpx.Response] | httpx.Response) -> HarborClient:
    def handle(request: httpx.Request) -> httpx.Response:
        return answer if isinstance(answer, httpx.Response) else answer(request)

    return HarborClient("http://harbor.test/", "admin", SecretStr("x"), transport=httpx.MockTransport(handle))
