"""A site's registration as its processes care for it: where the token comes from, and waiting until it is good.

What must not live here: the claim itself (``satellite/registration.py``), the dropped file's format.
"""

from __future__ import annotations

import logging
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import (
    AuthenticationError,
    ConflictError,
    HarborSatelliteError,
    InvalidInputError,
    NotFoundError,
    RemoteError,
    StorageError,
    TokenRefusedError,
)
from harbor_satellite.satellite.centre_contact import note_contact
from harbor_satellite.satellite.ground_control_client import GroundControlClient
from harbor_satellite.satellite.machine_key import check_encryption
from harbor_satellite.satellite.registration import note_refusal, read_token, refusal, register
from harbor_satellite.satellite.registration_file import (
    TokenSource,
    dropped_source,
    keep_ca,
    remove_registration_file,
    token_source,
    warn_if_readable,
)
from harbor_satellite.satellite.store import RegisteredBy, SatelliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from threading import Event

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
_SAID: Final[list[str]] = []
"""Why the dropped file was not read the last time."""
_NOTHING_GIVEN: Final = (
    "no one-time token: drop {file}, give HARBOR_SATELLITE_TOKEN or HARBOR_SATELLITE_TOKEN_FILE, "
    "or run `harbor-satellite edge register`"
)


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


def attempt(
    settings: SatelliteSettings, store: SatelliteStore, given: TokenSource | None = None, *, is_again: bool = False
) -> tuple[Registration, bool]:
    """Try once to have a registration; see ``register_now``."""
    with store.credentials_lock():
        store.secrets.protect(is_encrypted=settings.is_encrypted)
        present = _present(settings, store, is_again=is_again)
        if present is None or is_again:
            return _first_accepted(settings, store, [given] if given else token_sources(settings), present)
        dropped = _new_token(settings, store)
        if dropped is None:
            _tidy(settings, store)
            return present, False
        try:
            return _first_accepted(settings, store, [dropped], present)
        except TokenRefusedError:
            return present, False  # it may be let in again as it is: what works of it goes on


def new_token_given(settings: SatelliteSettings) -> bool:
    """Tell whether ``ensure_registered`` would claim anew: this site is refused, and a new token was dropped."""
    return _new_token(settings, SatelliteStore(settings.data_dir)) is not None


def token_sources(settings: SatelliteSettings) -> Iterator[TokenSource]:
    """Give every token that the settings and the registration file have, the one to try first first.

    Raises:
        InvalidInputError: the one whose turn it is cannot be read, or is none.
    """
    if settings.token.get_secret_value():
        yield token_source(settings.token, "HARBOR_SATELLITE_TOKEN")
    if settings.token_file:
        yield token_source(read_token(settings.token, settings.token_file), str(settings.token_file))
    if dropped := dropped_source(settings.registration_file):
        warn_if_readable(settings.registration_file)
        yield dropped


def _new_token(settings: SatelliteSettings, store: SatelliteStore) -> TokenSource | None:
    refused = refusal(store)
    dropped = _readable_drop(settings) if refused else None
    if refused is None or dropped is None:
        return None
    return None if dropped.digest in {refused.token_digest, store.registered_by().token_digest} else dropped


def _readable_drop(settings: SatelliteSettings) -> TokenSource | None:
    try:
        dropped = dropped_source(settings.registration_file)
    except InvalidInputError as error:
        # Asked every half minute, for as long as somebody takes to see it.
        _LOG.log(logging.DEBUG if [str(error)] == _SAID else logging.WARNING, "no new token: %s", error)
        _SAID[:] = [str(error)]
        return None
    _SAID.clear()
    return dropped


def _present(settings: SatelliteSettings, store: SatelliteStore, *, is_again: bool) -> Registration | None:
    try:
        return store.registration()
    except NotFoundError:
        return None
    except StorageError as error:
        # Asked for by hand, or by the file: then what cannot be read here is given up.
        if not is_again and _readable_drop(settings) is None:
            raise
        _LOG.warning("registering anew: %s", error)
        return None


def _first_accepted(
    settings: SatelliteSettings, store: SatelliteStore, sources: Iterable[TokenSource], present: Registration | None
) -> tuple[Registration, bool]:
    known, used_digest = refusal(store), store.registered_by().token_digest
    refused: list[str] = []
    is_used = False
    for source in sources:
        if present and known is None and source.digest == used_digest:
            is_used = True  # this site has registered with it: it would be refused
            continue
        try:
            return _claim(settings, store, source), True
        except TokenRefusedError as error:
            refused.append(str(error))
            # A wrong token is no refusal of a site that is registered well.
            is_told = (known or present is None) and note_refusal(store, str(error), datetime.now(UTC), source.digest)
            _LOG.log(logging.ERROR if is_told else logging.DEBUG, "%s; %s", error, error.diagnostics())
    if present and is_used and not refused:
        return present, False
    if refused:
        raise TokenRefusedError("; ".join(refused))
    raise InvalidInputError(_NOTHING_GIVEN.format(file=settings.registration_file))


def _claim(settings: SatelliteSettings, store: SatelliteStore, source: TokenSource) -> Registration:
    known = store.registered_by()
    url = settings.ground_control_url or source.ground_control_url or known.ground_control_url
    if not url:
        raise InvalidInputError("no Ground Control: give --ground-control or HARBOR_SATELLITE_GROUND_CONTROL_URL")
    ca = settings.ca or keep_ca(source.ca, store.folder)
    ca_file = str(ca.absolute()) if ca else (known.ca if url == known.ground_control_url else "")
    by = RegisteredBy(url, ca_file, source.digest)
    try:
        with GroundControlClient(url, verify=ca_file or True) as client:
            registration = register(client, store, source.token, is_again=True, registered_by=by)
    except AuthenticationError as error:
        message = f"{url} refused the one-time token of {source.place}: it is unknown, used, revoked or expired"
        raise TokenRefusedError(message) from error
    if source.file:
        remove_registration_file(source.file)
    return registration


def _tidy(settings: SatelliteSettings, store: SatelliteStore) -> None:
    """Remove the registration file if its token is the one that was used: the removal was cut off."""
    path = settings.registration_file
    try:
        dropped = dropped_source(path)
    except InvalidInputError as error:
        _LOG.warning("registered already; %s", error)
        return
    if dropped and dropped.digest == store.registered_by().token_digest:
        remove_registration_file(path)
    elif dropped:
        _LOG.warning("registered already, so %s is left alone: `edge register --again` uses it", path)


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
    return tuple(_seen(path) for path in paths if path)


def _seen(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
