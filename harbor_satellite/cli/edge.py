"""``harbor-satellite edge …``: what runs at a site."""

from __future__ import annotations

from typing import Final

import typer

from harbor_satellite.cli.lazy import lazy_group

_COMMANDS: Final = {
    "register": "site:register",
    "run": "site:run",
    "sync": "replication:sync",
    "why": "replication:why",
    "rollback": "replication:rollback",
    "audit": "audit:audit",
    "receipt": "bundle:receipt",
    "export": "bundle:export",
    "import": "bundle:import_",
    "registry": "site:registry",
    "user": "site:user",
}

app = typer.Typer(cls=lazy_group(_COMMANDS), help="What runs at a site.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def edge() -> None:
    """What runs at a site."""
