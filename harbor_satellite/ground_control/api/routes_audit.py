"""Handlers for the audit log: reading it. Nothing here changes it."""

from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from harbor_satellite.ground_control.api.callers import Person, SharedContext
from harbor_satellite.ground_control.api.schemas_people import AuditEventBody
from harbor_satellite.ground_control.people import audit_view
from harbor_satellite.ground_control.people.audit_view import PAGE_MAX, AuditFilter

router: Final = APIRouter(prefix="/api/audit", tags=["audit"])

_Exact = Annotated[str, Query(max_length=255, pattern=r"^[^\x00]*$")]
_Since = Annotated[AwareDatetime | None, Query(description="Not before this moment, with its zone")]
_Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="At most so many")]
_Before = Annotated[int | None, Query(ge=0, le=2**63 - 1, description="The last id of the page before this")]


@router.get("", summary="List changes, and what was refused; the newest first")
def list_events(  # noqa: PLR0917 - FastAPI passes them by name
    context: SharedContext,
    person: Person,
    resource: _Exact = "",
    actor: _Exact = "",
    action: _Exact = "",
    outcome: _Exact = "",
    since: _Since = None,
    limit: _Limit = 100,
    before: _Before = None,
) -> list[AuditEventBody]:
    """List events that match all filters, such as ``resource=group:shops``; page on with ``before``."""
    del person
    wanted = AuditFilter(resource, actor, action, outcome, since)
    with context.reading() as session:
        events = audit_view.list_events(session, wanted, before=before, limit=limit)
        return [AuditEventBody.of(event) for event in events]
