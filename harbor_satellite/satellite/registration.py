"""Zero touch registration, from the site's side: safe to repeat, whatever was lost on the way."""

from __future__ import annotations

import contextlib
import logging
import secrets
from typing import TYPE_CHECKING

from pydantic import SecretStr

from harbor_satellite.errors import InvalidInputError, NotFoundError
from harbor_satellite.satellite.site_config import forget_serial

if TYPE_CHECKING:
    from pathlib import Path

    from harbor_satellite.satellite.ground_control_client import GroundControlClient
    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.state.wire import Registration

_LOG = logging.getLogger(__name__)
_CLAIM_KEY_BYTES = 32  # bytes of randomness


def register(
    client: GroundControlClient, store: SatelliteStore, token: SecretStr, *, is_again: bool = False
) -> Registration:
    """Exchange the one-time token and keep what comes back; a registered site keeps its registration.

    Args:
        client: to Ground Control.
        store: the site's disk.
        token: the one-time token.
        is_again: claim although the site is registered: the new credential takes the old one's place.

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
    store.save_registration(registration)
    _LOG.info("registered satellite=%s source=%s", registration.satellite, registration.auth.url)
    return registration


def read_token(token: SecretStr, token_file: Path | None) -> SecretStr:
    """Return the one-time token, from a file where one is given.

    Raises:
        InvalidInputError: the file cannot be read.
    """
    if token_file is None:
        return token
    try:
        return SecretStr(token_file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read the one-time token from {token_file}: {error}") from error
