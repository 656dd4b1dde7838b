"""``harbor-satellite edge audit``: is what this site holds still what it should be?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from harbor_satellite.cli.sizes import parse_size
from harbor_satellite.edge_site import local_registry, open_own_engine, site_settings
from harbor_satellite.errors import ConflictError
from harbor_satellite.satellite.audit import AuditOptions, audit_site
from harbor_satellite.satellite.healing import heal_site, leave_findings, lock_patiently, needs_healing
from harbor_satellite.satellite.store import SatelliteStore

if TYPE_CHECKING:
    from harbor_satellite.satellite.findings import AuditReport
    from harbor_satellite.settings import SatelliteSettings

_PATIENCE_SECONDS: Final = 60.0
"""How long a replication that runs now is waited for before anything is healed."""


def audit(
    budget: Annotated[
        str,
        typer.Option(
            help="Bytes of blobs to read, such as 500M, or all; the next audit goes on. Without: the setting."
        ),
    ] = "",
    rate: Annotated[str, typer.Option(help="Bytes to read in a second at most, such as 20M. Without: no limit.")] = "",
    no_heal: Annotated[bool, typer.Option("--no-heal", help="Only say what is damaged.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="The satellite's folder.")] = None,
    output: Annotated[Literal["text", "json"], typer.Option(help="How to say what was found.")] = "text",
) -> None:
    """Read this site's content again, and heal what is damaged from the source; exit 1 if something is left damaged."""
    settings = site_settings(data_dir)
    replication = settings.replication_options()
    options = AuditOptions(
        budget_bytes=None if budget == "all" else parse_size(budget) if budget else settings.audit_budget_bytes,
        bytes_per_second=parse_size(rate) if rate else settings.audit_bytes_per_second,
        platforms=replication.platforms,
    )
    store = SatelliteStore(settings.data_dir)
    with local_registry(settings) as registry:
        report = audit_site(registry, store, options)
    if no_heal or not needs_healing(store, report):
        report = leave_findings(store, report, "not asked to heal")
    else:
        report = _heal(settings, store, report)
    _show(report, output)
    if report.damaged:
        raise typer.Exit(1)


def _heal(settings: SatelliteSettings, store: SatelliteStore, report: AuditReport) -> AuditReport:
    registration = store.registration()
    try:
        with (
            lock_patiently(store, _PATIENCE_SECONDS),
            open_own_engine(settings, store, registration, settings.replication_options()) as engine,
        ):
            return heal_site(engine, report)
    except ConflictError as error:
        return leave_findings(store, report, f"not now: {error}")


def _show(report: AuditReport, output: str) -> None:
    if output == "json":
        typer.echo(json.dumps(report.json(), indent=2))
        return
    for finding in report.findings:
        verb = "healed" if finding.is_healed else "damaged"
        typer.echo(f"{verb:8}{finding}  {finding.note}")
        typer.echo(f"        hits {', '.join(map(str, finding.images)) or 'nothing that is wanted'}")
    typer.echo(report.summary())
