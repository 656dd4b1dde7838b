"""The site's side of Ground Control's HTTP API: registration, renewal and status reports; one try each."""

from __future__ import annotations

import gzip
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from harbor_satellite.errors import (
    AuthenticationError,
    InvalidInputError,
    RemoteError,
    SizeLimitError,
    UntrustedDataError,
)
from harbor_satellite.registry.client_errors import RETRYABLE_STATUSES, parse_retry_after
from harbor_satellite.state.wire import Registration, RegistryAuth, ReportAnswer, StatusReport

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from pydantic import SecretStr

_TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)  # seconds
_ANSWER_MAX_BYTES: Final = 1024 * 1024  # bytes
_UNAUTHORIZED: Final = 401
_NO_SUCH_CALL: Final = frozenset({404, 405})
_NOT_NOW: Final = ("certificate is not yet valid", "certificate has expired")
_DONE: Final = range(200, 300)
_COMPRESSED_FROM: Final = 1024  # bytes of a report
_SAY_NOTHING: Final = ("Accept", "Accept-Encoding", "Connection", "User-Agent")
"""Headers of the HTTP library that are left out: headers are most of an idle site's bytes."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: str
    body: bytes
    is_page: bool = False
    """HTML: a captive portal, or a proxy on the way, and not Ground Control."""


class GroundControlClient:
    """Talks to one Ground Control: ours, or the original's."""

    def __init__(self, url: str, *, verify: bool | str = True, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self._url,
            timeout=_TIMEOUT,
            verify=_trusted(self._url, verify),
            transport=transport,
            trust_env=False,
        )
        for name in _SAY_NOTHING:
            del self._http.headers[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def claim(self, token: SecretStr, claim_key: SecretStr) -> Registration:
        """Exchange the one-time token for credentials.

        Raises:
            AuthenticationError: the token is unknown, used, revoked or expired.
            RemoteError: Ground Control refused otherwise or could not be reached; the token is still good.
            UntrustedDataError: the answer is not a registration.
        """
        body = {"token": token.get_secret_value(), "claim_key": claim_key.get_secret_value()}
        answer = self._send("POST", "/satellites/ztr", json=body)
        if answer.status in _NO_SUCH_CALL:
            # The original takes the token in the path only.
            answer = self._send("GET", f"/satellites/ztr/{quote(token.get_secret_value(), safe='')}")
        if answer.status == _UNAUTHORIZED:
            raise AuthenticationError(f"{self._url} refused the one-time token: unknown, used, revoked or expired")
        self._check(answer, "claim")
        try:
            return Registration.model_validate_json(answer.body)
        except ValidationError:
            # The answer may hold a secret, and pydantic's error would echo it: so `from None`.
            message = f"{self._url} answered a claim with something else than a registration"
            raise UntrustedDataError(message) from None

    def report(
        self, report: StatusReport, username: str, secret: SecretStr, *, is_compressed: bool = False
    ) -> ReportAnswer:
        """Deliver a status report as the satellite.

        Args:
            report: a whole one, or one "as before".
            username: the satellite's.
            secret: its.
            is_compressed: Ground Control has said that it takes compressed ones.

        Returns:
            What Ground Control has to say; nothing, if it is the original's.

        Raises:
            AuthenticationError: the satellite's credential is not (or no longer) good.
            RemoteError: Ground Control refused otherwise or could not be reached.
        """
        # The original wants to see all of its keys; what is "as before" goes to nobody but ours.
        body = report.model_dump_json(exclude_none=True, exclude_defaults=report.is_as_before).encode()
        headers = {"Content-Type": "application/json"}
        if is_compressed and len(body) > _COMPRESSED_FROM:
            body, headers["Content-Encoding"] = gzip.compress(body, 6, mtime=0), "gzip"
        auth = httpx.BasicAuth(username, secret.get_secret_value())
        answer = self._send("POST", "/satellites/sync", content=body, headers=headers, auth=auth)
        if answer.is_page:  # never taken, and never refused for good either
            raise RemoteError(
                f"what answers at {self._url} is not Ground Control: HTTP {answer.status}, a page", retryable=True
            )
        if answer.status == _UNAUTHORIZED:
            raise AuthenticationError(f"{self._url} does not accept the credential of {username}")
        self._check(answer, "status report")
        try:
            return ReportAnswer.model_validate_json(answer.body)
        except ValidationError:
            return ReportAnswer()  # the original's answer is empty, or some text

    def renew(self, username: str, secret: SecretStr, renewal_key: SecretStr) -> RegistryAuth:
        """Ask for the satellite's next credential with the one that it has; the same key again if the answer is lost.

        Raises:
            AuthenticationError: the credential is not good, even for this: a new one-time token is needed.
            RemoteError: Ground Control refused otherwise or could not be reached.
            UntrustedDataError: the answer is not a credential.
        """
        answer = self._send(
            "POST",
            "/satellites/credential",
            json={"renewal_key": renewal_key.get_secret_value()},
            auth=httpx.BasicAuth(username, secret.get_secret_value()),
        )
        if answer.status == _UNAUTHORIZED:
            raise AuthenticationError(
                f"{self._url} renews no credential of {username}: it was revoked or expired too long ago; "
                "register this site again with a new one-time token"
            )
        self._check(answer, "renewal of the credential")
        try:
            return RegistryAuth.model_validate_json(answer.body)
        except ValidationError:
            message = f"{self._url} answered a renewal with something else than a credential"
            raise UntrustedDataError(message) from None  # as above: it may hold a secret

    def _send(self, method: str, path: str, **request: Any) -> _Answer:
        try:
            with self._http.stream(method, path, **request) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > _ANSWER_MAX_BYTES:
                        raise SizeLimitError(f"{self._url} answered with more than {_ANSWER_MAX_BYTES} bytes")
                is_page = response.headers.get("Content-Type", "").lower().startswith("text/html")
                return _Answer(response.status_code, response.headers.get("Retry-After", ""), bytes(body), is_page)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise InvalidInputError(f"not an address of a Ground Control: {self._url!r}") from error
        except httpx.HTTPError as error:
            message = f"Ground Control at {self._url} cannot be reached: {_reason(error, datetime.now(UTC))}"
            raise RemoteError(message, retryable=True) from error

    def _check(self, answer: _Answer, what: str) -> None:
        if answer.status in _DONE:
            return
        # The peer's own words stay out: whatever answers here may echo the token, or be a captive portal.
        raise RemoteError(
            f"{self._url} refused the {what}: HTTP {answer.status}",
            status=answer.status,
            retryable=answer.status in RETRYABLE_STATUSES,
            retry_after_seconds=parse_retry_after(answer.retry_after, datetime.now(UTC)),
        )


def _trusted(url: str, verify: bool | str) -> bool | ssl.SSLContext:  # noqa: FBT001  (every HTTP client's word)
    if not url.lower().startswith("https:"):
        return False  # nothing is verified without TLS, and reading all authorities takes 30 ms
    if not isinstance(verify, str):
        return verify
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        raise InvalidInputError(f"CA file {verify} cannot be used: {error.strerror or error}") from error


def _reason(error: Exception, now: datetime) -> str:
    """Say why; a certificate that is not valid now may as well be a clock that is wrong."""
    reason = str(error) or type(error).__name__
    if any(words in reason for words in _NOT_NOW):
        reason += f"; this site's clock says {now:%Y-%m-%d %H:%M} UTC: if that is wrong, set it (NTP)"
    return reason
