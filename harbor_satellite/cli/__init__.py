"""The console script. Exit codes: 0 done, 1 failed, 2 wrong use, 3 paused."""

from __future__ import annotations

import gc
import logging
import sys
from typing import Annotated, Final

import typer
from pydantic import ValidationError

from harbor_satellite import __version__
from harbor_satellite.argv import hide_token
from harbor_satellite.cli.lazy import lazy_group
from harbor_satellite.cli.pausing import PAUSED
from harbor_satellite.edge.log_lines import set_up_logging
from harbor_satellite.errors import HarborSatelliteError, InvalidInputError, PausedError

_COMMANDS: Final = {
    "demo": "demo:demo",
    "edge": "edge:app",
    "fleet": "fleet:app",
    "ground-control": "ground_control:app",
}

app = typer.Typer(
    name="harbor-satellite",
    cls=lazy_group(_COMMANDS),
    help="Keep a local OCI registry at every edge site in step with what the centre decided.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_FAILED = 1
_WRONG_USE = 2
_PREFIXES: Final = {
    "SatelliteSettings": "HARBOR_SATELLITE_",
    "GroundControlSettings": "HARBOR_SATELLITE_GROUND_CONTROL_",
}


def _show_version(is_asked: bool) -> None:  # noqa: FBT001  (typer calls it so)
    if is_asked:
        typer.echo(f"harbor-satellite {__version__}")
        raise typer.Exit


@app.callback()
def options(
    log_level: Annotated[
        str,
        typer.Option(
            help="DEBUG, INFO, WARNING or ERROR; to standard error. Default: INFO for `edge run`, else WARNING.",
            envvar="HARBOR_SATELLITE_LOG_LEVEL",
        ),
    ] = "",
    version: Annotated[  # noqa: ARG001  (its callback does the work)
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Set what is common to all commands."""
    levels = logging.getLevelNamesMapping()
    name = log_level.upper() or "WARNING"
    if name not in levels:
        raise typer.BadParameter(f"not a log level: {log_level}", param_hint="--log-level")
    set_up_logging(levels[name])


def main() -> None:
    """Run the command line; an error of the library becomes two lines and an exit code."""
    hide_token()  # where the program was not started by its console script, which does so before all imports
    # httpx does without its own command line where it cannot be imported: with it come rich, click and pygments,
    # a fifth of what a site's sync spends on starting.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # how Python marks what must not be imported
    # What is loaded stays, and requests leave few cycles: looking for them every 700 objects is up to a tenth of a run.
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    try:
        app()
    except HarborSatelliteError as error:
        word = "paused" if isinstance(error, PausedError) else "error"
        typer.echo(f"{word}: {error}\n       {error.diagnostics()}", err=True)
        sys.exit(_exit_code(error))
    except ValidationError as error:
        for line in settings_problems(error):
            typer.echo(f"error: {line}", err=True)
        sys.exit(_WRONG_USE)
    except KeyboardInterrupt:
        sys.exit(130)


def settings_problems(error: ValidationError) -> list[str]:
    """Say which settings are wrong, each by its variable, and by which rule: the value may be a secret."""
    return [
        f"{_variable(error.title, '.'.join(map(str, problem['loc'])))}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors(include_input=False, include_url=False)
    ]


def _exit_code(error: HarborSatelliteError) -> int:
    if isinstance(error, PausedError):
        return PAUSED
    return _WRONG_USE if isinstance(error, InvalidInputError) else _FAILED


def _variable(settings: str, field: str) -> str:
    """Name a setting as it is written; one with a name of its own is in capitals already."""
    prefix = _PREFIXES.get(settings)
    return f"{prefix}{field.upper()}" if prefix and field.islower() else f"setting {field}"
