"""One try to register a site: which one-time tokens there are, and which of them Ground Control takes.

What must not live here: the claim itself (``satellite/registration.py``), the dropped file's format
(``satellite/registration_file.py``), and trying again (``registration.py``).
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import (
    AuthenticationError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    TokenRefusedError,
)
from harbor_satellite.satellite.ground_control_client import GroundControlClient
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
    from collections.abc import Iterable, Iterator

    from harbor_satellite.settings import SatelliteSettings
    from harbor_satellite.state.wire import Registration

_LOG = logging.getLogger(__name__)
_SAID: Final[list[str]] = []
"""Why the dropped file was not read the last time."""
_NOTHING_GIVEN: Final = (
    "no one-time token: drop {file}, give HARBOR_SATELLITE_TOKEN or HARBOR_SATELLITE_TOKEN_FILE, "
    "or run `harbor-satellite edge register`"
)


def attempt(
    settings: SatelliteSettings, store: SatelliteStore, given: TokenSource | None = None, *, is_again: bool = False
) -> tuple[Registration, bool]:
    """Try once to have a registration.

    Args:
        settings: the site's.
        store: its folder.
        given: the token that was given by hand; None: whatever the settings and the registration file say.
        is_again: claim although the site is registered.

    Returns:
        The registration, and whether it is new.

    Raises:
        TokenRefusedError: no token is good.
        RemoteError: Ground Control is away or refuses; the token is still good.
        ConflictError: another process registers this site.
        InvalidInputError: there is no token, or no address; or the site's disk shall be encrypted and cannot.
        StorageError: what is on disk cannot be read, and nobody asked to register again.
    """
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
