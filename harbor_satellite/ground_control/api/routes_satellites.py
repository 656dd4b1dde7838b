"""Handlers for satellites, as people see them. They parse, call a use case and serialise."""

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from harbor_satellite.ground_control.api.callers import Admin, Person, SharedContext
from harbor_satellite.ground_control.api.context import Context
from harbor_satellite.ground_control.api.schemas import (
    SatelliteBody,
    SatelliteRegistration,
    ScheduleChange,
    StatusBody,
    TokenBody,
)
from harbor_satellite.ground_control.fleet import reports
from harbor_satellite.ground_control.models import Satellite
from harbor_satellite.ground_control.people import audit_log
from harbor_satellite.ground_control.satellites import credentials, labels, retirement, satellites
from harbor_satellite.ground_control.satellites.satellites import IssuedToken
from harbor_satellite.state.wire import CachedImage

router: Final = APIRouter(prefix="/api/satellites", tags=["satellites"])

_Limit = Annotated[int | None, Query(ge=0, le=10_000, description="At most so many; all of them by default")]
_Offset = Annotated[int, Query(ge=0, le=10_000_000, description="Leave out so many")]
_Filter = Annotated[str, Query(max_length=128)]


@router.get("", summary="List satellites")
def list_satellites(  # noqa: PLR0917 - FastAPI passes them by name
    context: SharedContext,
    person: Person,
    response: Response,
    limit: _Limit = None,
    offset: _Offset = 0,
    group: _Filter = "",
    name: _Filter = "",
) -> list[SatelliteBody]:
    """List satellites by name; ``group`` and a part of the ``name`` filter; ``X-Total-Count`` says how many match."""
    del person
    with context.reading() as session:
        page = satellites.list_satellites(session, limit=limit, offset=offset, group=group, name_contains=name)
        response.headers["X-Total-Count"] = str(page.total)
        return _bodies(context, session, page.satellites)


@router.post("", summary="Register a satellite and get its one-time token")
def register_satellite(
    context: SharedContext, editor: Admin, body: SatelliteRegistration, response: Response
) -> TokenBody:
    """Make a satellite; the token is shown this once."""
    with context.writing() as session:
        issued = satellites.register_satellite(
            session,
            context.source,
            name=body.name,
            group_names=body.groups or (),
            config_name=body.config_name or "",
            schedule=body.schedule,
            token_ttl=context.options.token_ttl,
            now=context.clock(),
        )
        changes = {"groups": [None, sorted(set(body.groups or ()))], "config_name": [None, body.config_name or ""]}
        editor.record(session, "satellite.register", f"satellite:{body.name}", changes)
    return _token(issued, response)


@router.get("/active", summary="List satellites whose reports are not overdue")
def list_active(context: SharedContext, person: Person) -> list[SatelliteBody]:
    """List the satellites that reported within three of their intervals."""
    del person
    with context.reading() as session:
        return _bodies(context, session, satellites.list_active(session, context.clock()))


@router.get("/stale", summary="List satellites that have gone silent")
def list_stale(context: SharedContext, person: Person) -> list[SatelliteBody]:
    """List the satellites that reported once, but not within three of their intervals."""
    del person
    with context.reading() as session:
        return _bodies(context, session, satellites.list_stale(session, context.clock()))


@router.get("/{satellite}", summary="Show a satellite")
def show_satellite(context: SharedContext, person: Person, satellite: str) -> SatelliteBody:
    """Show one satellite."""
    del person
    with context.reading() as session:
        return _bodies(context, session, [satellites.show_satellite(session, satellite)])[0]


@router.patch("/{satellite}", summary="Change when a satellite replicates")
def change_satellite(context: SharedContext, editor: Admin, satellite: str, body: ScheduleChange) -> SatelliteBody:
    """Set a satellite's schedule."""
    with context.writing() as session:
        before = satellites.show_satellite(session, satellite).schedule
        row = satellites.set_schedule(session, satellite, body.schedule, context.clock())
        changes = audit_log.difference({"schedule": before}, {"schedule": row.schedule})
        editor.record(session, "satellite.change", f"satellite:{satellite}", changes)
        return _bodies(context, session, [row])[0]


@router.delete("/{satellite}", summary="Delete a satellite and its credentials")
def delete_satellite(context: SharedContext, editor: Admin, satellite: str) -> dict[str, str]:
    """Delete a satellite; what the source does not give up now, and what is in Prefect, goes a little later."""
    with context.writing_with_source() as session:
        is_clean = retirement.delete_satellite(session, context.source, satellite, context.clock())
        changes = {"accounts": [None, "deleted" if is_clean else "still to be deleted at the source"]}
        editor.record(session, "satellite.delete", f"satellite:{satellite}", changes)
    return {}


@router.post("/{satellite}/revoke", summary="Refuse a satellite from now on")
def revoke_satellite(context: SharedContext, editor: Admin, satellite: str) -> SatelliteBody:
    """End a satellite's credentials and tokens at once; a new one-time token lets it in again."""
    with context.writing() as session:
        before = satellites.show_satellite(session, satellite).lifecycle
        ended = retirement.revoke_satellite(session, satellite, context.clock())
        row = satellites.show_satellite(session, satellite)
        changes = audit_log.difference({"lifecycle": before, "usernames": ended}, {"lifecycle": row.lifecycle})
        editor.record(session, "satellite.revoke", f"satellite:{satellite}", changes)
        return _bodies(context, session, [row])[0]


@router.post("/{satellite}/token", summary="Issue a new one-time token")
def reissue_token(context: SharedContext, editor: Admin, satellite: str, response: Response) -> TokenBody:
    """Make a new token and end those before it; the satellite's credential lives on until the token is claimed."""
    with context.writing() as session:
        before = satellites.show_satellite(session, satellite).lifecycle
        issued = satellites.reissue_token(session, satellite, context.options.token_ttl, context.clock())
        after = satellites.show_satellite(session, satellite).lifecycle
        changes = audit_log.difference({"lifecycle": before}, {"lifecycle": after})
        editor.record(session, "token.reissue", f"satellite:{satellite}", changes)
    return _token(issued, response)


@router.delete("/{satellite}/token", summary="Revoke a satellite's one-time tokens", status_code=204)
def revoke_tokens(context: SharedContext, editor: Admin, satellite: str) -> Response:
    """End every one-time token of a satellite."""
    with context.writing() as session:
        satellites.revoke_tokens(session, satellite, context.clock())
        editor.record(session, "token.revoke", f"satellite:{satellite}")
    return Response(status_code=204)


@router.get("/{satellite}/status", summary="Show what a site reported, and whether it is in step")
def show_status(context: SharedContext, person: Person, satellite: str) -> StatusBody:
    """Hold a site's newest report against what the centre published for it."""
    del person
    with context.reading() as session:
        return StatusBody.of(reports.show_status(session, satellite, context.clock()), context.clock())


@router.get("/{satellite}/images", summary="List the images that a site holds")
def list_images(context: SharedContext, person: Person, satellite: str) -> list[CachedImage]:
    """List what the site's newest report says its local registry holds."""
    del person
    with context.reading() as session:
        return list(reports.list_images(session, satellite))


def _bodies(context: Context, session: Session, rows: Sequence[Satellite]) -> list[SatelliteBody]:
    names = satellites.group_names_of(session, [row.id for row in rows])
    expiries = credentials.expiries_of(session, names)
    marks = labels.labels_of(session, names)
    return [
        SatelliteBody.of(
            row, names[row.id], context.clock(), credential_expires_at=expiries.get(row.id), labels=marks[row.id]
        )
        for row in rows
    ]


def _token(issued: IssuedToken, response: Response) -> TokenBody:
    response.headers["Cache-Control"] = "no-store"
    return TokenBody(token=issued.token, expires_at=issued.expires_at)
