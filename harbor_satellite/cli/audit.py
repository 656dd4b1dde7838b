"""``harbor-satellite edge audit``: is what this site holds still what it should be?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from harbor_satellite.edge.site import (
    credentials_of,
    given_source,
    local_registry,
    open_engine,
    open_own_engine,
    recorded_store,
    site_settings,
)
from harbor_satellite.errors import ConflictError
from harbor_satellite.inputs import parse_size
from harbor_satellite.satellite.audit import AuditOptions, audit_site
from harbor_satellite.satellite.healing import heal_site, leave_findings, lock_patiently, needs_healing

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from harbor_satellite.satellite.engine import Engine
    from harbor_satellite.satellite.findings import AuditReport
    from harbor_satellite.satellite.store import SatelliteStore
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
    target: Annotated[
        str,
        typer.Option(help="URL of the local registry: of what `edge sync --state` brought there. Without: the site's."),
    ] = "",
    source: Annotated[
        str, typer.Option(help="URL of the registry to heal from. Without: the one that the site was registered with.")
    ] = "",
    data_dir: Annotated[Path | None, typer.Option(help="The satellite's folder.")] = None,
    output: Annotated[Literal["text", "json"], typer.Option(help="How to say what was found.")] = "text",
) -> None:
    """Read this site's content again, and heal what is damaged from the source; exit 1 if something is left damaged."""
    settings = site_settings(data_dir, target)
    given_source(source)
    replication = settings.replication_options()
    options = AuditOptions(
        budget_bytes=None if budget == "all" else parse_size(budget) if budget else settings.audit_budget_bytes,
        bytes_per_second=parse_size(rate) if rate else settings.audit_bytes_per_second,
        platforms=replication.platforms,
    )
    store = recorded_store(settings, is_target_given=bool(target))
    with local_registry(settings) as registry:
        report = audit_site(registry, store, options)
    if no_heal or not needs_healing(store, report):
        report = leave_findings(store, report, "not asked to heal")
    elif not source and not (store.folder / "registration.json").exists():
        report = leave_findings(store, report, "not registered: --source names a registry to heal from")
    else:
        report = _heal(settings, store, report, source)
    _show(report, output)
    if report.damaged:
        raise typer.Exit(1)


def _heal(settings: SatelliteSettings, store: SatelliteStore, report: AuditReport, source: str) -> AuditReport:
    try:
        with lock_patiently(store, _PATIENCE_SECONDS), _engine(settings, store, source) as engine:
            return heal_site(engine, report)
    except ConflictError as error:
        return leave_findings(store, report, f"not now: {error}")


def _engine(settings: SatelliteSettings, store: SatelliteStore, source: str) -> AbstractContextManager[Engine]:
    options = settings.replication_options()
    if not source:
        return open_own_engine(settings, store, store.registration(), options)
    credentials = credentials_of(settings.source_username, settings.source_password)
    return open_engine(settings, store, options, home_url=source, credentials=credentials, is_only=True)


def _show(report: AuditReport, output: str) -> None:
    if output == "json":
        typer.echo(json.dumps(report.json(), indent=2))
        return
    for finding in report.findings:
        verb = "healed" if finding.is_healed else "damaged"
        typer.echo(f"{verb:8}{finding}  {finding.note}")
        typer.echo(f"        hits {', '.join(map(str, finding.images)) or 'nothing that is wanted'}")
    typer.echo(report.summary())
