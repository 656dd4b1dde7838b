"""``harbor-satellite fleet group …``: named sets of artifacts, and by which way artifacts get into them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from harbor_satellite.cli.fleet_inputs import read_json
from harbor_satellite.cli.fleet_session import open_api, path_of
from harbor_satellite.cli.fleet_tables import Output, show_done, show_one, show_rows
from harbor_satellite.errors import InvalidInputError

app = typer.Typer(help="Named sets of artifacts.", no_args_is_help=True, rich_markup_mode=None)

_Group = Annotated[str, typer.Argument(help="Name of the group.")]
_COLUMNS: Final = {
    "GroupName": "GROUP",
    "publish": "PUBLISH",
    "is_staged": "STAGED",
    "config_name": "CONFIG",
    "unresolved_count": "UNRESOLVED",
    "UpdatedAt": "UPDATED",
}


@app.command("list")
def list_groups(ctx: typer.Context, output: Output = "table") -> None:
    """List all groups."""
    with open_api(ctx) as api:
        show_rows(api.page(path_of("groups")).rows, _COLUMNS, output)


@app.command()
def show(ctx: typer.Context, group: _Group, output: Output = "table") -> None:
    """Show a group with its artifacts and what was last published of it."""
    with open_api(ctx) as api:
        found: dict[str, Any] = api.request("GET", path_of("groups", group))
    artifacts = found.get("artifacts", [])
    if output == "json":
        show_one(found, output)
        return
    show_one(found, output, [key for key in found if key != "artifacts"])
    columns = {"repository": "REPOSITORY", "tag": "TAGS", "digest": "DIGEST", "priority": "PRIORITY"}
    show_rows(artifacts, columns, output, f"{len(artifacts)} artifacts")


@app.command()
def members(ctx: typer.Context, group: _Group, output: Output = "table") -> None:
    """List the satellites that follow a group; `fleet status --group` says how they are."""
    with open_api(ctx) as api:
        rows = api.page(path_of("groups", group, "satellites")).rows
    show_rows(rows, {"Name": "SATELLITE", "schedule": "SCHEDULE", "LastSeen": "LAST SEEN"}, output)


@app.command()
def create(ctx: typer.Context, group: _Group, output: Output = "table") -> None:
    """Make a group that names nothing yet, to be filled by selectors or a rule of Harbor."""
    with open_api(ctx) as api:
        answer = api.request("POST", path_of("groups"), body={"group": group})
    show_done(answer, output, f"made group {group}")


@app.command()
def sync(
    ctx: typer.Context,
    group: _Group,
    image: Annotated[
        list[str] | None, typer.Option(help="REPOSITORY:TAG or REPOSITORY@DIGEST; repeatable. These, and no others.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="JSON of the whole group, as the API takes it; - is a pipe.")
    ] = None,
    registry: Annotated[str, typer.Option(help="Where the artifacts are. Without: the centre's source.")] = "",
    output: Output = "table",
) -> None:
    """Create a group, or replace all of what it names."""
    if bool(image) == bool(file):
        raise InvalidInputError("say what the group names: --image, once for each artifact, or --file")
    body = read_json(file) if file else {"artifacts": [_artifact(item) for item in image or ()]}
    body = body | {"group": group} | ({"registry": registry} if registry else {})
    with open_api(ctx) as api:
        answer = api.request("POST", path_of("groups", "sync"), body=body)
    show_done(answer, output, f"group {group} names {len(body.get('artifacts') or ())} artifacts; published soon")


@app.command()
def delete(ctx: typer.Context, group: _Group, output: Output = "table") -> None:
    """Delete a group; its satellites lose its artifacts with their next state."""
    with open_api(ctx) as api:
        answer = api.request("DELETE", path_of("groups", group))
    show_done(answer, output, f"deleted group {group}")


@app.command()
def add(ctx: typer.Context, group: _Group, satellite: Annotated[list[str], typer.Argument(help="Satellites.")]) -> None:
    """Let satellites follow a group."""
    with open_api(ctx) as api:
        for name in satellite:
            answer = api.request("POST", path_of("groups", "satellite"), body={"satellite": name, "group": group})
            typer.echo(answer["message"])


@app.command()
def remove(
    ctx: typer.Context, group: _Group, satellite: Annotated[list[str], typer.Argument(help="Satellites.")]
) -> None:
    """Let satellites follow a group no more; its artifacts leave them."""
    with open_api(ctx) as api:
        for name in satellite:
            answer = api.request("DELETE", path_of("groups", "satellite"), body={"satellite": name, "group": group})
            typer.echo(answer["message"])


@app.command()
def select(
    ctx: typer.Context,
    group: _Group,
    file: Annotated[
        Path | None, typer.Option(help="JSON list of selectors to replace those of the group; - is a pipe.")
    ] = None,
    output: Output = "table",
) -> None:
    """Show by which wishes, such as the newest three of a project, a group chooses artifacts; or replace them."""
    path = path_of("groups", group, "selectors")
    with open_api(ctx) as api:
        body = {"selectors": read_json(file, list)} if file else None
        rows = api.request("PUT" if file else "GET", path, body=body)["selectors"]
    columns = {
        key: key.upper() for key in ("project", "repository", "tag", "labels", "platforms", "newest", "priority")
    }
    show_rows(rows, columns, output)


@app.command()
def rule(
    ctx: typer.Context,
    group: _Group,
    create: Annotated[
        bool, typer.Option("--create", help="Let a replication rule of Harbor fill the group; shows its secret once.")
    ] = False,
    in_harbor: Annotated[
        str, typer.Option(help="Make endpoint and rule at Harbor, for this pattern over PROJECT/REPOSITORY.")
    ] = "",
    tag: Annotated[str, typer.Option(help="With --in-harbor: pattern over tags. Without: all.")] = "",
    delete_it: Annotated[bool, typer.Option("--delete", help="End that.")] = False,
    output: Output = "table",
) -> None:
    """Show which replication rule of Harbor fills a group; or let one do so, or end that."""
    if delete_it and (create or in_harbor):
        raise InvalidInputError("--create or --delete, not both")
    is_made = create or bool(in_harbor)
    wanted = {"in_harbor": {"name_filter": in_harbor, "tag_filter": tag} if in_harbor else None} if is_made else None
    path = path_of("groups", group, "rule")
    with open_api(ctx) as api:
        answer = api.request("DELETE" if delete_it else "POST" if is_made else "GET", path, body=wanted)
    if delete_it:
        show_done(answer, output, f"no rule fills group {group} any more")
    else:
        show_one(answer, output)


@app.command()
def stage(
    ctx: typer.Context,
    group: _Group,
    off: Annotated[bool, typer.Option("--off", help="New generations reach all satellites at once again.")] = False,
    output: Output = "table",
) -> None:
    """Let new generations of a group reach satellites by rollouts only."""
    with open_api(ctx) as api:
        answer = api.request("PATCH", path_of("groups", group), body={"is_staged": not off})
    how = "at once" if off else "by rollouts only"
    show_done(answer, output, f"generations of group {group} reach satellites {how}")


def _artifact(text: str) -> dict[str, object]:
    """Read REPOSITORY:TAG or REPOSITORY@DIGEST as an artifact of a group."""
    repository, at, digest = text.partition("@")
    if at:
        return {"repository": repository, "tag": [], "digest": digest}
    repository, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        raise InvalidInputError(f"not REPOSITORY:TAG or REPOSITORY@DIGEST: {text[:300]!r}")
    return {"repository": repository, "tag": [tag]}
