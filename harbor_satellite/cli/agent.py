"""``harbor-satellite edge run``, and ``edge agent``, which only the supervisor starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.inputs import refuse_user
from harbor_satellite.settings import SatelliteSettings

_CONFIGURATION_ERROR: Final = 78
"""EX_CONFIG: the supervisor waits long before it tries that again."""


def run(
    ground_control: Annotated[str, typer.Option(help="URL of Ground Control.")] = "",
    token_file: Annotated[Path | None, typer.Option(help="File with the one-time token.")] = None,
) -> None:
    """Run this site until SIGTERM: its registry, its agent, and what starts them again when they die.

    The agent registers the site if need be; the one-time token comes from --token-file, HARBOR_SATELLITE_TOKEN or the
    registration file on the disk.
    """
    from harbor_satellite.edge.launch import run_site  # noqa: PLC0415  (each command its own imports)

    settings, given = SatelliteSettings(), {}
    if ground_control:
        refuse_user(ground_control, "--ground-control", "a site needs no more than its one-time token")
        settings = settings.model_copy(update={"ground_control_url": ground_control})
        given["HARBOR_SATELLITE_GROUND_CONTROL_URL"] = ground_control
    if token_file:
        given["HARBOR_SATELLITE_TOKEN_FILE"] = str(token_file.absolute())
    run_site(settings, given)


def agent() -> None:
    """Be the agent of this site; `edge run` starts it, and starts it again."""
    from harbor_satellite.edge.agent import run_agent  # noqa: PLC0415  (Prefect takes a second to import)

    try:
        run_agent(SatelliteSettings())
    except InvalidInputError as error:
        typer.echo(f"error: {error}\n       {error.diagnostics()}", err=True)
        raise typer.Exit(_CONFIGURATION_ERROR) from error
