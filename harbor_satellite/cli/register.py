"""``harbor-satellite edge register``: by hand what the agent does by itself."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from pydantic import SecretStr

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.inputs import refuse_user
from harbor_satellite.settings import SatelliteSettings

if TYPE_CHECKING:
    from harbor_satellite.satellite.registration_file import TokenSource

_LINE_MAX_LENGTH: Final = 8192


def register(
    ground_control: Annotated[str, typer.Option(help="URL of Ground Control.")] = "",
    token: Annotated[
        str,
        typer.Option(help="The one-time token; - reads it from standard input. Taken off the command line at once."),
    ] = "",
    token_file: Annotated[Path | None, typer.Option(help="File with the one-time token.")] = None,
    ca: Annotated[Path | None, typer.Option(help="CA bundle of the centre; it is remembered.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Claim a new token although this site is registered.")] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds to go on trying while Ground Control is away.", min=0, max=3600)
    ] = 30.0,
) -> None:
    """Exchange the one-time token for credentials; safe to repeat.

    Without --token and --token-file the token comes from HARBOR_SATELLITE_TOKEN, HARBOR_SATELLITE_TOKEN_FILE or the
    registration file, and on a terminal it is asked for.
    """
    from harbor_satellite.edge.registration import register_now  # noqa: PLC0415

    settings = _settings(ground_control, ca)
    given = _given_token(settings, token, token_file, is_again=again)
    registration, is_new = register_now(settings, given, is_again=again, patience_seconds=wait)
    name = registration.satellite or registration.auth.username
    if is_new:
        typer.echo(f"registered as {name}; follows {registration.state}")
    else:
        typer.echo(f"registered already as {name}; follows {registration.state}. Nothing was asked; see --again")
        _say_refusal(settings)


def _given_token(
    settings: SatelliteSettings, token: str, token_file: Path | None, *, is_again: bool
) -> TokenSource | None:
    """Return the token that this command line names; None: it names none, and need not."""
    from harbor_satellite.edge.registration_attempt import token_sources  # noqa: PLC0415
    from harbor_satellite.satellite.registration import read_token  # noqa: PLC0415
    from harbor_satellite.satellite.registration_file import token_source  # noqa: PLC0415

    if token and token_file:
        raise InvalidInputError("give --token or --token-file, not both")
    if token == "-":  # noqa: S105  (no token: the place of one)
        token = sys.stdin.readline(_LINE_MAX_LENGTH).strip()
        if not token:
            raise InvalidInputError("no one-time token on standard input")
    if token:
        return token_source(SecretStr(token), "--token")
    if token_file:
        return token_source(read_token(SecretStr(""), token_file), str(token_file))
    with contextlib.suppress(PermissionError):  # who may not look is told so by the registration itself
        is_again = is_again or not (settings.data_dir / "registration.json").exists()
    if is_again and sys.stdin.isatty() and next(token_sources(settings), None) is None:
        return token_source(SecretStr(typer.prompt("One-time token", hide_input=True).strip()), "the prompt")
    return None


def _say_refusal(settings: SatelliteSettings) -> None:
    from harbor_satellite.satellite.registration import refusal  # noqa: PLC0415
    from harbor_satellite.satellite.store import SatelliteStore  # noqa: PLC0415

    if refused := refusal(SatelliteStore(settings.data_dir)):
        typer.echo(f"warning: refused since {refused.since:%Y-%m-%d %H:%M} UTC: {refused.reason}", err=True)


def _settings(ground_control: str, ca: Path | None) -> SatelliteSettings:
    settings = SatelliteSettings()
    if ground_control:
        refuse_user(ground_control, "--ground-control", "a site needs no more than its one-time token")
        settings = settings.model_copy(update={"ground_control_url": ground_control})
    return settings.model_copy(update={"ca": ca}) if ca else settings
