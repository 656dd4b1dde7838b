"""The site's requests to the gateway: with the credential that the site has at that moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httpx

from harbor_satellite.errors import HarborSatelliteError

if TYPE_CHECKING:
    from pathlib import Path

    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.state.wire import Registration

_ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
_TIMEOUT: Final = httpx.Timeout(45.0, connect=10.0)  # seconds; less than the 60 for which Prefect's client waits
_LIMITS: Final = httpx.Limits(max_connections=8, max_keepalive_connections=2, keepalive_expiry=70.0)
_PASSED_ON: Final = frozenset({"retry-after", "prefect-maintenance", "content-type"})
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
        transport: for tests.
    """

    def __init__(
        self, store: SatelliteStore, *, verify: str | bool = True, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._store = store
        self._file: Path = store.folder / "registration.json"
        self._mark: tuple[int, int] | None = None
        self._registration: Registration | None = None
        self._http = httpx.AsyncClient(
            verify=verify, timeout=_TIMEOUT, limits=_LIMITS, transport=transport, trust_env=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, method: str, path: str, body: bytes, agent: str = "") -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the gateway's answer.

        Raises:
            CentreAwayError: come again later.
        """
        answer = await self._send(method, path, body, agent)
        # Renewed between reading the file and asking: once more with what is there now.
        if answer[0] == UNAUTHORIZED and self._is_renewed():
            return await self._send(method, path, body, agent)
        return answer

    async def _send(self, method: str, path: str, body: bytes, agent: str) -> tuple[int, dict[str, str], bytes]:
        registration = self._present()
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

    def _present(self) -> Registration:
        if self._registration is None or self._is_renewed():
            try:
                self._mark = self._look()
                self._registration = self._store.registration()
            except (HarborSatelliteError, OSError) as error:
                raise CentreAwayError(f"no registration: {type(error).__name__}") from error
        return self._registration

    def _is_renewed(self) -> bool:
        try:
            return self._look() != self._mark
        except OSError:
            return False

    def _look(self) -> tuple[int, int]:
        found = self._file.stat()
        return found.st_ino, found.st_mtime_ns
