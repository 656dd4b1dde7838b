"""The site's side of Ground Control's HTTP API: registration, renewal and status reports; one try each."""

from __future__ import annotations

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
_DONE: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: str
    body: bytes


class GroundControlClient:
    """Talks to one Ground Control: ours, or the original's."""

    def __init__(self, url: str, *, verify: bool | str = True, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self._url, timeout=_TIMEOUT, verify=verify, transport=transport, trust_env=False
        )

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

    def report(self, report: StatusReport, username: str, secret: SecretStr) -> ReportAnswer:
        """Deliver a status report as the satellite.

        Returns:
            What Ground Control has to say; nothing, if it is the original's.

        Raises:
            AuthenticationError: the satellite's credential is not (or no longer) good.
            RemoteError: Ground Control refused otherwise or could not be reached.
        """
        auth = httpx.BasicAuth(username, secret.get_secret_value())
        answer = self._send(
            "POST",
            "/satellites/sync",
            content=report.model_dump_json(exclude_none=True),
            headers={"Content-Type": "application/json"},
            auth=auth,
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
                return _Answer(response.status_code, response.headers.get("Retry-After", ""), bytes(body))
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise InvalidInputError(f"not an address of a Ground Control: {self._url!r}") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise RemoteError(f"Ground Control at {self._url} cannot be reached: {reason}", retryable=True) from error

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
