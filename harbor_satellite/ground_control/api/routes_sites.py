"""Handlers that sites call: zero touch registration and status reports."""

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import SecretStr, ValidationError

from harbor_satellite.errors import AuthenticationError, SizeLimitError, UntrustedDataError
from harbor_satellite.ground_control.api.callers import (
    BasicHeader,
    SharedContext,
    basic_header,
    client_address,
    get_context,
    parse_basic,
    refuse_until,
    request_id,
)
from harbor_satellite.ground_control.api.context import Context
from harbor_satellite.ground_control.api.site_callers import CallingSatellite, refuse_too_many_claims, require_satellite
from harbor_satellite.ground_control.fleet import reports
from harbor_satellite.ground_control.fleet.idle_reports import CheckedReport, checked_report
from harbor_satellite.ground_control.people.audit_log import Actor
from harbor_satellite.ground_control.satellites import credentials, registration, renewals
from harbor_satellite.ground_control.satellites.credentials import SatelliteIdentity
from harbor_satellite.ground_control.tokens import hash_token
from harbor_satellite.state.packed import unpack
from harbor_satellite.state.wire import (
    CredentialRenewal,
    Registration,
    RegistrationClaim,
    RegistryAuth,
    ReportAnswer,
    StatusReport,
)

router: Final = APIRouter(prefix="/satellites", tags=["sites"])


@router.get("/ztr/{token}", summary="Exchange a one-time token for a credential (the original's form)")
def claim_by_path(request: Request, context: SharedContext, token: str, response: Response) -> Registration:
    """Register a site; a lost answer needs a new token, because the original's clients send no claim key."""
    return _claim(request, context, response, RegistrationClaim(token=SecretStr(token)))


@router.post("/ztr", summary="Exchange a one-time token for a credential")
def claim(request: Request, context: SharedContext, body: RegistrationClaim, response: Response) -> Registration:
    """Register a site; the same claim key may repeat this until the site's first report."""
    return _claim(request, context, response, body)


async def report_status(context: SharedContext, caller: CallingSatellite, body: StatusReport) -> Response:
    """Store a site's report about itself."""
    if body.name != caller.name:
        raise HTTPException(403, "a satellite reports about itself only")
    checked = checked_report(caller, body, context.clock())
    is_renewal_due = await context.idle_reports.note_nothing_new(checked)
    if is_renewal_due is None:
        answer = await run_in_threadpool(_record_news, context, checked)
    else:
        answer = reports.answer_to(body, is_renewal_due=is_renewal_due)
    # The original's answer is empty; ours says something only to whom there is something to say.
    said = answer.model_dump(exclude_defaults=True)
    return JSONResponse(said) if said else Response(status_code=200)


class _ReportRoute(APIRoute):
    """Calls its handler itself: what FastAPI does around it costs more than the report."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request; the handler's parameters are what the API's documentation shows."""

        async def answer(request: Request) -> Response:
            context = await get_context(request)
            caller = await require_satellite(request, context, await basic_header(request))
            body = await request.body()
            if request.headers.get("Content-Encoding") == "gzip":
                body = _unpacked(body, context.options.body_max_bytes)
            return await report_status(context, caller, _report_of(body))

        return answer


router.add_api_route(
    "/sync",
    report_status,
    methods=["POST"],
    summary="Report a site's status",
    response_class=Response,
    route_class_override=_ReportRoute,
)


def _unpacked(body: bytes, most: int) -> bytes:
    try:
        return unpack(body, most)
    except SizeLimitError as error:
        raise HTTPException(413, str(error)) from error
    except UntrustedDataError as error:
        raise HTTPException(400, str(error)) from error


def _report_of(body: bytes) -> StatusReport:
    try:
        return StatusReport.model_validate(json.loads(body))
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors(include_url=False)]
        raise RequestValidationError(problems) from error
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the body is no JSON") from error


def _record_news(context: Context, checked: CheckedReport) -> ReportAnswer:
    with context.writing() as session:
        return reports.record_news(session, checked)


def require_renewing_satellite(request: Request, context: SharedContext, basic: BasicHeader) -> SatelliteIdentity:
    """Return the satellite that asks for its next credential, with one that may have expired a while ago."""
    username, secret = parse_basic(basic)
    try:
        with context.reading() as session:
            caller = credentials.authenticate_satellite(
                session, username, secret, context.clock(), expired_grace=context.options.renewal_grace
            )
    except AuthenticationError:
        refuse_until(context.note_secret_failure((client_address(request), username[:128])))
        raise
    # The name, too: a satellite made anew may get the number of one that was deleted.
    key = (caller.satellite_id, caller.name)
    refuse_until(context.limits.renewals.take(key, context.monotonic()), "too many renewals")
    return caller


RenewingSatellite = Annotated[SatelliteIdentity, Depends(require_renewing_satellite)]


@router.post("/credential", summary="Get the next credential, before or a while after the present one expires")
def renew_credential(
    request: Request, context: SharedContext, caller: RenewingSatellite, body: CredentialRenewal, response: Response
) -> RegistryAuth:
    """Make a site's next credential; the present one holds until the next one has been used."""
    response.headers["Cache-Control"] = "no-store"
    asked = renewals.RenewalRequest(
        identity=caller,
        renewal_key=body.renewal_key,
        expired_grace=context.options.renewal_grace,
        source_address=client_address(request),
        request_id=request_id(request),
    )
    with context.writing_with_source() as session:
        issued = renewals.renew(session, context.source, asked, context.clock())
    return registration.registry_auth(issued, context.addresses.source_url)


def _claim(request: Request, context: Context, response: Response, claim: RegistrationClaim) -> Registration:
    response.headers["Cache-Control"] = "no-store"
    # By the token, which only the site knows; whoever makes tokens up is slowed down by the address, below.
    key = hash_token(claim.token)
    refuse_until(context.limits.claims.take(key, context.monotonic()), "too many claims of one token")
    try:
        with context.writing_with_source() as session:
            return registration.claim(
                session,
                context.source,
                context.addresses,
                token=claim.token,
                claim_key=claim.claim_key,
                actor=Actor("anonymous", client_address(request), request_id(request)),
                now=context.clock(),
            )
    except AuthenticationError:
        refuse_too_many_claims(request, context)
        raise
