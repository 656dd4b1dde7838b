"""``harbor-satellite fleet status|summary``: which sites are not on the state they should be on, and why."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import typer

from harbor_satellite.cli.fleet_session import open_api, path_of
from harbor_satellite.cli.fleet_tables import Output, byte_count, duration, show_one, show_rows

_COLUMNS: Final = {
    "name": "SATELLITE",
    "state": "STATE",
    "lag": "BEHIND",
    "where": "GROUPS",
    "seen": "LAST SEEN",
    "today": "TODAY",
    "reason": "WHY",
}
_FINE: Final = frozenset({"in_step", "revoked"})
"""States that ask nothing of anybody."""


def status(
    ctx: typer.Context,
    *,
    group: Annotated[str, typer.Option(help="Only satellites of this group.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="Only those with key=value; repeatable, all must be.")] = None,
    state: Annotated[
        str,
        typer.Option(
            help="Only those in this state: revoked, never_seen, stale, waiting, in_step, rolled_back, failing, behind."
        ),
    ] = "",
    name: Annotated[str, typer.Option(help="Only those whose name contains this.")] = "",
    sort: Annotated[str, typer.Option(help="name, lag, last_seen, failures or bytes; - turns it round.")] = "-lag",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 50,
    offset: Annotated[int, typer.Option(help="Leave out so many.", min=0)] = 0,
    show_all: Annotated[bool, typer.Option("--all", help="Every one of them.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="End with 1 if one of those that match is not in step.")
    ] = False,
    output: Output = "table",
) -> None:
    """Say of each site whether it is on the state that it should be on, since when it is not, and why."""
    query: dict[str, Any] = {"group": group, "label": label or [], "state": state, "name": name, "sort": sort}
    with open_api(ctx) as api:
        if show_all or check:
            page = api.all_rows(path_of("fleet"), {**query, "offset": offset})
        else:
            page = api.page(path_of("fleet"), {**query, "limit": limit, "offset": offset})
    shown = page.rows if show_all else page.rows[:limit]
    note = f"{len(shown)} of {page.total} satellites"
    if output == "json":
        typer.echo(json.dumps(shown, indent=2))
    else:
        show_rows([_row(row) for row in shown], _COLUMNS, output, note)
    if check and any(row.get("state") not in _FINE for row in page.rows):
        raise typer.Exit(1)


def summary(ctx: typer.Context, output: Output = "table") -> None:
    """Count the fleet by state, and how far each group is."""
    with open_api(ctx) as api:
        found = api.request("GET", path_of("fleet", "summary"))
    if output == "json":
        typer.echo(json.dumps(found, indent=2))
        return
    show_one(
        {
            "satellites": found.get("satellite_count"),
            "states": {state: count for state, count in found.get("states", {}).items() if count},
            "oldest lag": duration(found.get("oldest_lag_seconds")),
        },
        output,
    )
    columns = {"group": "GROUP", "generation": "GENERATION", "in_step_count": "IN STEP", "satellite_count": "OF"}
    show_rows(found.get("groups", []), columns, output, " ")


def _row(row: dict[str, Any]) -> dict[str, Any]:
    seen = row.get("last_seen") or "never"
    return row | {
        "lag": duration(row.get("lag_seconds")) if row.get("lag_seconds") else "",
        "where": [_progress(group) for group in row.get("groups", ())],
        "seen": str(seen)[:16].replace("T", " "),
        "today": byte_count(row.get("bytes_today")),
    }


def _progress(group: dict[str, Any]) -> str:
    """Write where a satellite is with a group: ``shop 7``, or ``shop 6→7``."""
    applied, wanted = group.get("applied_generation"), group.get("wanted_generation")
    where = str(wanted) if applied == wanted else f"{applied}→{wanted}"
    return f"{group.get('group')} {where}{' (pinned)' if group.get('is_held') else ''}"
