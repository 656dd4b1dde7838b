"""Errors as HTTP: one body ``{"message", "code"}`` for all of them, as the original's clients read it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from harbor_satellite.errors import (
    AuthenticationError,
    ConflictError,
    HarborSatelliteError,
    InvalidInputError,
    NotFoundError,
    RemoteError,
    UntrustedDataError,
)
from harbor_satellite.ground_control.api.asgi import REQUEST_ID_KEY
from harbor_satellite.ground_control.api.audit_refusals import RecordsRefusals
from harbor_satellite.ground_control.api.openapi_document import describe_answers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

logger = logging.getLogger(__name__)

CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="Ground Control", charset="UTF-8"'}
_UNAVAILABLE_RETRY_SECONDS: Final = 5
_LONGEST_PLACE: Final = 5  # parts of a body's path that are shown

# The most derived class first.
_STATUSES: Final[tuple[tuple[type[HarborSatelliteError], int], ...]] = (
    (NotFoundError, 404),
    (InvalidInputError, 400),
    (ConflictError, 409),
    (AuthenticationError, 401),
    (RemoteError, 502),
    (UntrustedDataError, 502),
    (HarborSatelliteError, 503),
)


def add_error_answers(app: FastAPI) -> None:
    """Let an app answer every error that is raised on purpose, and record those of changes in the audit log.

    Errors that nobody expected are ``RequestBoundary``'s.
    """
    app.add_middleware(RecordsRefusals, context=app.state.context)
    describe_answers(app)
    app.add_exception_handler(HarborSatelliteError, _answer_own)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(IntegrityError, _answer_raced)
    app.add_exception_handler(OperationalError, _answer_database)
    app.add_exception_handler(PoolTimeoutError, _answer_database)


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"message": message, "code": status}, status, dict(headers or {}))


def _answer_own(request: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    headers = dict(CHALLENGE) if status == 401 else {}  # noqa: PLR2004 - HTTP
    message = str(error)
    if status >= 500:  # noqa: PLR2004 - HTTP
        logger.error("request failed route=%s status=%d error=%s %s", _route(request), status, error, _id(request))
        # Who is not logged in learns nothing about what stands behind.
        message = message if request.url.path.startswith("/api/") else "the centre cannot do this now; try again later"
    if isinstance(error, RemoteError) and error.retry_after_seconds:
        headers["Retry-After"] = str(int(error.retry_after_seconds))
    return _error(status, message, headers)


def _answer_http(request: Request, error: Exception) -> JSONResponse:
    del request
    if not isinstance(error, HTTPException):
        raise error
    return _error(error.status_code, str(error.detail), error.headers)


def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    del request
    if not isinstance(error, RequestValidationError):
        raise error
    # Places and rules only, never the values: they may be secrets.
    problems = [
        f"{'.'.join(str(part) for part in problem['loc'][:_LONGEST_PLACE])}: {problem['msg']}"
        for problem in error.errors()[:3]
    ]
    return _error(400, f"invalid request: {'; '.join(problems)}")


def _answer_raced(request: Request, error: Exception) -> JSONResponse:
    logger.warning("request raced route=%s error=%s %s", _route(request), type(error).__name__, _id(request))
    return _error(409, "changed by another request at the same time; try again")


def _answer_database(request: Request, error: Exception) -> JSONResponse:
    # The text of a database error carries the statement and its values.
    logger.error("database unavailable route=%s error=%s %s", _route(request), type(error).__name__, _id(request))
    return _error(503, "the database is not available", {"Retry-After": str(_UNAVAILABLE_RETRY_SECONDS)})


def _route(request: Request) -> str:
    # Never the path itself: one of them carries a one-time token.
    return getattr(request.scope.get("route"), "path", "?")


def _id(request: Request) -> str:
    return f"request_id={request.scope.get(REQUEST_ID_KEY, '')}"
