"""Handlers that say whether this service is up, for people and for probes."""

from typing import Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse

from harbor_satellite.ground_control.callers import SharedContext
from harbor_satellite.ground_control.database import is_reachable

router: Final = APIRouter(tags=["health"])


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
