"""``harbor-satellite fleet rollout …``: moving the satellites of a group to a generation, in waves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from harbor_satellite.cli.fleet_inputs import read_json, read_pairs
from harbor_satellite.cli.fleet_session import open_api, path_of
from harbor_satellite.cli.fleet_tables import Output, show_done, show_one, show_rows
from harbor_satellite.errors import InvalidInputError

app = typer.Typer(help="Moving satellites to a generation, in waves.", no_args_is_help=True, rich_markup_mode=None)

_Id = Annotated[int, typer.Argument(help="Number of the rollout.", min=1)]
_Group = Annotated[str, typer.Argument(help="Name of the group; with --file it may be there.")]
_Generation = Annotated[int | None, typer.Option(help="Where to. Without: the newest.", min=1)]
_Waves = Annotated[
    list[str] | None,
    typer.Option(
        "--wave",
        help="NAME:5%, NAME:key=value[,key=value] or NAME:satellite[,satellite]; repeatable, in order. "
        "Without: all at once.",
    ),
]
_Soak = Annotated[int, typer.Option(help="Seconds to watch each wave before the next.", min=0)]
_Failures = Annotated[int | None, typer.Option(help="Satellites that may fail before it stops itself.", min=0)]
_Timeout = Annotated[int | None, typer.Option(help="Seconds after which a satellite that says nothing failed.", min=1)]
_Back = Annotated[bool, typer.Option("--back", help="Going back to an older generation is meant.")]
_Reason = Annotated[str, typer.Option(help="Why; shown with the rollout.")]
_File = Annotated[Path | None, typer.Option(help="JSON of the plan, as the API takes it; - is a pipe.")]
_COLUMNS: Final = {
    "id": "ROLLOUT",
    "group": "GROUP",
    "generation": "GENERATION",
    "state": "STATE",
    "current_wave": "WAVE",
    "reason": "WHY",
    "created_by": "BY",
    "updated_at": "UPDATED",
}


@app.command()
def quote(
    ctx: typer.Context,
    group: _Group = "",
    generation: _Generation = None,
    wave: _Waves = None,
    soak: _Soak = 0,
    max_failures: _Failures = None,
    timeout: _Timeout = None,
    back: _Back = False,
    file: _File = None,
    output: Output = "table",
) -> None:
    """Say what a rollout would cost: who would move, how many bytes, how long; nothing is made."""
    body = _body(group, generation, wave, soak, file) | _limits(max_failures, timeout, is_rollback=back)
    with open_api(ctx) as api:
        found = api.request("POST", path_of("rollouts", "quote"), body=body)
    if output == "json":
        show_one(found, output)
        return
    show_one(found, output, [key for key in found if key != "satellites"])
    keys = ("satellite", "from_generation", "bytes_at_most", "seconds", "fits_on_disk", "breaks_caps", "fits_in_window")
    shown = found.get("satellites") or []
    show_rows(shown, {key: key.upper() for key in keys}, output, f"{len(shown)} of {found.get('total')} satellites")


@app.command()
def plan(
    ctx: typer.Context,
    group: _Group = "",
    generation: _Generation = None,
    wave: _Waves = None,
    soak: _Soak = 0,
    max_failures: _Failures = None,
    timeout: _Timeout = None,
    back: _Back = False,
    file: _File = None,
    start_it: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
    output: Output = "table",
) -> None:
    """Make a rollout; nothing moves until it is started."""
    body = _body(group, generation, wave, soak, file) | _limits(max_failures, timeout, is_rollback=back)
    with open_api(ctx) as api:
        made = api.request("POST", path_of("rollouts"), body=body)
        if start_it:
            made = api.request("POST", path_of("rollouts", made["id"], "start")) or made
    _show(made, output)


@app.command("list")
def list_rollouts(
    ctx: typer.Context,
    group: Annotated[str, typer.Option(help="Only those of this group.")] = "",
    state: Annotated[
        str,
        typer.Option(help="Only those: planned, running, soaking, paused, aborted, completed, rolled_back."),
    ] = "",
    output: Output = "table",
) -> None:
    """List rollouts."""
    with open_api(ctx) as api:
        show_rows(api.page(path_of("rollouts"), {"group": group, "state": state}).rows, _COLUMNS, output)


@app.command()
def show(ctx: typer.Context, rollout: _Id, output: Output = "table") -> None:
    """Show a rollout: where it stands, and why."""
    with open_api(ctx) as api:
        _show(api.request("GET", path_of("rollouts", rollout)), output)


@app.command()
def satellites(
    ctx: typer.Context,
    rollout: _Id,
    state: Annotated[str, typer.Option(help="Only those: waiting, released, succeeded, failed, skipped.")] = "",
    wave: Annotated[int | None, typer.Option(help="Only those of this wave, from 0.", min=0)] = None,
    output: Output = "table",
) -> None:
    """List the satellites of a rollout, and how far each is."""
    path = path_of("rollouts", rollout, "satellites")
    with open_api(ctx) as api:
        page = api.all_rows(path, {"state": state, "wave": wave})
    keys = ("satellite", "wave", "state", "from_generation", "released_at", "settled_at", "reason")
    show_rows(page.rows, {key: key.upper() for key in keys}, output, f"{page.total} satellites")


@app.command()
def start(ctx: typer.Context, rollout: _Id, output: Output = "table") -> None:
    """Start a rollout: its first wave moves."""
    _act(ctx, rollout, "start", output)


@app.command()
def pause(ctx: typer.Context, rollout: _Id, reason: _Reason = "", output: Output = "table") -> None:
    """Release nobody else until it is resumed; who was released goes on."""
    _act(ctx, rollout, "pause", output, reason)


@app.command()
def resume(ctx: typer.Context, rollout: _Id, output: Output = "table") -> None:
    """Go on with a rollout that is paused."""
    _act(ctx, rollout, "resume", output)


@app.command()
def abort(ctx: typer.Context, rollout: _Id, reason: _Reason = "", output: Output = "table") -> None:
    """End a rollout where it stands."""
    _act(ctx, rollout, "abort", output, reason)


@app.command()
def rollback(ctx: typer.Context, rollout: _Id, reason: _Reason = "", output: Output = "table") -> None:
    """Bring who was moved back to where it was."""
    _act(ctx, rollout, "rollback", output, reason)


def _show(rollout: dict[str, Any], output: Output) -> None:
    if output == "json":
        show_one(rollout, output)
        return
    show_one(rollout, output, [key for key in rollout if key != "waves"])
    keys = ("name", "total", "waiting", "released", "succeeded", "failed", "skipped", "soak_seconds")
    show_rows(rollout.get("waves") or [], {key: key.upper() for key in keys}, output)


def _act(ctx: typer.Context, rollout: int, action: str, output: Output, reason: str | None = None) -> None:
    body = None if reason is None else {"reason": reason}
    with open_api(ctx) as api:
        answer = api.request("POST", path_of("rollouts", rollout, action), body=body)
    state = answer.get("state") if isinstance(answer, dict) else None
    show_done(answer, output, f"rollout {rollout} is {state}" if state else f"rollout {rollout}: {action}")


def _body(group: str, generation: int | None, waves: list[str] | None, soak: int, file: Path | None) -> dict[str, Any]:
    body: dict[str, Any] = read_json(file) if file else {"waves": [{"name": "all", "percent": 100}]}
    if waves:
        body["waves"] = [read_wave(text) | {"soak_seconds": soak} for text in waves]
    if group:
        body["group"] = group
    if generation is not None:
        body["generation"] = generation
    if "group" not in body:
        raise InvalidInputError("say which group moves")
    return body


def _limits(max_failures: int | None, timeout: int | None, *, is_rollback: bool) -> dict[str, Any]:
    """Return what of the plan's limits was said; the rest is the API's, or the file's."""
    said = {"max_failures": max_failures, "receipt_timeout_seconds": timeout, "is_rollback": is_rollback or None}
    return {key: value for key, value in said.items() if value is not None}


def read_wave(text: str) -> dict[str, Any]:
    """Read a wave: NAME:5%, NAME:key=value[,…] or NAME:satellite[,…].

    Raises:
        InvalidInputError: it is none of these.
    """
    name, _, who = text.partition(":")
    if not name or not who:
        raise InvalidInputError(f"not a wave such as canary:5%, north:region=north or first:shop-1: {text[:200]!r}")
    if who.endswith("%"):
        try:
            return {"name": name, "percent": float(who[:-1])}
        except ValueError as error:
            raise InvalidInputError(f"not a percentage: {who!r} in wave {name}") from error
    parts = who.split(",")
    return {"name": name, "label": read_pairs(parts)} if "=" in who else {"name": name, "satellites": parts}
