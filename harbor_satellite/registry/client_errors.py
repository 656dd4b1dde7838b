"""Turning a registry's refusals and a network's failures into the library's own errors.

What lives here: status, headers and body → ``RemoteError``. What must not: any I/O, or a decision to try again.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RETRYABLE_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
ERROR_BODY_MAX_BYTES: Final = 64 * 1024  # bytes; an error's body is read to this length and no further
_RETRY_AFTER_MAX_SECONDS: Final = 3600.0
_MESSAGE_MAX_LENGTH: Final = 300  # characters; of what a registry says
_TEXT_MAX_LENGTH: Final = 1000  # characters


@dataclass(frozen=True, slots=True)
class RegistryComplaint:
    """The first entry of a registry's error body (distribution-spec, "Error Codes")."""

    code: str = ""
    message: str = ""
    limit: str = ""
    """Zot's ``detail.limit``: the number of repositories it may hold."""

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.code, self.message) if part)
        return "".join(character if character.isprintable() else " " for character in text)[:_MESSAGE_MAX_LENGTH]


def parse_complaint(body: bytes) -> RegistryComplaint:
    """Read a registry's error body; empty parts if it is not one."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return RegistryComplaint()
    errors = document.get("errors") if isinstance(document, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return RegistryComplaint()
    detail = first.get("detail")
    limit = detail.get("limit") if isinstance(detail, dict) else None
    return RegistryComplaint(str(first.get("code") or ""), str(first.get("message") or ""), str(limit or ""))


def refusal(
    what: str, status: int, headers: Mapping[str, str], body: bytes, *, now: datetime | None = None
) -> RemoteError:
    """Describe an answer that is not what was asked for.

    Args:
        what: verb, thing and registry: ``"push manifest acme/app:1 to harbor.example"``.
        status: HTTP status of the answer.
        headers: its headers, case-insensitive.
        body: its body, whole or in part.
        now: the time by which an HTTP date in ``Retry-After`` is read.
    """
    complaint = parse_complaint(body)
    if status == 429 and complaint.code == "TOOMANYREQUESTS" and complaint.limit:  # noqa: PLR2004 - HTTP's number
        # Zot answers so when maxRepos is reached (measured, 2.1.20): waiting does not help.
        message = (
            f"{what}: refused with status 429: the registry holds its maximum of {complaint.limit[:20]} repositories"
        )
        return RemoteError(message, status=status)
    reason = f": {complaint}" if str(complaint) else ""
    return RemoteError(
        f"{what}: refused with status {status}{reason}",
        status=status,
        retryable=status in RETRYABLE_STATUSES,
        retry_after_seconds=parse_retry_after(headers.get("retry-after") or "", now or datetime.now(UTC)),
    )


def unreachable(what: str, error: Exception) -> RemoteError:
    """Describe a request that got no whole answer; retryable, unless the peer's certificate is not trusted.

    The HTTP library's own text is left out: it may carry a URL with its query. Its kind says enough.
    """
    causes = tuple(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RemoteError(f"{what}: its certificate is not trusted: {cause.verify_message}"[:_TEXT_MAX_LENGTH])
    reason = next((one.strerror for one in causes if isinstance(one, OSError) and one.strerror), "")
    text = f"{what}: {type(error).__name__}" + (f": {reason}" if reason else "")
    return RemoteError(text[:_TEXT_MAX_LENGTH], retryable=True)


def parse_retry_after(header: str, now: datetime) -> float | None:
    """Read ``Retry-After``, seconds or an HTTP date; 0 to 3600 s, None if it is absent or malformed."""
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _RETRY_AFTER_MAX_SECONDS)
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max((when - now).total_seconds(), 0.0), _RETRY_AFTER_MAX_SECONDS)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
