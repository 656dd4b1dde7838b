"""``harbor-satellite edge status``: what there is to see of this site, from its disk."""

from __future__ import annotations

import os
import shutil
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from harbor_satellite.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.satellite.health import Health, Problem
    from harbor_satellite.satellite.status import SiteStatus
    from harbor_satellite.satellite.status_words import Clock

Output = Annotated[Literal["table", "json"], typer.Option("--output", help="How to say it.")]
_COLOURS: Final = {"well": typer.colors.GREEN, "attention": typer.colors.YELLOW, "failing": typer.colors.RED}
_WIDEST: Final = 120
_NARROWEST: Final = 40
_LABEL: Final = 17
_FAILURES_SHOWN: Final = 10


def status(output: Output = "table") -> None:
    """Show what this site follows and holds, when it replicates, and what is wrong; also while the agent is down.

    Ends with 1 if something is wrong, with 0 if all is well or somebody should merely look.
    """
    # Each command its own imports.
    from harbor_satellite.edge.status import StatusReader  # noqa: PLC0415
    from harbor_satellite.satellite.health import health_of, problems_of, status_json  # noqa: PLC0415
    from harbor_satellite.settings import SatelliteSettings  # noqa: PLC0415

    folder = SatelliteSettings().data_dir
    if folder.exists() and not os.access(folder, os.R_OK | os.X_OK):
        raise StorageError(f"{folder} is not for this user to read: run this as root, or as the satellite's user")
    found = StatusReader(SatelliteSettings).read(datetime.now(UTC))
    if output == "json":
        typer.echo(status_json(found), nl=False)
        health = health_of(problems_of(found))
    else:
        health = show(found)
    if health == "failing":
        raise typer.Exit(1)


def show(found: SiteStatus) -> Health:
    """Write a status for people, in the terminal's width; return the one word for it."""
    from harbor_satellite.satellite.health import health_of, problems_of  # noqa: PLC0415
    from harbor_satellite.satellite.status_words import HEADLINES, Clock, sections_of  # noqa: PLC0415

    width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size().columns))
    problems, clock = problems_of(found), Clock(found)
    health = health_of(problems)
    name = found.registration.satellite if found.registration else "This site"
    headline = typer.style(HEADLINES[health], fg=_COLOURS[health], bold=True)
    typer.echo(f"{_plain(name)}: {headline} ({clock.show(found.made_at)})")
    for line in _problem_lines(problems, clock, width):
        typer.echo(line)
    for section in sections_of(found):
        typer.echo(f"\n{typer.style(section.title, bold=True)}")
        for label, text in section.rows:
            typer.echo(_filled(f"  {label:{_LABEL}}", text, width))
    if found.failures:
        typer.echo(f"\n{typer.style('Not brought', bold=True)}")
    for failure in found.failures[:_FAILURES_SHOWN]:
        typer.echo(_filled("  ", f"{failure.reference}: {failure.reason}", width, hanging=4))
    if len(found.failures) > _FAILURES_SHOWN:
        typer.echo(f"  and {len(found.failures) - _FAILURES_SHOWN} more, in --output json")
    return health


def _problem_lines(problems: tuple[Problem, ...], clock: Clock, width: int) -> Iterator[str]:
    for problem in problems:
        mark = "✗" if problem.severity == "failing" else "!"
        since = f" (since {clock.both(problem.since)})" if problem.since else ""
        text = _filled(f"  {mark} ", f"{problem.text}{since}", width)
        yield typer.style(text, fg=_COLOURS[problem.severity])
        if problem.advice:
            yield f"    {_plain(problem.advice)}"


def _filled(head: str, text: str, width: int, hanging: int | None = None) -> str:
    indent = " " * (len(head) if hanging is None else hanging)
    return textwrap.fill(
        _plain(text),
        width,
        initial_indent=head,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,  # what is to be copied stays whole
    )


def _plain(text: str) -> str:
    from harbor_satellite.edge.log_lines import escape  # noqa: PLC0415

    return escape(text)
