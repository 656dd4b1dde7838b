"""Commands whose modules are imported when they are used: a site's sync has no need of the demo and the centre."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Mapping


def lazy_group(commands: Mapping[str, str], hidden: frozenset[str] = frozenset()) -> type[TyperGroup]:
    """Make a group of commands that are imported one by one.

    Args:
        commands: command → ``module:attribute`` under ``harbor_satellite.cli``; the attribute is a function, or an app.
        hidden: those that no help shows.
    """

    class LazyGroup(TyperGroup):
        # Any: click's types or those of typer's own copy of click, as its version has it.
        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
            return list(commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            # All of them for a name that is none: then the answer suggests the likeliest.
            for name in (cmd_name,) if cmd_name in commands else commands:
                if name not in self.commands:
                    self.add_command(_load(commands[name], is_hidden=name in hidden), name)
            return super().get_command(ctx, cmd_name)

    return LazyGroup


def _load(place: str, *, is_hidden: bool) -> Any:
    module, _, attribute = place.partition(":")
    found = getattr(importlib.import_module(f"harbor_satellite.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_group(found)
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(hidden=is_hidden)(found)
    return typer.main.get_command(app)
