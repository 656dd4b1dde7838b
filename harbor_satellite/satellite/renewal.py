"""Renewal, from the site's side: the next credential is tried and kept before the present one is given up.

Whatever is killed whenever, the credential on disk works: the present one until Ground Control has seen the next
one used, which is after it is on disk.
"""

from __future__ import annotations

import logging
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from harbor_satellite.errors import AuthenticationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from harbor_satellite.satellite.applied import Applied
    from harbor_satellite.satellite.ground_control_client import GroundControlClient
    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.state.wire import Registration, RegistryAuth

_LOG = logging.getLogger(__name__)
_KEY_BYTES: Final = 32  # bytes of randomness
_LAST_CALL: Final = timedelta(hours=12)
"""Before its end a site asks by itself, though nobody told it to: no more than half of the shortest life, a day."""
_REFUSED: Final = "status 401"


def renew(client: GroundControlClient, store: SatelliteStore, try_out: Callable[[Registration], None]) -> Registration:
    """Get the site's next credential, try it, and keep it in the place of the present one.

    The caller reports with it at once: that confirms it.

    Args:
        client: to Ground Control.
        store: the site's disk.
        try_out: reads something at the source with the registration it is given; raises if that is refused.

    Raises:
        AuthenticationError: the present credential is not good for this any more.
        ConflictError: another process of this site is renewing or registering.
        RemoteError: Ground Control or the source cannot be reached or refuses; the present credential stays.
        StorageError: the next one could not be kept; the same renewal may be repeated.
    """
    with store.credentials_lock():
        present = store.registration()
        key = SecretStr(store.renewal_key(secrets.token_urlsafe(_KEY_BYTES)))
        auth = _ask(client, store, present, key)
        # The address stays as it was: only who logs in there is renewed.
        renewed = present.model_copy(update={"auth": auth.model_copy(update={"url": present.auth.url})})
        try_out(renewed)
        store.save_renewed(renewed)
    _LOG.info("credential renewed username=%s expires=%s", auth.username, auth.expires_at)
    return renewed


def _ask(client: GroundControlClient, store: SatelliteStore, present: Registration, key: SecretStr) -> RegistryAuth:
    try:
        return client.renew(present.auth.username, present.auth.password, key)
    except AuthenticationError:
        earlier = store.previous_auth()
        if earlier is None:
            raise
        # A centre that was restored from a backup does not know the present one, but still the one before.
        auth = client.renew(earlier.username, earlier.password, key)
        _LOG.warning("centre knows only the credential before username=%s", earlier.username)
        return auth


def is_expiring(registration: Registration, now: datetime, kept_at: datetime | None = None) -> bool:
    """Tell whether the credential is about to expire, or has: Ground Control should have said so long before.

    Args:
        registration: the present one.
        now: this moment, by the site's clock.
        kept_at: when the credential came, by the same clock. One that seemed to be expiring even then says that the
            clock is wrong; the next one would seem so, too, and asking for it at every report helps nobody.
    """
    expires_at = registration.auth.expires_at
    if expires_at is None or expires_at.tzinfo is None:
        return False
    last_call = expires_at - _LAST_CALL
    return now >= last_call and (kept_at is None or kept_at < last_call)


def may_be_refused(applied: Applied) -> bool:
    """Tell whether the last run met a refusal of the kind that a credential gets which is no longer known."""
    last = applied.last_run.summary if applied.last_run else ""
    return _REFUSED in last or any(_REFUSED in failure.reason for failure in applied.failures)
