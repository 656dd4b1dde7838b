"""``harbor-satellite fleet config …``: how satellites shall work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from harbor_satellite.cli.fleet_inputs import read_json, read_pairs, read_value
from harbor_satellite.cli.fleet_session import open_api, path_of
from harbor_satellite.cli.fleet_tables import Output, show_done, show_one, show_rows
from harbor_satellite.errors import InvalidInputError, NotFoundError

app = typer.Typer(help="How satellites shall work.", no_args_is_help=True, rich_markup_mode=None)

_Config = Annotated[str, typer.Argument(help="Name of the config.")]
_COLUMNS: Final = {
    "ConfigName": "CONFIG",
    "satellite_count": "SATELLITES",
    "group_count": "GROUPS",
    "Config": "SAYS",
    "UpdatedAt": "UPDATED",
}


@app.command("list")
def list_configs(ctx: typer.Context, output: Output = "table") -> None:
    """List all configs."""
    with open_api(ctx) as api:
        show_rows(api.page(path_of("configs")).rows, _COLUMNS, output)


@app.command()
def show(ctx: typer.Context, config: _Config, output: Output = "table") -> None:
    """Show what a config says."""
    with open_api(ctx) as api:
        found = api.request("GET", path_of("configs", config))
    show_one(found if output == "json" else found["Config"], output)


@app.command("set")
def set_fields(
    ctx: typer.Context,
    config: _Config,
    field: Annotated[
        list[str] | None,
        typer.Argument(help="field=value, such as daily_bytes=5G or registry.port=8585; an empty value takes it away."),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="JSON merge patch of the config; - is a pipe.")] = None,
    output: Output = "table",
) -> None:
    """Change fields of a config, or make it; its satellites are told. Fields that are not named stay."""
    if bool(field) == bool(file):
        raise InvalidInputError("say what to set: field=value, or --file")
    patch = read_json(file) if file else _patch(field or [])
    with open_api(ctx) as api:
        try:
            api.request("GET", path_of("configs", config))
        except NotFoundError:
            body = {"config_name": config, "config": {key: value for key, value in patch.items() if value is not None}}
            answer = api.request("POST", path_of("configs"), body=body)
        else:
            answer = api.request("PATCH", path_of("configs", config), body=patch)
    show_one(answer if output == "json" else answer["Config"], output)


@app.command()
def delete(ctx: typer.Context, config: _Config, output: Output = "table") -> None:
    """Delete a config that nobody has."""
    with open_api(ctx) as api:
        answer = api.request("DELETE", path_of("configs", config))
    show_done(answer, output, f"deleted config {config}")


@app.command()
def assign(
    ctx: typer.Context,
    config: Annotated[str, typer.Argument(help="Name of the config; '' takes away what is there.")],
    satellite: Annotated[list[str] | None, typer.Option(help="A satellite to have it; repeatable.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group whose satellites have it; repeatable.")] = None,
) -> None:
    """Give a config to satellites and groups; a satellite's own stands above those of its groups."""
    if not satellite and not group:
        raise InvalidInputError("say who: --satellite or --group")
    with open_api(ctx) as api:
        for kind, names in (("satellite", satellite), ("group", group)):
            for name in names or ():
                body = {kind: name, "config_name": config}
                typer.echo(api.request("POST", path_of("configs", kind), body=body)["message"])


def _patch(fields: list[str]) -> dict[str, object]:
    patch: dict[str, object] = {}
    for key, text in read_pairs(fields).items():
        *above, last = key.split(".")
        place = patch
        for part in above:
            within = place.setdefault(part, {})
            if not isinstance(within, dict):
                raise InvalidInputError(f"{key}: {part} is set to a value as well")
            place = within
        place[last] = read_value(text) if text else None
    return patch
