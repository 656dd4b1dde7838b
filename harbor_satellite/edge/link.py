"""The site's requests to the gateway: with the credential that the site has at that moment."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from typing import TYPE_CHECKING, Final

import httpx

from harbor_satellite.errors import AuthenticationError, HarborSatelliteError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.state.wire import Registration

_LOG = logging.getLogger(__name__)
_RENEWAL_SECONDS: Final = 60.0  # between two tries to renew a credential that is refused
_FORWARD_SECONDS: Final = 60.0  # more than one request may take
_ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
_TIMEOUT: Final = httpx.Timeout(45.0, connect=10.0)  # seconds; less than the 60 for which Prefect's client waits
# Kept for longer than lies between two polls, jitter included: a handshake costs more than ten polls.
_LIMITS: Final = httpx.Limits(max_connections=8, max_keepalive_connections=4, keepalive_expiry=170.0)
_PASSED_ON: Final = frozenset({"retry-after", "prefect-maintenance", "content-type"})
_OF_THE_WIRE: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
UNAUTHORIZED: Final = 401
_REFUSALS: Final = range(400, 500)
ANSWERS: Final = range(200, 300)


class CentreAwayError(Exception):
    """The centre cannot be reached, or what answers is not the centre."""


class Centre:
    """Sends requests to the gateway with the site's present credential.

    Args:
        store: where the registration is; looked at for each request.
        verify: CA bundle of the centre, or True for the system's.
        renew: fetches the site's next credential; called, in a thread, when the gateway refuses the present one.
        transport: for tests.
    """

    def __init__(
        self,
        store: SatelliteStore,
        *,
        verify: str | bool = True,
        renew: Callable[[], object] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._store = store
        self._file: Path = store.folder / "registration.json"
        self._mark: tuple[int, int] | None = None
        self._registration: Registration | None = None
        self._renew = renew
        self._renewing = asyncio.Lock()
        self._renewed_at = float("-inf")
        self._http = httpx.AsyncClient(
            verify=verify, timeout=_TIMEOUT, limits=_LIMITS, transport=transport, trust_env=False
        )
        # Headers are most of what an idle site sends: those that say nothing here are left out.
        for name in ("Accept", "Accept-Encoding", "Connection", "User-Agent"):
            del self._http.headers[name]

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, method: str, path: str, body: bytes, agent: str = "") -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the gateway's answer.

        Raises:
            CentreAwayError: come again later.
        """
        registration, mark = self._present()
        answer = await self._send(registration, method, path, body, agent)
        # Renewed between reading the file and asking, or now: once more with what is there then.
        if answer[0] == UNAUTHORIZED and (self._is_newer(mark) or await self._has_renewed(mark)):
            return await self._send(self._present()[0], method, path, body, agent)
        return answer

    async def forward(self, request: httpx.Request) -> httpx.Response:
        """Send a request that has been made elsewhere, as it is, and return its answer, read.

        Raises:
            httpx.HTTPError: it was not answered, or with too much.
        """
        copy = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        answer = await self._http.send(copy, stream=True, auth=None)
        received = bytearray()
        try:
            async for chunk in answer.aiter_bytes():
                received += chunk
                if len(received) > _ANSWER_MAX_BYTES:
                    raise httpx.DecodingError("an answer that is too large", request=request)
        finally:
            await answer.aclose()
        headers = {name: value for name, value in answer.headers.items() if name not in _OF_THE_WIRE}
        return httpx.Response(answer.status_code, headers=headers, content=bytes(received), request=request)

    async def _has_renewed(self, mark: tuple[int, int] | None) -> bool:
        """Renew a credential that is refused: it expired while the site was away, and no run can come to renew it.

        Raises:
            CentreAwayError: that could not be done now; a refusal for good stays one.
        """
        if self._renew is None:
            return False
        async with self._renewing:
            now = time.monotonic()
            if self._is_newer(mark) or now - self._renewed_at < _RENEWAL_SECONDS:
                return self._is_newer(mark)
            self._renewed_at = now
            try:
                await asyncio.to_thread(self._renew)
            except AuthenticationError as error:
                _LOG.warning("credential refused, and not renewed reason=%s", error)
                return False
            except HarborSatelliteError as error:
                _LOG.warning("credential not renewed yet reason=%s", error)
                raise CentreAwayError("the credential is refused and cannot be renewed now") from error
        return True

    async def _send(
        self, registration: Registration, method: str, path: str, body: bytes, agent: str
    ) -> tuple[int, dict[str, str], bytes]:
        auth = httpx.BasicAuth(registration.auth.username, registration.auth.password.get_secret_value())
        headers = {"Content-Type": "application/json"} if body else {}
        if agent:  # Prefect's server treats clients by their version
            headers["User-Agent"] = agent
        url = registration.prefect_api_url.rstrip("/") + path
        received = bytearray()
        try:
            async with self._http.stream(method, url, content=body or None, headers=headers, auth=auth) as response:
                async for chunk in response.aiter_bytes():
                    received += chunk
                    if len(received) > _ANSWER_MAX_BYTES:
                        raise CentreAwayError("an answer that is too large")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CentreAwayError(type(error).__name__) from error
        kept = {name: value for name, value in response.headers.items() if name in _PASSED_ON}
        is_json = not received or kept.get("content-type", "").startswith("application/json")
        if response.status_code not in (*ANSWERS, *_REFUSALS) or not is_json:
            raise CentreAwayError(f"HTTP {response.status_code}")
        return response.status_code, kept, bytes(received)

    def _present(self) -> tuple[Registration, tuple[int, int] | None]:
        if self._registration is None or self._is_newer(self._mark):
            try:
                self._mark = self._look()
                self._registration = self._store.registration()
            except (HarborSatelliteError, OSError) as error:
                raise CentreAwayError(f"no registration: {type(error).__name__}") from error
        return self._registration, self._mark

    def _is_newer(self, mark: tuple[int, int] | None) -> bool:
        """Tell whether the registration on disk is another than it was at a mark."""
        try:
            return self._look() != mark
        except OSError:
            return False

    def _look(self) -> tuple[int, int]:
        found = self._file.stat()
        return found.st_ino, found.st_mtime_ns


class SharedTransport(httpx.BaseTransport):
    """Sends requests of a client in another thread over the connections to the centre.

    Args:
        centre: whose connections.
        loop: in which they live; None: not yet.
    """

    def __init__(self, centre: Centre, loop: Callable[[], asyncio.AbstractEventLoop | None]) -> None:
        self._centre = centre
        self._loop = loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, and return its answer, read."""
        loop = self._loop()
        if loop is None or not loop.is_running():
            raise httpx.ConnectError("the proxy does not run", request=request)
        passing = asyncio.run_coroutine_threadsafe(self._centre.forward(request), loop)
        try:
            return passing.result(_FORWARD_SECONDS)
        except (TimeoutError, concurrent.futures.CancelledError) as error:  # or the proxy ends
            passing.cancel()
            raise httpx.ReadTimeout("no answer", request=request) from error
