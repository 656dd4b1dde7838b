"""The operator's side of Ground Control's HTTP API: one client for every call, one try each.

What lives here: sending, paging, and turning refusals into errors of the library. What must not: what calls mean
(``cli/fleet*.py``), and where a token is kept (``cli/fleet_login.py``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import httpx

from harbor_satellite.errors import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RemoteError,
    SizeLimitError,
    UntrustedDataError,
)
from harbor_satellite.inputs import refuse_user

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from pydantic import SecretStr

_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)  # seconds; a deletion waits for the source
_ANSWER_MAX_BYTES: Final = 256 * 1024 * 1024  # a fleet of ten thousand, in one page, is some 20 MB
_PAGE_ROWS: Final = 500
_MESSAGE_MAX_LENGTH: Final = 2000  # characters
_DONE: Final = range(200, 300)
_LOG_IN: Final = "log in with `harbor-satellite fleet login`, or give a token: HARBOR_SATELLITE_API_TOKEN, --token-file"


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of a listing, and how many there are in all."""

    rows: list[dict[str, Any]]
    total: int


class GroundControlApi:
    """Talks to Ground Control as a person, or a program that acts for one.

    Args:
        url: of Ground Control.
        token: of a session, or an API token; None: nobody.
        verify: False, True or a CA bundle, as httpx takes it.
        transport: for tests.

    Raises:
        InvalidInputError: there is a user in the URL.
    """

    def __init__(
        self,
        url: str,
        token: SecretStr | None = None,
        *,
        verify: bool | str = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = refuse_user(url.rstrip("/"), "the URL of Ground Control", _LOG_IN)
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=_TIMEOUT, verify=verify, transport=transport, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def request(self, method: str, path: str, *, body: object = None, query: Mapping[str, object] | None = None) -> Any:
        """Send one request, and return the JSON of its answer; None if there is none.

        Args:
            method: of HTTP.
            path: with names already quoted.
            body: sent as JSON; None: nothing.
            query: None and empty values are left out.

        Raises:
            AuthenticationError: nobody is logged in, or who is may not do this.
            InvalidInputError: a value breaks a rule, or names what is not there.
            ConflictError: somebody else was first.
            RemoteError: Ground Control refused otherwise or could not be reached.
            UntrustedDataError: what answered is no Ground Control.
        """
        return self._send(method, path, body, query)[0]

    def page(self, path: str, query: Mapping[str, object] | None = None) -> Page:
        """Fetch one page of a listing; raises as ``request`` does."""
        rows, total = self._send("GET", path, None, query)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UntrustedDataError(f"{self.url} answered {path} with something else than a list")
        return Page(rows, int(total) if total.isascii() and total.isdigit() else len(rows))

    def all_rows(self, path: str, query: Mapping[str, object] | None = None) -> Page:
        """Fetch a listing page by page, from its ``offset`` on; raises as ``request`` does."""
        wanted = dict(query or {})
        offset, found = int(str(wanted.get("offset") or 0)), list[dict[str, Any]]()
        while True:
            page = self.page(path, {**wanted, "limit": _PAGE_ROWS, "offset": offset + len(found)})
            found += page.rows
            if not page.rows or offset + len(found) >= page.total:
                return Page(found, page.total)

    def _send(self, method: str, path: str, body: object, query: Mapping[str, object] | None) -> tuple[Any, str]:
        params = {name: value for name, value in (query or {}).items() if value or value == 0}
        request = {"json": body} if body is not None else {}
        try:
            with self._http.stream(method, path, params=params, **request) as response:  # type: ignore[arg-type]
                raw = bytearray()
                for chunk in response.iter_bytes():
                    raw += chunk
                    if len(raw) > _ANSWER_MAX_BYTES:
                        raise SizeLimitError(f"{self.url} answered {path} with more than {_ANSWER_MAX_BYTES} bytes")
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise InvalidInputError(f"not an address of a Ground Control: {self.url!r}") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise RemoteError(f"Ground Control at {self.url} cannot be reached: {reason}", retryable=True) from error
        document = _parsed(bytes(raw))
        if response.status_code not in _DONE:
            self._refuse(method, path, response.status_code, document)
        if raw and document is None:
            raise UntrustedDataError(f"{self.url} answered {path} with something else than JSON: is it Ground Control?")
        return document, response.headers.get("X-Total-Count", "")

    def _refuse(self, method: str, path: str, status: int, document: object) -> None:
        """Raise what a refusal means, in the API's own words."""
        said = document.get("message") if isinstance(document, dict) else None
        message = str(said)[:_MESSAGE_MAX_LENGTH] if said else f"{self.url} answered {method} {path} with {status}"
        match status:
            case 401:
                raise AuthenticationError(f"{message}: {_LOG_IN}")
            case 403:
                raise AuthenticationError(message)
            case 404:
                raise NotFoundError(message)
            case 400 | 413 | 422:
                raise InvalidInputError(message)
            case 409:
                raise ConflictError(message)
            case _:
                raise RemoteError(message, status=status)


def _parsed(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
