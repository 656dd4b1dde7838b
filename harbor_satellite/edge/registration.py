"""Trying to register a site until it is: for the agent as long as it takes, for a command as long as somebody waits.

What must not live here: one try, and where its token comes from (``registration_attempt.py``).
"""

from __future__ import annotations

import logging
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from harbor_satellite.edge.registration_attempt import attempt
from harbor_satellite.errors import (
    ConflictError,
    HarborSatelliteError,
    InvalidInputError,
    RemoteError,
    TokenRefusedError,
)
from harbor_satellite.satellite.centre_contact import note_contact
from harbor_satellite.satellite.files import file_mark
from harbor_satellite.satellite.machine_key import check_encryption
from harbor_satellite.satellite.store import SatelliteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from harbor_satellite.satellite.registration_file import TokenSource
    from harbor_satellite.settings import SatelliteSettings
    from harbor_satellite.state.wire import Registration

_LOG = logging.getLogger(__name__)
_FIRST_WAIT_SECONDS: Final = 2.0
_LONGEST_WAIT_SECONDS: Final = 300.0
_REFUSED_WAIT_SECONDS: Final = 3600.0
"""A token that is refused may be good later: made at the centre, or known there again after a restore."""
_BUSY_WAIT_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 5.0
"""So soon a file that is dropped, or a registration by hand, is seen."""


class StoppedError(HarborSatelliteError):
    """The agent was told to stop before the site was registered."""


def ensure_registered(settings: SatelliteSettings, stopping: Event) -> Registration:
    """Return this site's registration; wait for it as long as it takes.

    A token that is refused, or missing, is waited for as well: a file that is dropped later is seen within seconds.
    A registered site that Ground Control refuses (``refusal``) claims anew where a new token lies in the registration
    file, and keeps the registration that it has if that token is refused as well.

    Args:
        settings: the site's.
        stopping: ends the wait.

    Raises:
        InvalidInputError: credentials shall be encrypted, and this installation or machine cannot.
        StoppedError: ``stopping`` was set.
    """
    if settings.is_encrypted:
        check_encryption()
    store = SatelliteStore(settings.data_dir)
    wait_seconds, said = _FIRST_WAIT_SECONDS, ""
    while not stopping.is_set():
        mark = _mark(settings)
        try:
            registration = attempt(settings, store)[0]
        except HarborSatelliteError as error:
            seconds = _wait_seconds(error, wait_seconds)
            note_contact(store, str(error), datetime.now(UTC))
            level = logging.DEBUG if str(error) == said else logging.WARNING
            _LOG.log(level, "not registered yet reason=%s wait_seconds=%.0f", error, seconds)
            wait_seconds, said = min(wait_seconds * 2, _LONGEST_WAIT_SECONDS), str(error)
        else:
            if said:  # else nobody was asked: a registered site may be cut off as it starts
                note_contact(store, "", datetime.now(UTC))
            return registration
        _rest(settings, stopping, seconds, mark)
    raise StoppedError("told to stop before this site was registered")


def register_now(
    settings: SatelliteSettings,
    given: TokenSource | None,
    *,
    is_again: bool = False,
    patience_seconds: float = 0.0,
    rest: Callable[[float], object] = time.sleep,
) -> tuple[Registration, bool]:
    """Register this site for somebody who waits for it.

    Args:
        settings: the site's.
        given: the token that was given by hand; None: whatever the settings and the registration file say.
        is_again: claim although the site is registered.
        patience_seconds: how long to try while Ground Control is away, or another process is at it.
        rest: waits so many seconds.

    Returns:
        The registration, and whether it is new.

    Raises:
        TokenRefusedError: the token is not good.
        RemoteError: Ground Control is away or refuses; the token is still good.
        ConflictError: another process registers this site.
        InvalidInputError: there is no token, or no address; or the site's disk shall be encrypted and cannot.
        OtherMachineError: the disk was encrypted on another machine, and ``is_again`` was not given.
    """
    if settings.is_encrypted:
        check_encryption()
    store = SatelliteStore(settings.data_dir)
    wait_seconds, waited = _BUSY_WAIT_SECONDS, 0.0
    while True:
        try:
            return attempt(settings, store, given, is_again=is_again)
        except (RemoteError, ConflictError) as error:
            is_hopeless = isinstance(error, RemoteError) and not error.retryable
            if is_hopeless or waited >= patience_seconds:
                raise
            _LOG.info("trying again reason=%s", error)
        seconds = min(wait_seconds * random.uniform(0.5, 1.0), patience_seconds - waited)  # noqa: S311  (jitter)
        rest(seconds)
        waited, wait_seconds = waited + seconds, min(wait_seconds * 2, _LONGEST_WAIT_SECONDS)


def _wait_seconds(error: HarborSatelliteError, wait_seconds: float) -> float:
    if isinstance(error, ConflictError):
        return _BUSY_WAIT_SECONDS
    if isinstance(error, (TokenRefusedError, InvalidInputError)):
        wait_seconds = _REFUSED_WAIT_SECONDS
    asked = error.retry_after_seconds if isinstance(error, RemoteError) else None
    wait_seconds = max(wait_seconds, min(asked or 0.0, _REFUSED_WAIT_SECONDS))
    return wait_seconds * random.uniform(0.5, 1.0)  # noqa: S311  (jitter)


def _rest(settings: SatelliteSettings, stopping: Event, seconds: float, mark: object) -> None:
    """Wait, but no longer than until a file appears or changes that a token may be in."""
    while seconds > 0 and not stopping.wait(min(seconds, _LOOK_SECONDS)) and _mark(settings) == mark:
        seconds -= _LOOK_SECONDS


def _mark(settings: SatelliteSettings) -> tuple[object, ...]:
    """Return what is another if somebody drops a token, or registers this site by hand."""
    paths = (settings.registration_file, settings.token_file, settings.data_dir / "registration.json")
    return tuple(file_mark(path) for path in paths if path)
