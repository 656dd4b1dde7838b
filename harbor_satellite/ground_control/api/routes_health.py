"""Handlers that say whether this service is up, for people and for probes, and what it counts."""

from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import SecretStr

from harbor_satellite.ground_control.api.callers import BasicHeader, BearerToken, SharedContext, require_person
from harbor_satellite.ground_control.database import is_reachable
from harbor_satellite.ground_control.tokens import hash_token, verify_token

if TYPE_CHECKING:
    from harbor_satellite.ground_control.api.metrics import Metrics
    from harbor_satellite.ground_control.api.readiness import ReadinessProbe

router: Final = APIRouter(tags=["health"])


def require_scraper(request: Request, context: SharedContext, bearer: BearerToken, basic: BasicHeader) -> None:
    """Let pass who brings the metrics token, or is a person of any role: counts tell how large a fleet is."""
    token = context.options.metrics_token
    if bearer is not None and token is not None and verify_token(SecretStr(bearer), hash_token(token)):
        return
    require_person(request, context, bearer, basic)


@router.get("/ping", summary="Say pong", response_class=PlainTextResponse, responses={400: {}})
def ping() -> str:
    """Answer as long as the process does."""
    return "pong"


@router.get("/health", summary="Tell whether this service can do its work")
def health(context: SharedContext) -> JSONResponse:
    """Answer 200 if the database can be reached, 503 if not."""
    if is_reachable(context.factory):
        return JSONResponse({"status": "healthy"})
    return JSONResponse({"status": "unhealthy", "message": "the database is not available", "code": 503}, 503)


@router.get("/healthz", summary="Tell whether this process is alive")
async def is_alive() -> JSONResponse:
    """Answer 200 as long as the process does, whatever it leans on: a restart would help nothing else."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz", summary="Tell whether requests may be sent here")
def is_ready(request: Request) -> JSONResponse:
    """Answer 200 if the database is there and its schema is this release's, else 503; the rest is told beside it."""
    probe: ReadinessProbe = request.app.state.readiness
    found = probe.look()
    details = {"database": found.database, "schema": found.schema, "source": found.source, "prefect": found.prefect}
    status = 200 if found.is_ready else 503
    return JSONResponse({"status": "ready" if found.is_ready else "not ready", **details}, status)


@router.get("/metrics", summary="Show metrics for Prometheus", response_class=PlainTextResponse)
def show_metrics(request: Request, scraper: Annotated[None, Depends(require_scraper)]) -> Response:
    """Show what this process counts, and the fleet in numbers; for people, and for whoever has the metrics token."""
    del scraper
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
