"""``harbor-satellite demo``: the whole loop on one machine."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harbor_satellite.demo.stack import DemoStack
from harbor_satellite.demo.story import Story
from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.oci.reference import Reference


def demo(
    image: Annotated[
        list[str] | None, typer.Option(help="An image of your own to replicate as well, from any registry; repeatable.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running and print the addresses.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where to keep data and logs; else a temporary folder.")] = None,
) -> None:
    """Show the whole loop on this machine: everything real, everything local, nothing left behind."""
    console = Console()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that what was started is stopped
    extra = tuple(Reference.parse(item) for item in image or ())
    with (
        tempfile.TemporaryDirectory(prefix="harbor-satellite-demo-", ignore_cleanup_errors=True) as temporary,
        DemoStack(folder or Path(temporary)) as stack,
    ):
        try:
            Story(stack, console).tell(extra)
        except HarborSatelliteError as error:
            console.print(f"[red]✗[/red] {error}", highlight=False, markup=True)
            console.print(f"  {error.diagnostics()}", highlight=False)
            raise typer.Exit(1) from error
        if keep:
            _keep(stack, console)


def _keep(stack: DemoStack, console: Console) -> None:
    addresses = stack.addresses
    console.print(
        f"Prefect UI          {addresses.prefect}\n"
        f"Ground Control API  {addresses.ground_control}/docs  (admin / {stack.admin_password.get_secret_value()})\n"
        f"central registry    {addresses.central_registry}\n"
        f"local registry      {addresses.local_registry}\n"
        f"site's status page  {addresses.status_page}\n"
        f"data and logs       {stack.folder}\n"
        "Ctrl-C stops everything.",
        highlight=False,
    )
    stopping = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)  # so that the wait below gets them
    signal.sigwait(stopping)
