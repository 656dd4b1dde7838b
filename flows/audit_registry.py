"""Read this site's content again, piece by piece, and heal what its disk has lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow
from prefect.states import Completed, Failed

from tasks.audit import heal_content, publish_findings, read_content

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@flow(name="audit-registry", flow_run_name="audit-registry {satellite}", persist_result=False)
def audit_registry(satellite: str) -> State[str]:
    """Audit within the budget, heal from the source, and show what was found, if anything."""
    report = heal_content(satellite, read_content(satellite))
    if report.findings:
        publish_findings(satellite, report)
    if damaged := report.damaged:
        return Failed(message=f"{len(damaged)} left damaged: {damaged[0]}: {damaged[0].note}")
    return Completed(message=report.summary())
