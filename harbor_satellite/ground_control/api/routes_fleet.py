"""Handlers for the state of the fleet. They parse, call a use case and serialise."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from harbor_satellite.ground_control.api.callers import Admin, Person, SharedContext
from harbor_satellite.ground_control.api.schemas_fleet import FleetRowBody, FleetSummaryBody, LabelsBody, ReportBody
from harbor_satellite.ground_control.fleet import fleet_view, reports
from harbor_satellite.ground_control.fleet.fleet_view import DEFAULT_LIMIT, LIMIT_MAX, FleetQuery
from harbor_satellite.ground_control.fleet.reports import KEPT_REPORTS
from harbor_satellite.ground_control.people import audit_log
from harbor_satellite.ground_control.satellites import labels

router: Final = APIRouter(prefix="/api", tags=["fleet"])

_Limit = Annotated[int, Query(ge=0, le=LIMIT_MAX, description="At most so many")]
_Offset = Annotated[int, Query(ge=0, le=10_000_000, description="Leave out so many")]
_Filter = Annotated[str, Query(max_length=128)]
_Label = Annotated[list[str] | None, Query(max_length=10, description="key=value; a satellite must have all of them")]
_Sort = Annotated[str, Query(max_length=16, description="name, lag, last_seen, failures or bytes; - turns it round")]


@router.get("/fleet", summary="List which sites are not on the state that they should be on, and why")
def list_fleet(  # noqa: PLR0917 - FastAPI passes them by name
    context: SharedContext,
    person: Person,
    response: Response,
    limit: _Limit = DEFAULT_LIMIT,
    offset: _Offset = 0,
    group: _Filter = "",
    label: _Label = None,
    state: _Filter = "",
    name: _Filter = "",
    sort: _Sort = "name",
) -> list[FleetRowBody]:
    """List satellites with their state and its reason; ``X-Total-Count`` says how many match."""
    del person
    query = FleetQuery(limit, offset, group, tuple(label or ()), state, name, sort)
    with context.reading() as session:
        page = fleet_view.list_fleet(session, query, context.clock())
        response.headers["X-Total-Count"] = str(page.total)
        return [FleetRowBody.of(row) for row in page.rows]


@router.get("/fleet/summary", summary="Count the fleet by state and by group")
def summarise_fleet(context: SharedContext, person: Person) -> FleetSummaryBody:
    """Count satellites by state and by lifecycle, and how far each group is."""
    del person
    with context.reading() as session:
        return FleetSummaryBody.of(fleet_view.summarise_fleet(session, context.clock()))


@router.get("/satellites/{satellite}/reports", summary="List a site's reports that said something new")
def list_reports(
    context: SharedContext,
    person: Person,
    satellite: str,
    limit: Annotated[int, Query(ge=1, le=KEPT_REPORTS)] = KEPT_REPORTS,
) -> list[ReportBody]:
    """List what the site has reported, newest first; a bounded number is kept."""
    del person
    with context.reading() as session:
        return [ReportBody.of(row) for row in reports.list_reports(session, satellite, limit)]


@router.get("/satellites/{satellite}/labels", summary="Show a satellite's labels")
def show_labels(context: SharedContext, person: Person, satellite: str) -> LabelsBody:
    """Show a satellite's labels."""
    del person
    with context.reading() as session:
        return LabelsBody(labels.show_labels(session, satellite))


@router.put("/satellites/{satellite}/labels", summary="Replace a satellite's labels")
def replace_labels(context: SharedContext, editor: Admin, satellite: str, body: LabelsBody) -> LabelsBody:
    """Make a satellite's labels these and no others."""
    with context.writing() as session:
        before = labels.replace_labels(session, satellite, body.root)
        if changes := audit_log.difference(before, body.root):
            editor.record(session, "satellite.label", f"satellite:{satellite}", changes)
    return body
