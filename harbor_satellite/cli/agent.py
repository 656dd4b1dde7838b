"""``harbor-satellite edge run``, and ``edge agent``, which only the supervisor starts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from harbor_satellite.edge.restarts import CONFIGURATION_ERROR
from harbor_satellite.edge.services import RESTART_NOW
from harbor_satellite.errors import InvalidInputError, StorageError
from harbor_satellite.inputs import refuse_user
from harbor_satellite.settings import SatelliteSettings

_LOG = logging.getLogger(__name__)


def run(
    ground_control: Annotated[str, typer.Option(help="URL of Ground Control.")] = "",
    token_file: Annotated[Path | None, typer.Option(help="File with the one-time token.")] = None,
) -> None:
    """Run this site until SIGTERM: its registry, its agent, and what starts them again when they die.

    The agent registers the site if need be; the one-time token comes from --token-file, HARBOR_SATELLITE_TOKEN or the
    registration file on the disk.
    """
    # Each command its own imports.
    from harbor_satellite.edge.launch import check_settings, run_as_before, run_site  # noqa: PLC0415

    given: dict[str, str] = {}
    if ground_control:
        refuse_user(ground_control, "--ground-control", "a site needs no more than its one-time token")
        given["HARBOR_SATELLITE_GROUND_CONTROL_URL"] = ground_control
    if token_file:
        given["HARBOR_SATELLITE_TOKEN_FILE"] = str(token_file.absolute())
    try:
        settings = SatelliteSettings(**({"ground_control_url": ground_control} if ground_control else {}))
        check_settings(settings)
    except (InvalidInputError, ValidationError) as error:
        run_as_before(_reason(error), given)
        raise
    try:
        run_site(settings, given)
    except StorageError as error:
        _LOG.error("not started, try again when the disk is better reason=%s advice=%s", error, error.diagnostics())
        raise typer.Exit(RESTART_NOW) from error


def agent() -> None:
    """Be the agent of this site; `edge run` starts it, and starts it again."""
    from harbor_satellite.edge.agent import run_agent  # noqa: PLC0415  (Prefect takes a second to import)

    try:
        run_agent(SatelliteSettings())
    except (InvalidInputError, ValidationError) as error:
        _LOG.error("the agent waits until the settings are right reason=%s", _reason(error))
        raise typer.Exit(CONFIGURATION_ERROR) from error


def _reason(error: InvalidInputError | ValidationError) -> str:
    from harbor_satellite.cli import settings_problems  # noqa: PLC0415  (which imports this)

    return "; ".join(settings_problems(error)) if isinstance(error, ValidationError) else str(error)
