"""``harbor-satellite ground-control …``: what runs at the centre."""

from __future__ import annotations

from typing import Annotated

import typer

from harbor_satellite.cli import centre_check, centre_people
from harbor_satellite.settings import GroundControlSettings

app = typer.Typer(help="What runs at the centre.", no_args_is_help=True, rich_markup_mode=None)
app.command()(centre_people.create_admin)
app.command()(centre_check.check)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "",
    port: Annotated[int | None, typer.Option(help="TCP port.", min=0, max=65535)] = None,
    prefect_port: Annotated[
        int, typer.Option(help="Port of the Prefect server that is started if none is named.")
    ] = 4200,
) -> None:
    """Serve Ground Control's API, after migrating its database.

    Without PREFECT_API_URL it also runs a Prefect server and the central worker, and deploys the central flows.
    """
    from harbor_satellite.central_service import serve as serve_centre  # noqa: PLC0415  (half a second of imports)

    settings = GroundControlSettings()
    if host:
        settings = settings.model_copy(update={"host": host})
    if port is not None:
        settings = settings.model_copy(update={"port": port})
    serve_centre(settings, prefect_port=prefect_port)


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date; safe beside a running previous release."""
    from harbor_satellite.ground_control.database import migrate as migrate_database  # noqa: PLC0415

    settings = GroundControlSettings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    migrate_database(settings.database())
    typer.echo("the schema is up to date")


@app.command()
def deploy() -> None:
    """Apply prefect.yaml to the Prefect API of PREFECT_API_URL: the central flows, schedules and triggers."""
    from harbor_satellite.central_service import deploy as deploy_flows  # noqa: PLC0415

    deploy_flows()
    typer.echo("the central flows are deployed")
