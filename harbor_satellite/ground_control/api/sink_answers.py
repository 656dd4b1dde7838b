"""Answers of the sink in distribution-spec's words; errors are ``{"errors": [{code, message}]}``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from harbor_satellite.errors import (
    AuthenticationError,
    DigestMismatchError,
    HarborSatelliteError,
    InvalidInputError,
    SizeLimitError,
    UntrustedDataError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from starlette.requests import Request

    from harbor_satellite.ground_control.groups.rule_members import PushedManifest

VERSION: Final = {"Docker-Distribution-Api-Version": "registry/2.0"}
CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="Ground Control replication rules", charset="UTF-8"'}
_CODES: Final = {
    400: "NAME_INVALID",
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    405: "UNSUPPORTED",
    413: "SIZE_INVALID",
    429: "TOOMANYREQUESTS",
}
_UNAUTHORIZED: Final = 401
# The most derived class first.
_REFUSALS: Final[tuple[tuple[type[HarborSatelliteError], int, str], ...]] = (
    (AuthenticationError, _UNAUTHORIZED, "UNAUTHORIZED"),
    (DigestMismatchError, 400, "DIGEST_INVALID"),
    (SizeLimitError, 413, "SIZE_INVALID"),
    (UntrustedDataError, 400, "MANIFEST_INVALID"),
    (InvalidInputError, 400, "NAME_INVALID"),
)


class SinkRoute(APIRoute):
    """A route whose errors are those of a registry."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, its errors answered."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except HTTPException as error:
                return refuse(error.status_code, str(error.detail), headers=error.headers)
            except (AuthenticationError, InvalidInputError, UntrustedDataError) as error:
                _, status, code = next(answer for answer in _REFUSALS if isinstance(error, answer[0]))
                return refuse(status, str(error), code, CHALLENGE if status == _UNAUTHORIZED else None)

        return handle


def refuse(status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> Response:
    """Answer with one error in distribution-spec's form."""
    error = {"code": code or _CODES.get(status, "UNKNOWN"), "message": message, "detail": None}
    return JSONResponse({"errors": [error]}, status, {**VERSION, **(headers or {})})


def head_of(manifest: PushedManifest) -> Response:
    """Answer that a manifest is known, by which digest: Harbor compares it, and sends a tag that moved."""
    headers = {
        **VERSION,
        "Docker-Content-Digest": str(manifest.digest),
        "Content-Type": manifest.media_type,
        "Content-Length": str(manifest.size),
    }
    return Response(None, 200, headers)
