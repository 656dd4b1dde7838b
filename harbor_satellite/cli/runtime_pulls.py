"""What `edge runtime verify` found, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from harbor_satellite.satellite.runtime_verify import PullResult


def show_pulls(results: list[PullResult], output: str) -> None:
    """Show one line for each pull, or JSON; what failed ends the program with 1, what could not be tried with 2."""
    if output == "json":
        typer.echo(json.dumps({"pulls": [asdict(result) | {"is_ok": result.is_ok} for result in results]}, indent=2))
    for result in results if output == "table" else ():
        if result.is_ok:
            typer.echo(f"{result.runtime}: {result.image}: ok in {result.seconds:.1f} s, through {result.through}")
        else:
            word = "failed" if result.is_tried else "not tried"
            typer.echo(f"{result.runtime}: {result.image}: {word}: {result.problem}")
        if result.note:
            typer.echo(f"  {result.note}")
    if any(result.is_tried and not result.is_ok for result in results):
        raise typer.Exit(1)
    if any(not result.is_tried for result in results):
        raise typer.Exit(2)
