"""Showing what became of images: lines for people, JSON for machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import typer

from harbor_satellite.satellite.outcome import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harbor_satellite.satellite.outcome import ImageOutcome

Output = Literal["text", "json"]


def show_images(images: tuple[ImageOutcome, ...], output: Output, document: Mapping[str, object], summary: str) -> None:
    """Show images, and below them what else there is to say.

    Args:
        images: what became of each.
        output: how to say it.
        document: what JSON has beside one list for each action.
        summary: the last line for people.
    """
    if output == "json":
        rows = {action: [image.row() for image in images if image.action == action] for action in ACTIONS}
        typer.echo(json.dumps({**rows, **document}, indent=2))
        return
    for image in sorted(images, key=lambda image: (image.action, image.reference)):
        typer.echo(f"{image.action:12}{image.reference}  {image.reason}")
    typer.echo(summary)
