"""Tasks of an audit: read the site's content again, heal what is damaged, show what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from harbor_satellite.edge.site import effective_settings, local_registry, open_own_engine
from harbor_satellite.errors import ConflictError, InvalidInputError
from harbor_satellite.satellite.audit import AuditOptions, audit_site
from harbor_satellite.satellite.healing import heal_site, leave_findings, lock_patiently, needs_healing
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from tasks.policy import local_task, remote_task
from tasks.tables import TABLE_ROWS, artifact_key

if TYPE_CHECKING:
    from harbor_satellite.satellite.findings import AuditReport

_TIMEOUT_SECONDS: Final = 24 * 3600.0  # a slow disk is no error
_PATIENCE_SECONDS: Final = 1800.0
"""How long a replication under way is waited for before anything is healed; else the next audit heals it."""


@remote_task(name="read-content", run_name="read content of {satellite}", timeout_seconds=_TIMEOUT_SECONDS)
def read_content(satellite: str) -> AuditReport:
    """Read the site's content again through its own registry, within the budget; no lock, nothing from the source.

    Args:
        satellite: who this site should be; a run meant for another satellite is refused.
    """
    settings = effective_settings(SatelliteSettings())
    store = _store_of(settings, satellite)
    options = AuditOptions(
        budget_bytes=settings.audit_budget_bytes,
        bytes_per_second=settings.audit_bytes_per_second,
        platforms=settings.replication_options().platforms,
    )
    with local_registry(settings) as registry:
        report = audit_site(registry, store, options)
    for finding in report.findings:
        get_run_logger().warning("damaged %s", finding)
    return report


@local_task(name="heal-content", run_name="heal content of {satellite}")
def heal_content(satellite: str, report: AuditReport) -> AuditReport:
    """Heal what was found, under the site's lock, and keep the audit; each finding says what became of it."""
    settings = effective_settings(SatelliteSettings())
    store = _store_of(settings, satellite)
    if not needs_healing(store, report):
        return leave_findings(store, report, "")
    try:
        with (
            lock_patiently(store, _PATIENCE_SECONDS),
            open_own_engine(settings, store, store.registration(), settings.replication_options()) as engine,
        ):
            return heal_site(engine, report)
    except ConflictError as error:
        return leave_findings(store, report, f"not now: {error}")


def publish_findings(satellite: str, report: AuditReport) -> None:
    """Show what was damaged and what became of it, as a table artifact of the run; what is left comes first."""
    findings = sorted(report.findings, key=lambda finding: (finding.is_healed, str(finding)))
    create_table_artifact(
        table=[finding.row() for finding in findings[:TABLE_ROWS]],
        key=artifact_key(satellite).replace("replication-", "audit-", 1),
        description=report.summary(),
    )


def _store_of(settings: SatelliteSettings, satellite: str) -> SatelliteStore:
    store = SatelliteStore(settings.data_dir)
    registered = store.registration().satellite
    if registered and registered != satellite:
        raise InvalidInputError(f"this site is {registered}; the run is meant for {satellite}")
    return store
