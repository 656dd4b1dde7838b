"""HTTP as tests speak it: past the proxies of a developer's shell, and with one TLS context for all clients.

httpx reads all authorities for each new client otherwise, which is 30 ms of work; tests ask again and again.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

import httpx

_SECONDS: Final = 30.0
_TLS: Final = ssl.create_default_context()


def client(*, timeout: float = _SECONDS, **options: Any) -> httpx.Client:
    """Return a client whose connections last as long as it does."""
    return httpx.Client(timeout=timeout, trust_env=False, verify=_TLS, **options)


def request(method: str, url: str, *, timeout: float = _SECONDS, **options: Any) -> httpx.Response:
    """Ask once, over a connection of its own."""
    return httpx.request(method, url, timeout=timeout, trust_env=False, verify=_TLS, **options)


def get(url: str, **options: Any) -> httpx.Response:
    return request("GET", url, **options)


def post(url: str, **options: Any) -> httpx.Response:
    return request("POST", url, **options)
