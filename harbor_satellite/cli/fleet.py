"""``harbor-satellite fleet …``: the whole fleet, through Ground Control's API, from wherever an operator is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from harbor_satellite.cli.fleet_session import Connection
from harbor_satellite.cli.lazy import lazy_group

_COMMANDS: Final = {
    "login": "fleet_login:login",
    "logout": "fleet_login:logout",
    "status": "fleet_status:status",
    "summary": "fleet_status:summary",
    "group": "fleet_groups:app",
    "satellite": "fleet_satellites:app",
    "config": "fleet_configs:app",
    "rollout": "fleet_rollouts:app",
    "token": "fleet_people:tokens",
    "user": "fleet_people:users",
    "audit": "fleet_people:audit",
}

app = typer.Typer(
    cls=lazy_group(_COMMANDS),
    help="The whole fleet, through Ground Control's API.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def fleet(
    ctx: typer.Context,
    ground_control: Annotated[
        str,
        typer.Option(
            help="URL of Ground Control. Without: where `fleet login` went last.",
            envvar="HARBOR_SATELLITE_GROUND_CONTROL_URL",
        ),
    ] = "",
    token_file: Annotated[
        Path | None, typer.Option(help="File with an API token. Without: HARBOR_SATELLITE_API_TOKEN, or the login.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="CA bundle of Ground Control.", envvar="HARBOR_SATELLITE_CA", exists=True)
    ] = None,
) -> None:
    """The whole fleet, through Ground Control's API."""
    ctx.obj = Connection(ground_control, token_file, ca)
