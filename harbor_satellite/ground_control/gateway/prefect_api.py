"""The centre's own way to Prefect: with its password, a deadline and a cap on what comes back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx

from harbor_satellite.ground_control.gateway.documents import write

if TYPE_CHECKING:
    from pydantic import SecretStr

    from harbor_satellite.ground_control.gateway.counters import GatewayCounters

ANSWER_MAX_BYTES: Final = 10 * 1024 * 1024
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0, pool=10.0)
_CONNECTIONS: Final = httpx.Limits(max_connections=40, max_keepalive_connections=20, keepalive_expiry=4.0)
"""Fewer seconds than the 5 for which Prefect keeps a connection: else it closes some that are about to be used."""
_TRY_AGAIN: Final = frozenset({408, 429})
_SERVER_ERROR: Final = 500
_OK: Final = 200


class PrefectAwayError(Exception):
    """Prefect cannot be reached, or cannot answer now."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What Prefect answered; never a 5xx."""

    status: int
    body: bytes

    def document(self) -> dict[str, Any]:
        """Return the JSON object of a good answer; an empty one if it is anything else."""
        value = self.value()
        return value if isinstance(value, dict) else {}

    def value(self) -> Any:
        """Return the JSON value of a good answer; None if it is anything else."""
        if self.status != _OK:
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class PrefectApi:
    """Calls Prefect; belongs to one event loop.

    Args:
        url: its API, such as ``http://127.0.0.1:4200/api``.
        auth: ``user:password`` if it asks for it.
        counters: where calls are counted.
        transport: for tests.
    """

    def __init__(
        self,
        url: str,
        auth: SecretStr | None,
        counters: GatewayCounters,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.auth = auth
        self._counters = counters
        user, _, password = auth.get_secret_value().partition(":") if auth else ("", "", "")
        self._client = httpx.AsyncClient(
            auth=httpx.BasicAuth(user, password) if auth else None,
            timeout=_TIMEOUT,
            limits=_CONNECTIONS,
            transport=transport,
            trust_env=False,
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def call(self, method: str, path: str, body: Any = None, *, agent: str = "") -> Answer:
        """Send one request, written from parsed values alone.

        Args:
            method: HTTP's.
            path: below the API.
            body: a JSON value; None: none.
            agent: the client's ``User-Agent``. Prefect takes a run's place among those of its deployment away from
                clients that do not say that they are new enough to keep it.

        Raises:
            PrefectAwayError: no answer, an error of the server, or more than ``ANSWER_MAX_BYTES``.
        """
        self._counters.calls_to_prefect += 1
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if agent:
            headers["User-Agent"] = agent
        content = write(body) if body is not None else None
        received = bytearray()
        try:
            async with self._client.stream(method, self.url + path, content=content, headers=headers) as response:
                if response.status_code >= _SERVER_ERROR or response.status_code in _TRY_AGAIN:
                    raise PrefectAwayError(f"HTTP {response.status_code}")
                async for chunk in response.aiter_bytes():
                    received += chunk
                    if len(received) > ANSWER_MAX_BYTES:
                        raise PrefectAwayError(f"more than {ANSWER_MAX_BYTES} bytes")
                return Answer(response.status_code, bytes(received))
        except httpx.HTTPError as error:
            raise PrefectAwayError(type(error).__name__) from error
