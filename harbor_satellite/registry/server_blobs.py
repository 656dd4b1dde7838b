"""Blobs over HTTP: download (whole or a range), existence, deletion. Uploads are ``server_uploads.py``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, Final

import anyio.to_thread
from starlette.responses import Response

from harbor_satellite.registry.api import CHUNK_BYTES
from harbor_satellite.registry.layout_refusals import ErrorCode, RefusedError
from harbor_satellite.registry.server_errors import error_response
from harbor_satellite.registry.server_requests import is_known, parse_digest, parse_range

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from harbor_satellite.registry.layout import LayoutRegistry

OCTETS: Final = "application/octet-stream"


class FileRangeResponse(Response):
    """Sends part of an open file in large chunks, and closes it."""

    def __init__(self, file: BinaryIO, count: int, status: int, headers: dict[str, str]) -> None:
        super().__init__(None, status, headers | {"content-length": str(count)}, OCTETS)
        self._file: Final = file
        self._count: Final = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002, Response's own shape
        """Send the file, as ASGI calls it."""
        rest = self._count
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while rest:
                chunk = await anyio.to_thread.run_sync(self._file.read, min(rest, CHUNK_BYTES))
                if not chunk:
                    break  # the file was cut by somebody else; the client sees a short body and knows
                rest -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": rest > 0})
            if self._count == 0:
                await send({"type": "http.response.body", "body": b""})
        finally:
            self._file.close()


def read_blob(registry: LayoutRegistry, request: Request) -> Response:
    """Answer GET and HEAD of a blob (distribution-spec, "Pulling blobs")."""
    digest = parse_digest(request.path_params["digest"])
    etag = f'"{digest}"'
    headers = {"docker-content-digest": str(digest), "etag": etag, "accept-ranges": "bytes"}
    file = registry.blob_open(request.path_params["repository"], digest)
    size = os.fstat(file.fileno()).st_size
    if is_known(request, etag):
        file.close()
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        file.close()
        return Response(headers=headers | {"content-length": str(size)}, media_type=OCTETS)
    asked = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    try:
        part = parse_range(asked, size)
    except RefusedError as error:
        file.close()
        return error_response(416, error.code, str(error), {"content-range": f"bytes */{size}"})
    if part is None:
        return FileRangeResponse(file, size, 200, headers)
    first, count = part
    file.seek(first)
    headers["content-range"] = f"bytes {first}-{first + count - 1}/{size}"
    return FileRangeResponse(file, count, 206, headers)


def delete_blob(registry: LayoutRegistry, request: Request) -> Response:
    """Answer DELETE of a blob; 405 while a manifest of the repository needs it."""
    digest = parse_digest(request.path_params["digest"])
    repository = request.path_params["repository"]
    if not registry.blob_delete(repository, digest):
        raise RefusedError(ErrorCode.BLOB_UNKNOWN, 404, f"no blob {digest} in {repository}")
    return Response(status_code=202, headers={"docker-content-digest": str(digest)})
