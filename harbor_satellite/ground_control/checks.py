"""What a Ground Control needs, looked at one by one: its database, Prefect, signing key, addresses and a plain source.

Each check gives results and raises nothing that an operator could cause. Harbor's own are in ``harbor_checks.py``.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from harbor_satellite.errors import HarborSatelliteError, RemoteError
from harbor_satellite.ground_control.database import alembic_config, make_engine
from harbor_satellite.state.names import STATE_PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from pydantic import SecretStr

    from harbor_satellite.registry.client import HttpRegistry

SKEW_MAX_SECONDS: Final = 60.0
"""Between our clock and a peer's: more, and tokens, expiries and schedules are judged wrongly."""
_TIMEOUT_SECONDS: Final = 10.0
_ANSWER_MAX_BYTES: Final = 64 * 1024
_PROBE: Final = f"{STATE_PROJECT}/satellite-state/nobody/state"


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """It works, but not as well or as safely as it should; or it could not be told."""
    MISSING = "missing"
    """Ground Control cannot do its work without it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    outcome: Outcome
    detail: str
    """What was found."""
    advice: str = ""
    """What to do about it; empty when it is fine."""


def is_complete(checks: list[Check]) -> bool:
    """Tell whether nothing is missing; warnings do not count."""
    return all(check.outcome is not Outcome.MISSING for check in checks)


def check_database(url: str) -> Check:
    """Tell whether the database answers and has this release's schema; nothing is changed in it."""
    name = "database"
    try:
        place = make_url(url)
        shown = place.render_as_string(hide_password=True)
        if place.get_backend_name() == "sqlite" and not Path(place.database or "").exists():
            return Check(name, Outcome.MISSING, f"{shown}: no such file", "run harbor-satellite ground-control migrate")
        engine = make_engine(url)
    except (SQLAlchemyError, HarborSatelliteError) as error:
        return Check(name, Outcome.MISSING, str(error)[:200], "correct HARBOR_SATELLITE_GROUND_CONTROL_DATABASE_URL")
    try:
        with engine.connect() as connection:
            held = set(MigrationContext.configure(connection).get_current_heads())
            wanted = set(ScriptDirectory.from_config(alembic_config(connection)).get_heads())
    except SQLAlchemyError as error:
        advice = "check that the database runs, its address, user and password"
        return Check(name, Outcome.MISSING, f"{shown}: {type(error).__name__}", advice)
    finally:
        engine.dispose()
    if held != wanted:
        detail = f"{shown}: the schema is {','.join(sorted(held)) or 'not there'}, not {','.join(sorted(wanted))}"
        return Check(name, Outcome.MISSING, detail, "run harbor-satellite ground-control migrate")
    return Check(name, Outcome.OK, f"{shown}: schema {','.join(sorted(held))}")


def check_prefect(
    api_url: str,
    auth: SecretStr | None,
    clock: Callable[[], datetime],
    *,
    transport: httpx.BaseTransport | None = None,
) -> list[Check]:
    """Tell whether the Prefect API answers, takes our credentials and has the same clock.

    Args:
        api_url: ends with ``/api``; empty: Ground Control starts a server of its own.
        auth: ``user:password``, if the API asks for it.
        clock: gives the time here.
        transport: for tests.
    """
    if not api_url:
        return [Check("prefect", Outcome.OK, "PREFECT_API_URL is not set: `serve` starts a server of its own")]
    shown = _without_user(api_url)
    secret = auth.get_secret_value() if auth is not None else ""
    user, _, password = secret.partition(":")
    basic = httpx.BasicAuth(user, password) if secret else None
    try:
        with httpx.Client(auth=basic, timeout=_TIMEOUT_SECONDS, transport=transport) as client:
            health = _status(client, f"{api_url.rstrip('/')}/health")
            version = _status(client, f"{api_url.rstrip('/')}/admin/version")  # health is answered to anybody
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        advice = "start the Prefect server, or correct PREFECT_API_URL"
        return [Check("prefect", Outcome.MISSING, f"{shown}: {type(error).__name__}", advice)]
    if health[0] != httpx.codes.OK:
        advice = "look at the Prefect server's log; PREFECT_API_URL must end with /api"
        return [Check("prefect", Outcome.MISSING, f"{shown}: health answers {health[0]}", advice)]
    if version[0] in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        detail = f"{shown} does not take the credentials ({version[0]})"
        return [Check("prefect", Outcome.MISSING, detail, "set PREFECT_API_AUTH_STRING to the server's")]
    return [
        Check("prefect", Outcome.OK, shown),
        check_skew("prefect clock", date_of(health[1]), clock(), "the Prefect server"),
    ]


def check_skew(name: str, theirs: datetime | None, ours: datetime, who: str) -> Check:
    """Compare a peer's clock with ours; a difference of more than ``SKEW_MAX_SECONDS`` is a warning."""
    if theirs is None:
        return Check(name, Outcome.WARNING, f"{who} does not say what time it is", "compare the clocks by hand")
    skew = (theirs - ours).total_seconds()
    if abs(skew) > SKEW_MAX_SECONDS:
        detail = f"{who} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} us"
        return Check(name, Outcome.WARNING, detail, "set both clocks by NTP")
    return Check(name, Outcome.OK, f"{who} is within {SKEW_MAX_SECONDS:.0f} s of us")


def date_of(header: str) -> datetime | None:
    """Read a ``Date`` header; None if it is none."""
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment


def check_signing(key: Path | None, read_public_key: Callable[[], str]) -> Check:
    """Tell whether states can be signed.

    Args:
        key: the private key's file; None: states are not signed.
        read_public_key: returns the public half, or raises what is wrong with key, password or program.
    """
    name = "signing key"
    if key is None:
        advice = "set HARBOR_SATELLITE_GROUND_CONTROL_SIGNING_KEY, so that sites can tell your states from others"
        return Check(name, Outcome.WARNING, "none: states are not signed", advice)
    try:
        read_public_key()
    except HarborSatelliteError as error:
        advice = "check the key's file, HARBOR_SATELLITE_GROUND_CONTROL_SIGNING_KEY_PASSWORD and that cosign is there"
        return Check(name, Outcome.MISSING, str(error)[:300], advice)
    return Check(name, Outcome.OK, str(key))


def check_address(name: str, url: str, variable: str, *, is_given: bool) -> Check:
    """Tell whether sites can use an address.

    Args:
        name: what it is the address of.
        url: as sites are told; empty: they are told none.
        variable: where it is set.
        is_given: whether it was set, and not taken from an inside address.
    """
    if not url:
        return Check(name, Outcome.MISSING, "sites are told no address", f"set {variable}")
    parsed = _parsed(url)
    if parsed is None or not parsed.host or parsed.scheme not in {"http", "https"}:
        return Check(name, Outcome.MISSING, f"{_without_user(url)!r} is no address", f"set {variable}")
    if _is_loopback(parsed.host):
        detail = f"{_without_user(url)} is this machine: other machines cannot reach it"
        return Check(name, Outcome.WARNING, detail, f"set {variable} to what sites reach")
    if parsed.scheme != "https":
        detail = f"{_without_user(url)}: secrets and content travel in clear"
        return Check(name, Outcome.WARNING, detail, f"serve it over TLS and set {variable} to https://…")
    if not is_given:
        return Check(name, Outcome.WARNING, f"{url} is the inside address", f"set {variable} if sites use another")
    return Check(name, Outcome.OK, url)


def check_registry(registry: HttpRegistry, url: str) -> Check:
    """Tell whether a source that is no Harbor answers and lets us read; whether we may push, only a push tells."""
    try:
        registry.manifest_head(_PROBE, "latest")
    except RemoteError as error:
        advice = "check HARBOR_SATELLITE_GROUND_CONTROL_SOURCE_URL, …_USERNAME, …_PASSWORD and …_CA"
        return Check("source", Outcome.MISSING, str(error)[:300], advice)
    return Check("source", Outcome.OK, f"{url} answers and lets us read")


def _status(client: httpx.Client, url: str) -> tuple[int, str]:
    with client.stream("GET", url) as response:
        read = 0
        for chunk in response.iter_bytes():
            read += len(chunk)
            if read > _ANSWER_MAX_BYTES:
                break
        return response.status_code, response.headers.get("Date", "")


def _without_user(url: str) -> str:
    parsed = _parsed(url)
    return "…" if parsed is None else str(parsed.copy_with(userinfo=b"", query=None))


def _parsed(url: str) -> httpx.URL | None:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL:
        return None


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
