"""Errors as distribution-spec answers them: ``{"errors": [{code, message, detail}]}`` and a status."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from harbor_satellite.errors import (
    DigestMismatchError,
    HarborSatelliteError,
    InvalidInputError,
    MalformedStateError,
    StorageError,
    UntrustedDataError,
)
from harbor_satellite.registry.layout_files import is_disk_full
from harbor_satellite.registry.layout_refusals import ErrorCode, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.types import ExceptionHandler

_log: Final = logging.getLogger(__name__)
_BAD_REQUESTS: Final[tuple[tuple[type[HarborSatelliteError], ErrorCode], ...]] = (
    (DigestMismatchError, ErrorCode.DIGEST_INVALID),
    (MalformedStateError, ErrorCode.MANIFEST_INVALID),
    (InvalidInputError, ErrorCode.NAME_INVALID),
)
_READS: Final = frozenset({"GET", "HEAD"})


def error_response(
    status: int, code: ErrorCode, message: str, headers: Mapping[str, str] | None = None, detail: object = None
) -> Response:
    """Answer with one error in distribution-spec's form."""
    content = {"errors": [{"code": code, "message": message, "detail": detail}]}
    return JSONResponse(content, status_code=status, headers=headers)


def storage_response(error: StorageError) -> Response:
    """Answer that the disk failed: 507 if it is full, else 500. The server keeps serving."""
    _log.error("storage failed reason=%s", error)
    if is_disk_full(error):
        return error_response(507, ErrorCode.INSUFFICIENT_STORAGE, str(error))
    return error_response(500, ErrorCode.UNKNOWN, str(error))


async def _handle_library(request: Request, error: Exception) -> Response:
    if isinstance(error, RefusedError):
        return error_response(error.status or 500, error.code, str(error))
    if isinstance(error, StorageError):
        return storage_response(error)
    if request.method in _READS and isinstance(error, UntrustedDataError):
        # What was asked for is damaged on this disk; the client did nothing wrong and may try elsewhere.
        _log.error("damaged content reason=%s", error)
        return error_response(500, ErrorCode.UNKNOWN, str(error))
    code = next((code for kind, code in _BAD_REQUESTS if isinstance(error, kind)), None)
    return error_response(400 if code else 500, code or ErrorCode.UNKNOWN, str(error))


async def _handle_http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    code = ErrorCode.UNSUPPORTED if status == 405 else ErrorCode.NAME_UNKNOWN  # noqa: PLR2004, 405 is 405
    return error_response(status, code, f"{request.method} {request.url.path[:300]}: no such operation", headers)


async def _handle_disconnect(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


async def _handle_unexpected(request: Request, _error: Exception) -> Response:
    _log.error("request failed method=%s path=%s", request.method, request.url.path)
    return error_response(500, ErrorCode.UNKNOWN, "the registry failed; its log says why")


HANDLERS: Final[Mapping[int | type[Exception], ExceptionHandler]] = {
    HarborSatelliteError: _handle_library,
    HTTPException: _handle_http,
    ClientDisconnect: _handle_disconnect,
    Exception: _handle_unexpected,
}
"""How the application turns every error into an answer."""
