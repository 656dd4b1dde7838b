"""Showing answers of the API: tables for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Output = Annotated[Literal["table", "json"], typer.Option("--output", help="How to say it.")]

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_THOUSAND: Final = 1000
_CONTROL: Final = dict.fromkeys((*range(32), *range(127, 160)), "?")


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], output: Output, note: str = "") -> None:
    """Show a listing.

    Args:
        rows: as the API gave them; JSON is these, whole.
        columns: key → heading, in order; dots in a key go down.
        output: how.
        note: the line below a table.
    """
    if output == "json":
        typer.echo(json.dumps(list(rows), indent=2))
        return
    table = [[cell(pick(row, key)) for key in columns] for row in rows]
    if table:
        _draw(list(columns.values()), table)
    if note or not table:
        typer.echo(note or "none")


def show_one(row: Mapping[str, Any], output: Output, keys: Iterable[str] | None = None) -> None:
    """Show one thing: a line for each of its values; JSON is all of them."""
    if output == "json":
        typer.echo(json.dumps(row, indent=2))
        return
    chosen = list(keys or row)
    width = max((len(key) for key in chosen), default=0)
    for key in chosen:
        typer.echo(f"{key:{width}}  {cell(pick(row, key))}".rstrip())


def show_done(answer: Any, output: Output, said: str) -> None:
    """Show that something was done: a sentence for people, the answer for machines."""
    typer.echo(json.dumps(answer if answer is not None else {}, indent=2) if output == "json" else said)


def pick(row: Mapping[str, Any], key: str) -> Any:
    """Return a value of a row by its key; dots go down; None if it is not there."""
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def cell(value: Any) -> str:
    """Write a value in one line; what a site or a person sent cannot steer the terminal."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}={cell(part)}" for key, part in value.items()).translate(_CONTROL)
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    return str(value).translate(_CONTROL)


def duration(seconds: float | None) -> str:
    """Write a duration as people say it: ``45 s``, ``12 min``, ``3 h``, ``5 d``."""
    if seconds is None:
        return ""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def byte_count(count: float | None) -> str:
    """Write a count of bytes with a decimal unit."""
    if count is None:
        return ""
    for unit in _UNITS:
        if abs(count) < _THOUSAND or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _THOUSAND
    return ""


def _draw(headings: list[str], table: list[list[str]]) -> None:
    if sys.stdout.isatty() and _draw_rich(headings, table):
        return
    widths = [max(map(len, column)) for column in zip(headings, *table, strict=True)]
    for row in (headings, *table):
        typer.echo("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


def _draw_rich(headings: list[str], table: list[list[str]]) -> bool:
    """Draw it to the terminal's width; False where rich is not installed."""
    try:
        from rich.console import Console  # noqa: PLC0415  (slow, and only for a terminal)
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415
    except ImportError:
        return False
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        drawn.add_column(heading, overflow="fold")
    for row in table:
        drawn.add_row(*map(Text, row))  # as it is: no markup in names
    Console().print(drawn)
    return True
