"""Zero touch registration, from the site's side: safe to repeat, whatever was lost on the way."""

from __future__ import annotations

import contextlib
import logging
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from harbor_satellite.errors import InvalidInputError, NotFoundError, StorageError
from harbor_satellite.satellite.registration_file import TOKEN_MAX_LENGTH
from harbor_satellite.satellite.site_config import forget_serial

if TYPE_CHECKING:
    from pathlib import Path

    from harbor_satellite.satellite.ground_control_client import GroundControlClient
    from harbor_satellite.satellite.store import RegisteredBy, SatelliteStore
    from harbor_satellite.state.wire import Registration

_LOG = logging.getLogger(__name__)
_CLAIM_KEY_BYTES = 32  # bytes of randomness
_REFUSAL: Final = "refused.json"
_REASON_MAX_LENGTH: Final = 1024


def register(
    client: GroundControlClient,
    store: SatelliteStore,
    token: SecretStr,
    *,
    is_again: bool = False,
    registered_by: RegisteredBy | None = None,
) -> Registration:
    """Exchange the one-time token and keep what comes back; a registered site keeps its registration.

    Who may not be alone at this holds the lock of the credentials.

    Args:
        client: to Ground Control.
        store: the site's disk.
        token: the one-time token.
        is_again: claim although the site is registered: the new credential takes the old one's place.
        registered_by: what is kept with the answer, for reports and renewals to come.

    Raises:
        AuthenticationError: the token is not good.
        RemoteError: Ground Control cannot be reached; try again with the same token.
        StorageError: the answer could not be kept; the same claim may be repeated.
    """
    if not is_again:
        with contextlib.suppress(NotFoundError):
            return store.registration()
    if not token.get_secret_value():
        raise InvalidInputError("no one-time token given: HARBOR_SATELLITE_TOKEN or a token file")
    claim_key = SecretStr(store.claim_key(secrets.token_urlsafe(_CLAIM_KEY_BYTES)))
    registration = client.claim(token, claim_key)
    forget_serial(store)
    store.save_registration(registration, registered_by)
    clear_refusal(store)
    _LOG.info("registered satellite=%s source=%s", registration.satellite, registration.auth.url)
    return registration


def read_token(token: SecretStr, token_file: Path | None) -> SecretStr:
    """Return the one-time token, from a file where one is given.

    Raises:
        InvalidInputError: the file cannot be read, or is far larger than a token.
    """
    if token_file is None:
        return token
    try:
        with token_file.open(encoding="utf-8") as file:
            text = file.read(TOKEN_MAX_LENGTH + 2).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read the one-time token from {token_file}: {_reason(error)}") from error
    return SecretStr(text)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Ground Control knows this site no more, or lets it in not yet."""

    since: datetime
    reason: str
    token_digest: str = ""
    """Of the one-time token that was refused last; empty: none was."""


def refusal(store: SatelliteStore) -> Refusal | None:
    """Return since when and why this site is refused; None while it is not."""
    try:
        return store.parsed(_REFUSAL, _refusal_of)
    except StorageError:
        return None


def note_refusal(store: SatelliteStore, reason: str, now: datetime, token_digest: str = "") -> bool:
    """Keep that this site is refused; the first time counts.

    Args:
        store: the site's disk.
        reason: without secrets.
        now: this moment.
        token_digest: of the one-time token that was refused; empty: it was the credential.

    Returns:
        Whether that is news, to be said once.
    """
    known = refusal(store)
    since = known.since if known else now
    refused = Refusal(since, reason[:_REASON_MAX_LENGTH], token_digest or (known.token_digest if known else ""))
    if refused == known:
        return False
    document = {"since": since.isoformat(), "reason": refused.reason, "token_sha256": refused.token_digest}
    store.write_document(_REFUSAL, document)
    return known is None or known.reason != refused.reason


def clear_refusal(store: SatelliteStore) -> None:
    """Forget a refusal: Ground Control has taken something from this site."""
    with contextlib.suppress(OSError):
        (store.folder / _REFUSAL).unlink(missing_ok=True)


def _refusal_of(document: dict[str, Any] | None) -> Refusal | None:
    if document is None:
        return None
    since = datetime.fromisoformat(document["since"])
    return Refusal(
        since if since.tzinfo else since.replace(tzinfo=UTC), str(document["reason"]), str(document["token_sha256"])
    )


def _reason(error: OSError | UnicodeDecodeError) -> str:
    """Say why, without what a decoder shows of the content."""
    return (error.strerror if isinstance(error, OSError) else None) or "no text"
