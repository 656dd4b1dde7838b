"""Handlers that sites call: zero touch registration and status reports."""

from typing import Final

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import SecretStr

from harbor_satellite.errors import AuthenticationError
from harbor_satellite.ground_control import registration, reports
from harbor_satellite.ground_control.callers import SharedContext
from harbor_satellite.ground_control.context import Context
from harbor_satellite.ground_control.site_callers import CallingSatellite, refuse_too_many_claims
from harbor_satellite.state.wire import Registration, RegistrationClaim, StatusReport

router: Final = APIRouter(prefix="/satellites", tags=["sites"])


@router.get("/ztr/{token}", summary="Exchange a one-time token for a credential (the original's form)")
def claim_by_path(request: Request, context: SharedContext, token: str, response: Response) -> Registration:
    """Register a site; a lost answer needs a new token, because the original's clients send no claim key."""
    return _claim(request, context, response, RegistrationClaim(token=SecretStr(token)))


@router.post("/ztr", summary="Exchange a one-time token for a credential")
def claim(request: Request, context: SharedContext, body: RegistrationClaim, response: Response) -> Registration:
    """Register a site; the same claim key may repeat this until the site's first report."""
    return _claim(request, context, response, body)


@router.post("/sync", summary="Report a site's status", response_class=Response)
def report_status(context: SharedContext, caller: CallingSatellite, body: StatusReport) -> Response:
    """Store a site's report about itself."""
    if body.name != caller.name:
        raise HTTPException(403, "a satellite reports about itself only")
    with context.writing() as session:
        reports.record_report(session, caller, body, context.clock())
    return Response(status_code=200)


def _claim(request: Request, context: Context, response: Response, claim: RegistrationClaim) -> Registration:
    response.headers["Cache-Control"] = "no-store"
    try:
        with context.writing_with_source() as session:
            return registration.claim(
                session,
                context.source,
                context.addresses,
                token=claim.token,
                claim_key=claim.claim_key,
                now=context.clock(),
            )
    except AuthenticationError:
        refuse_too_many_claims(request, context)
        raise
