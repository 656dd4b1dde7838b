"""Harbor's REST API v2.0 over httpx: one request, one answer, errors of ours; listings page by page.

What must not live here: any one resource (each has a module beside this one), and what to do with any of it.
"""

from __future__ import annotations

import json
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

ANSWER_MAX_BYTES: Final = 1024 * 1024  # bytes
PAGE_MAX_BYTES: Final = 4 * 1024 * 1024  # bytes
"""Of one page of a listing. Measured: 0.9 kB an artifact, 0.16 kB each of its tags, 0.2 kB each child of an index, and
the image's whole configuration on top. A page of 100 with 200 tags each is just within; what is not comes in smaller
pages, down to one artifact with some 20,000 tags."""
PAGE_SIZE: Final = 100  # Harbor refuses more with 422, and -1 makes its paging endless
_SMALLER: Final = 5  # pages become so many times smaller: 100, 20, 4, and at last 1
_ITEMS_MAX: Final = 100_000
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


@dataclass(frozen=True, slots=True)
class HarborPage:
    """A page of a listing, and how many items Harbor says there are on all pages (None: it does not say)."""

    items: list[dict[str, Any]]
    total_count: int | None


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
        max_bytes: int = ANSWER_MAX_BYTES,
    ) -> HarborAnswer:
        """Ask once; nothing is tried again here.

        Args:
            method: HTTP method.
            path: below ``/api/v2.0``, beginning with a slash, already quoted.
            expected: statuses that are an answer and not an error.
            params: query.
            body: to be sent as JSON; None for no body.
            max_bytes: of the answer's body.

        Raises:
            RemoteError: unreachable, or another status.
            SizeLimitError: more than ``max_bytes``.
            UntrustedDataError: an expected status whose body is not JSON.
        """
        what = f"{method} {path} at {self.url}"
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            with self._client.stream(method, path, params=params, content=content, headers=headers) as response:
                raw = _read(response, what, max_bytes)
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
        """Give every item of a listing; ends though Harbor's ``Link`` would not.

        The filter ``q`` is a hint only: Harbor ignores keys it does not know, so check every item again. What comes
        or goes meanwhile may be missed: where an absence means a deletion, use ``listing.complete``.

        Raises:
            RemoteError: see ``request``.
            UntrustedDataError: see ``pages``; SizeLimitError likewise.
        """
        for page in self.pages(path, params):
            yield from page.items

    def pages(self, path: str, params: Mapping[str, str | int] | None = None) -> Iterator[HarborPage]:
        """Give a listing page by page; a page too long to be read comes as several smaller ones.

        Raises:
            RemoteError: see ``request``.
            UntrustedDataError: the listing is not a list of objects, or has no end.
            SizeLimitError: a single item is longer than ``PAGE_MAX_BYTES``.
        """
        seen, size = 0, PAGE_SIZE
        while seen < _ITEMS_MAX:
            query = {**(params or {}), "page": seen // size + 1, "page_size": size}
            try:
                answer = self.request("GET", path, expected={200}, params=query, max_bytes=PAGE_MAX_BYTES)
            except SizeLimitError:
                if size == 1:
                    raise
                size = size // _SMALLER or 1  # divides the larger size, so that what was seen is whole pages of it
                continue
            found = [] if answer.document is None else answer.document
            if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
                raise UntrustedDataError(f"GET {path} at {self.url}: not a list of objects")
            yield HarborPage(found, answer.total_count)
            seen += len(found)
            if len(found) != size or (answer.total_count is not None and seen >= answer.total_count):
                return
        raise UntrustedDataError(f"GET {path} at {self.url}: more than {_ITEMS_MAX} items")

    def check(self) -> None:
        """Raise ``RemoteError`` unless Harbor is up and healthy; it says so in the body, never in the status."""
        answer = self.request("GET", "/health", expected={200})
        status = answer.document.get("status") if isinstance(answer.document, dict) else None
        if status != "healthy":
            raise RemoteError(f"Harbor at {self.url} says that it is {str(status)[:40]!r}", status=200, retryable=True)


def filter_value(text: str) -> str:
    """Return a value as the filter ``q`` must carry it: Harbor decodes it once more than the query."""
    return quote(text, safe="")


def repository_path(project: str, repository: str) -> str:
    """Return the path of a repository below ``/api/v2.0``; slashes in its name are quoted twice, as Harbor wants.

    Args:
        project: its name.
        repository: its name below the project.
    """
    return f"/projects/{quote(project, safe='')}/repositories/{quote(quote(repository, safe=''), safe='')}"


def _read(response: httpx.Response, what: str, max_bytes: int) -> bytes:
    raw = bytearray()
    for chunk in response.iter_bytes():
        raw += chunk
        if len(raw) > max_bytes:
            raise SizeLimitError(f"{what}: the answer is longer than {max_bytes} bytes")
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
