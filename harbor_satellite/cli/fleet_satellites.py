"""``harbor-satellite fleet satellite …``: edge sites, one by one."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from harbor_satellite.cli.fleet_inputs import read_pairs
from harbor_satellite.cli.fleet_session import open_api, path_of
from harbor_satellite.cli.fleet_tables import Output, show_done, show_one, show_rows
from harbor_satellite.errors import InvalidInputError, NotFoundError

app = typer.Typer(help="Edge sites, one by one.", no_args_is_help=True, rich_markup_mode=None)

_Satellite = Annotated[str, typer.Argument(help="Name of the satellite.")]
_Group = Annotated[str, typer.Argument(help="Name of the group.")]
_COLUMNS: Final = {
    "Name": "SATELLITE",
    "groups": "GROUPS",
    "config_name": "CONFIG",
    "schedule": "SCHEDULE",
    "lifecycle": "LIFECYCLE",
    "LastSeen": "LAST SEEN",
}


@app.command("list")
def list_satellites(
    ctx: typer.Context,
    group: Annotated[str, typer.Option(help="Only those of this group.")] = "",
    name: Annotated[str, typer.Option(help="Only those whose name contains this.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=10_000)] = 50,
    offset: Annotated[int, typer.Option(help="Leave out so many.", min=0)] = 0,
    show_all: Annotated[bool, typer.Option("--all", help="Every one of them.")] = False,
    output: Output = "table",
) -> None:
    """List satellites; `fleet status` says how they are."""
    query = {"group": group, "name": name, "offset": offset}
    with open_api(ctx) as api:
        path = path_of("satellites")
        page = api.all_rows(path, query) if show_all else api.page(path, query | {"limit": limit})
    show_rows(page.rows, _COLUMNS, output, f"{len(page.rows)} of {page.total} satellites")


@app.command()
def show(ctx: typer.Context, satellite: _Satellite, output: Output = "table") -> None:
    """Show a satellite, and what it reported last."""
    with open_api(ctx) as api:
        found: dict[str, Any] = api.request("GET", path_of("satellites", satellite))
        try:
            found["status"] = api.request("GET", path_of("satellites", satellite, "status"))
        except NotFoundError:
            found["status"] = None  # it has not reported yet
    if output == "json":
        show_one(found, output)
        return
    status = found.pop("status") or {}
    show_one(found, output)
    show_one({f"reported {key}": status[key] for key in status if key.islower() and key not in found}, output)


@app.command()
def register(
    ctx: typer.Context,
    satellite: _Satellite,
    group: Annotated[list[str] | None, typer.Option(help="A group to follow; repeatable.")] = None,
    config: Annotated[str, typer.Option(help="Its config.")] = "",
    schedule: Annotated[str, typer.Option(help="When it replicates: 5-field cron.")] = "",
    output: Output = "table",
) -> None:
    """Make a satellite and its one-time token, which is shown this once."""
    body = {"name": satellite, "groups": group or [], "config_name": config, "schedule": schedule or None}
    with open_api(ctx) as api:
        answer = api.request("POST", path_of("satellites"), body=body)
    show_done(answer, output, str(answer["token"]))


@app.command()
def token(
    ctx: typer.Context,
    satellite: _Satellite,
    end: Annotated[bool, typer.Option("--end", help="End the tokens that are there, and make none.")] = False,
    output: Output = "table",
) -> None:
    """Make a new one-time token, shown this once; those before it end."""
    with open_api(ctx) as api:
        answer = api.request("DELETE" if end else "POST", path_of("satellites", satellite, "token"))
    show_done(answer, output, f"no token of {satellite} holds" if end else str(answer["token"]))


@app.command()
def revoke(ctx: typer.Context, satellite: _Satellite, output: Output = "table") -> None:
    """Refuse a satellite from now on, everywhere; a new token lets it in again."""
    with open_api(ctx) as api:
        answer = api.request("POST", path_of("satellites", satellite, "revoke"))
    show_done(answer, output, f"revoked {satellite}")


@app.command()
def delete(ctx: typer.Context, satellite: _Satellite, output: Output = "table") -> None:
    """Delete a satellite and its credentials; what it holds stays at the site."""
    with open_api(ctx) as api:
        answer = api.request("DELETE", path_of("satellites", satellite))
    show_done(answer, output, f"deleted satellite {satellite}")


@app.command()
def label(
    ctx: typer.Context,
    satellite: _Satellite,
    pair: Annotated[list[str] | None, typer.Argument(help="key=value to set, key- to take away. None: show.")] = None,
    output: Output = "table",
) -> None:
    """Show or change the labels of a satellite; those that are not named stay."""
    path = path_of("satellites", satellite, "labels")
    gone = {text[:-1] for text in pair or () if text.endswith("-") and "=" not in text}
    new = read_pairs(text for text in pair or () if text[:-1] not in gone or "=" in text)
    with open_api(ctx) as api:
        found = api.request("GET", path)
        if pair:
            found = {key: value for key, value in (found | new).items() if key not in gone}
            found = api.request("PUT", path, body=found)
    show_one(found, output)


@app.command()
def pin(
    ctx: typer.Context,
    satellite: _Satellite,
    group: _Group,
    generation: Annotated[int, typer.Argument(help="Generation of the group; 0: nothing of it.", min=0)],
    output: Output = "table",
) -> None:
    """Hold a satellite at a generation of a group; no rollout moves it until it is unpinned."""
    with open_api(ctx) as api:
        answer = api.request("PUT", path_of("satellites", satellite, "pins", group), body={"generation": generation})
    show_done(answer, output, f"{satellite} is held at generation {generation} of {group}")


@app.command()
def unpin(ctx: typer.Context, satellite: _Satellite, group: _Group, output: Output = "table") -> None:
    """Let a satellite follow a group again."""
    with open_api(ctx) as api:
        answer = api.request("DELETE", path_of("satellites", satellite, "pins", group))
    show_done(answer, output, f"{satellite} follows {group} again")


@app.command()
def schedule(
    ctx: typer.Context,
    satellite: _Satellite,
    cron: Annotated[str, typer.Argument(help="5-field cron in the site's time zone, quoted: '0 3 * * *'.")],
    output: Output = "table",
) -> None:
    """Set when a satellite replicates; above what configs say."""
    if not cron.strip():
        raise InvalidInputError("no schedule: give 5 fields of cron")
    with open_api(ctx) as api:
        answer = api.request("PATCH", path_of("satellites", satellite), body={"schedule": cron})
    show_done(answer, output, f"{satellite} replicates at {answer['schedule']}")
