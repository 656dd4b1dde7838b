"""Harbor's REST API v2.0 over httpx: one request, one answer, errors of ours; and its projects.

What must not live here: robot accounts (``robots.py``), and what to do with any of it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

import httpx

from harbor_satellite.errors import RemoteError, SizeLimitError, UntrustedDataError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection, Iterator, Mapping
    from types import TracebackType

    from pydantic import SecretStr

logger = logging.getLogger(__name__)

ANSWER_MAX_BYTES: Final = 1024 * 1024  # bytes
PAGE_SIZE: Final = 100  # Harbor refuses more with 422, and -1 makes its paging endless
_PAGES_MAX: Final = 1000
_API: Final = "/api/v2.0"
_RETRYABLE: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_DIGITS_MAX: Final = 9  # of a count or of seconds; more is no answer but an attack
_LONGEST_MESSAGE: Final = 300  # characters of a peer's words that go into ours


@dataclass(frozen=True, slots=True)
class HarborAnswer:
    """A response that was expected: its status, its headers that matter, and its JSON, unchecked."""

    status: int
    document: Any = None
    total_count: int | None = None
    location: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)


class HarborClient:
    """One Harbor, seen as one user; safe to share between threads.

    Args:
        url: such as ``https://harbor.example.com``; with or without a path in front of ``/api``.
        username: an administrator, or a robot that may manage robots.
        password: of that user.
        timeout_seconds: for connecting, and again for every read and write.
        verify: as httpx takes it; an ``ssl.SSLContext`` for a private CA.
        transport: for tests.
    """

    def __init__(
        self,
        url: str,
        username: str,
        password: SecretStr,
        *,
        timeout_seconds: float = 10.0,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(
            base_url=self.url + _API,
            auth=httpx.BasicAuth(username, password.get_secret_value()),
            timeout=httpx.Timeout(timeout_seconds),
            verify=verify,
            transport=transport,
            # Harbor sets a cookie on every answer, and asks for a CSRF token once it comes back.
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        )

    def __enter__(self) -> Self:
        """Use the client in a ``with`` block, which closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close connections."""
        self.close()

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        expected: Collection[int],
        params: Mapping[str, str | int] | None = None,
        body: object = None,
    ) -> HarborAnswer:
        """Ask once; nothing is tried again here.

        Args:
            method: HTTP method.
            path: below ``/api/v2.0``, beginning with a slash, already quoted.
            expected: statuses that are an answer and not an error.
            params: query.
            body: to be sent as JSON; None for no body.

        Raises:
            RemoteError: unreachable, or another status.
            SizeLimitError: more than ``ANSWER_MAX_BYTES``.
            UntrustedDataError: an expected status whose body is not JSON.
        """
        what = f"{method} {path} at {self.url}"
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            with self._client.stream(method, path, params=params, content=content, headers=headers) as response:
                raw = _read(response, what)
        except httpx.HTTPError as error:
            raise RemoteError(f"{what}: {type(error).__name__}", retryable=True) from error
        if response.status_code not in expected:
            raise _refusal(response, raw, what)
        return HarborAnswer(
            response.status_code,
            _document(response, raw, what),
            _count(response.headers.get("X-Total-Count")),
            response.headers.get("Location", ""),
            response.headers,
        )

    def items(self, path: str, params: Mapping[str, str | int] | None = None) -> Iterator[dict[str, Any]]:
        """Give every item of a listing, page by page; ends though Harbor's ``Link`` would not.

        The filter ``q`` is a hint only: Harbor ignores keys it does not know, so check every item again.

        Raises:
            RemoteError: see ``request``; UntrustedDataError: the listing is not a list of objects.
        """
        seen = 0
        for page in range(1, _PAGES_MAX + 1):
            query = {**(params or {}), "page": page, "page_size": PAGE_SIZE}
            answer = self.request("GET", path, expected={200}, params=query)
            found = answer.document or []
            if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
                raise UntrustedDataError(f"GET {path} at {self.url}: not a list of objects")
            yield from found
            seen += len(found)
            if len(found) < PAGE_SIZE or (answer.total_count is not None and seen >= answer.total_count):
                return
        raise UntrustedDataError(f"GET {path} at {self.url}: more than {_PAGES_MAX} pages")

    def check(self) -> None:
        """Raise ``RemoteError`` unless Harbor is up and healthy; it says so in the body, never in the status."""
        answer = self.request("GET", "/health", expected={200})
        status = answer.document.get("status") if isinstance(answer.document, dict) else None
        if status != "healthy":
            raise RemoteError(f"Harbor at {self.url} says that it is {str(status)[:40]!r}", status=200, retryable=True)

    def project_exists(self, name: str) -> bool:
        """Tell whether a project is there."""
        answer = self.request("HEAD", "/projects", expected={200, 404}, params={"project_name": name})
        return answer.status == httpx.codes.OK

    def ensure_private_project(self, name: str) -> None:
        """Make sure that a project is there and that nobody reads it without credentials.

        The original creates its ``satellite`` project public, states and configs readable by all.
        """
        if not self.project_exists(name):
            body = {"project_name": name, "public": False, "metadata": {"public": "false"}, "storage_limit": -1}
            self.request("POST", "/projects", expected={201, 409}, body=body)
            logger.info("project created project=%s", name)
            return
        path = f"/projects/{quote(name, safe='')}"
        project = self.request("GET", path, expected={200}).document
        metadata = project.get("metadata") if isinstance(project, dict) else None
        if isinstance(metadata, dict) and metadata.get("public") == "true":
            self.request("PUT", path, expected={200}, body={"metadata": {"public": "false"}})
            logger.warning("project was public, made private project=%s", name)


def _read(response: httpx.Response, what: str) -> bytes:
    raw = bytearray()
    for chunk in response.iter_bytes():
        raw += chunk
        if len(raw) > ANSWER_MAX_BYTES:
            raise SizeLimitError(f"{what}: the answer is longer than {ANSWER_MAX_BYTES} bytes")
    return bytes(raw)


def _document(response: httpx.Response, raw: bytes, what: str) -> Any:
    if not raw or "json" not in response.headers.get("Content-Type", ""):
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UntrustedDataError(f"{what}: the answer is not JSON") from error


def _refusal(response: httpx.Response, raw: bytes, what: str) -> RemoteError:
    status = response.status_code
    return RemoteError(
        f"{what}: {status} {_message(raw)}".rstrip(),
        status=status,
        retryable=status in _RETRYABLE,
        retry_after_seconds=_count(response.headers.get("Retry-After")),
    )


def _message(raw: bytes) -> str:
    try:
        errors = json.loads(raw)["errors"]
        return "; ".join(f"{error['code']}: {error['message']}" for error in errors)[:_LONGEST_MESSAGE]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _count(text: str | None) -> int | None:
    is_count = text is not None and text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX
    return int(text) if is_count and text is not None else None
