"""Saying that bytes may not move now, and when they may again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from harbor_satellite.cli.images import Output

PAUSED: Final = 3
"""Exit code: nothing failed; run it again later."""


def show_pause(reason: str, until: datetime | None, timezone: str, output: Output) -> None:
    """Say why a run pauses.

    Args:
        reason: which window or cap.
        until: when bytes may move again; None: nobody knows.
        timezone: the site's, for people.
        output: how to say it.
    """
    from harbor_satellite.state.windows import load_zone  # noqa: PLC0415  (only here)

    if output == "json":
        typer.echo(json.dumps({"paused": reason, "until": until.isoformat() if until else None}, indent=2))
        return
    when = f" after {until.astimezone(load_zone(timezone)):%a %Y-%m-%d %H:%M %Z}" if until else " later"
    typer.echo(f"paused: {reason}; run it again{when}")
