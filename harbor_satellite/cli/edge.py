"""``harbor-satellite edge …``: what runs at a site."""

from __future__ import annotations

import logging
from typing import Final

import typer

from harbor_satellite.cli.lazy import lazy_group

_COMMANDS: Final = {
    "register": "register:register",
    "run": "agent:run",
    "agent": "agent:agent",
    "sync": "replication:sync",
    "why": "replication:why",
    "rollback": "replication:rollback",
    "audit": "audit:audit",
    "receipt": "bundle:receipt",
    "export": "bundle:export",
    "import": "bundle:import_",
    "registry": "site:registry",
    "user": "site:user",
    "status": "status:status",
    "runtime": "runtime:app",
}

app = typer.Typer(
    cls=lazy_group(_COMMANDS, hidden=frozenset({"agent"})),
    help="What runs at a site.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


_FOR_EVER: Final = frozenset({"run", "agent"})
"""Commands whose log is read afterwards: a line per decision."""


@app.callback()
def edge(ctx: typer.Context) -> None:
    """What runs at a site."""
    if ctx.invoked_subcommand in _FOR_EVER and not ctx.find_root().params.get("log_level"):
        logging.getLogger().setLevel(logging.INFO)
