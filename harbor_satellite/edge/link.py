"""The site's requests to the gateway: with the credential that the site has at that moment."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from typing import TYPE_CHECKING, Final

import httpx

from harbor_satellite.errors import AuthenticationError, HarborSatelliteError, UntrustedDataError
from harbor_satellite.state.packed import GZIP, pack, pays, takes_packed, unpack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.state.wire import Registration

_LOG = logging.getLogger(__name__)
_PLAIN_SECONDS: Final = 6 * 3600.0  # for which a centre that refused a packed body is sent plain ones
_RENEWAL_SECONDS: Final = 60.0  # between two tries to renew a credential that is refused
_FORWARD_SECONDS: Final = 60.0  # more than one request may take
_ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
_TIMEOUT: Final = httpx.Timeout(45.0, connect=10.0)  # seconds; less than the 60 for which Prefect's client waits
# One each for events, log lines and a report, which come one after the other and may be slow, and one for all else.
# Kept for longer than lies between two polls, jitter included: a handshake costs more than ten polls.
_LIMITS: Final = httpx.Limits(max_connections=4, max_keepalive_connections=4, keepalive_expiry=170.0)
_PASSED_ON: Final = frozenset({"retry-after", "prefect-maintenance", "content-type"})
_OF_THE_WIRE: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
UNAUTHORIZED: Final = 401
_REFUSALS: Final = range(400, 500)
_NOT_UNDERSTOOD: Final = frozenset({400, 403, 406, 411, 415, 422})
ANSWERS: Final = range(200, 300)


class CentreAwayError(Exception):
    """The centre cannot be reached, or what answers is not the centre."""


class Packing:
    """Whether the centre takes packed bodies: it must have said so, since one that does not refuses them for good.

    Args:
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._is_taken = False
        self._plain_until = float("-inf")

    def is_wanted(self, body: bytes) -> bool:
        """Tell whether a body is to be packed."""
        return self._is_taken and pays(body) and self._monotonic() >= self._plain_until

    def hear(self, answer: httpx.Response) -> None:
        """Take note of what an answer says."""
        if _says_packed(answer):
            self._is_taken = True

    def is_refused(self, answer: httpx.Response) -> bool:
        """Tell whether a packed body was refused since it was packed: by an older centre, or by what stands before it.

        Several centres may answer at one address while they are replaced: plain ones are sent for some hours.
        """
        if answer.status_code not in _NOT_UNDERSTOOD or _says_packed(answer):
            return False
        self._plain_until = self._monotonic() + _PLAIN_SECONDS
        _LOG.info("the centre refuses packed bodies, it is sent plain ones status=%d", answer.status_code)
        return True


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
        self._packing = Packing()
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
        return await self._exchange(copy, None)

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
            except (HarborSatelliteError, OSError, ValueError) as error:  # a full disk is no reason to fail a run
                _LOG.warning("credential not renewed yet reason=%s", error)
                raise CentreAwayError("the credential is refused and cannot be renewed now") from error
        return True

    async def _send(
        self, registration: Registration, method: str, path: str, body: bytes, agent: str
    ) -> tuple[int, dict[str, str], bytes]:
        is_packed = self._packing.is_wanted(body)
        try:
            answer = await self._ask(registration, method, path, body, agent, is_packed=is_packed)
            if is_packed and self._packing.is_refused(answer):
                answer = await self._ask(registration, method, path, body, agent, is_packed=False)
        except httpx.DecodingError as error:
            raise CentreAwayError(str(error)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CentreAwayError(type(error).__name__) from error
        self._packing.hear(answer)
        kept = {name: value for name, value in answer.headers.items() if name in _PASSED_ON}
        is_json = not answer.content or kept.get("content-type", "").startswith("application/json")
        if answer.status_code not in (*ANSWERS, *_REFUSALS) or not is_json:
            raise CentreAwayError(f"HTTP {answer.status_code}")
        return answer.status_code, kept, answer.content

    async def _ask(
        self, registration: Registration, method: str, path: str, body: bytes, agent: str, *, is_packed: bool
    ) -> httpx.Response:
        headers = {"Content-Type": "application/json"} if body else {}
        if is_packed:
            headers["Content-Encoding"] = GZIP
        if (
            agent
        ):  # Prefect's server treats clients by their version; what we ask ourselves is answered with next to nothing
            headers |= {"User-Agent": agent, "Accept-Encoding": GZIP}
        url = registration.prefect_api_url.rstrip("/") + path
        content = pack(body) if is_packed else body or None
        auth = httpx.BasicAuth(registration.auth.username, registration.auth.password.get_secret_value())
        return await self._exchange(self._http.build_request(method, url, content=content, headers=headers), auth)

    async def _exchange(self, request: httpx.Request, auth: httpx.Auth | None) -> httpx.Response:
        answer = await self._http.send(request, stream=True, auth=auth)
        try:
            content = await _content_of(answer)
        finally:
            await answer.aclose()
        headers = {name: value for name, value in answer.headers.items() if name not in _OF_THE_WIRE}
        return httpx.Response(answer.status_code, headers=headers, content=content, request=request)

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


async def _content_of(answer: httpx.Response) -> bytes:
    """Return what an answer holds, unpacked; raises ``httpx.DecodingError`` if that is too much, or cannot be read."""
    coding = answer.headers.get("Content-Encoding", "identity").lower()
    if coding not in {"identity", GZIP}:
        raise httpx.DecodingError("an answer in a coding that was not asked for")
    received = bytearray()
    # httpx would unpack each piece to whatever size it has.
    async for piece in answer.aiter_raw() if coding == GZIP else answer.aiter_bytes():
        received += piece
        if len(received) > _ANSWER_MAX_BYTES:
            raise httpx.DecodingError("an answer that is too large")
    try:
        return unpack(bytes(received), _ANSWER_MAX_BYTES) if coding == GZIP else bytes(received)
    except UntrustedDataError as error:
        raise httpx.DecodingError(f"an answer that cannot be unpacked: {error}") from error


def _says_packed(answer: httpx.Response) -> bool:
    # As RFC 7694 has it: what a server says that it accepts, it takes in the requests that follow.
    return takes_packed(answer.headers.get("Accept-Encoding", ""))


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


class _Lent:
    transport: httpx.BaseTransport | None = None


def lend(transport: httpx.BaseTransport | None) -> None:
    """Let runs in this process use a way to the centre that is there already; None: no longer."""
    _Lent.transport = transport


def lent() -> httpx.BaseTransport | None:
    """Return the way to the centre that runs in this process may use; None: each makes its own."""
    return _Lent.transport
