"""Blob uploads over HTTP: one request, POST then PUT, or chunks; mounting; sessions that can be resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from harbor_satellite.errors import StorageError
from harbor_satellite.registry.api import CHUNK_BYTES
from harbor_satellite.registry.layout_refusals import ErrorCode, RefusedError
from harbor_satellite.registry.server_errors import error_response
from harbor_satellite.registry.server_requests import parse_content_range, parse_digest

if TYPE_CHECKING:
    from starlette.requests import Request

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.layout import LayoutRegistry
    from harbor_satellite.registry.layout_uploads import UploadWriter

_ALGORITHMS: Final = ("sha256", "sha512")


async def start_upload(registry: LayoutRegistry, request: Request) -> Response:
    """Answer POST: mount a blob, take a whole one, or begin a session (distribution-spec, "Pushing blobs")."""
    repository = request.path_params["repository"]
    mount = request.query_params.get("mount")
    if mount is not None:
        digest = parse_digest(mount)
        source = request.query_params.get("from", "")
        if await run_in_threadpool(registry.blob_mount, repository, digest, source):
            return _created(repository, digest)
    wanted = request.query_params.get("digest")
    digest_or_none = None if wanted is None else parse_digest(wanted)
    algorithm = digest_or_none.algorithm if digest_or_none else request.query_params.get("digest-algorithm", "sha256")
    if algorithm not in _ALGORITHMS:
        raise RefusedError(ErrorCode.UNSUPPORTED, 400, f"not a digest algorithm of this registry: {algorithm[:40]!r}")
    identifier = await run_in_threadpool(registry.upload_start, repository, algorithm)
    if digest_or_none is None:
        return _session(repository, identifier, 0, 202)
    try:
        await _receive(registry, request, identifier)
        await run_in_threadpool(registry.upload_finish, repository, identifier, digest_or_none)
    except BaseException:
        registry.upload_cancel(repository, identifier)
        raise
    return _created(repository, digest_or_none)


async def append_chunk(registry: LayoutRegistry, request: Request) -> Response:
    """Answer PATCH: append to a session; 416 unless the chunk begins where the session ends."""
    repository, identifier = _names(request)
    try:
        size = await _receive(registry, request, identifier)
    except RefusedError as error:
        return await _refused_chunk(registry, repository, identifier, error)
    return _session(repository, identifier, size, 202)


async def finish_upload(registry: LayoutRegistry, request: Request) -> Response:
    """Answer PUT: append what the body holds, verify all of it and publish the blob."""
    repository, identifier = _names(request)
    digest = parse_digest(request.query_params.get("digest", ""))
    try:
        await _receive(registry, request, identifier)
    except RefusedError as error:
        return await _refused_chunk(registry, repository, identifier, error)
    await run_in_threadpool(registry.upload_finish, repository, identifier, digest)
    return _created(repository, digest)


def read_upload(registry: LayoutRegistry, request: Request) -> Response:
    """Answer GET: how far a session has come."""
    repository, identifier = _names(request)
    return _session(repository, identifier, registry.upload_size(repository, identifier), 204)


def cancel_upload(registry: LayoutRegistry, request: Request) -> Response:
    """Answer DELETE: drop a session."""
    repository, identifier = _names(request)
    if not registry.upload_cancel(repository, identifier):
        raise RefusedError(ErrorCode.BLOB_UPLOAD_UNKNOWN, 404, f"no upload {identifier[:64]!r} in {repository}")
    return Response(status_code=204)


async def _receive(registry: LayoutRegistry, request: Request, identifier: str) -> int:
    """Append the body to a session and return the session's size; what arrived before a cut stays."""
    repository = request.path_params["repository"]
    part = parse_content_range(request.headers.get("content-range"))
    writer = await run_in_threadpool(registry.upload_open, repository, identifier, part[0] if part else None)
    try:
        await _write_body(request, writer)
        if part is not None and writer.offset - writer.start != part[1] - part[0] + 1:
            await run_in_threadpool(writer.rewind)
            message = f"chunk {part[0]}-{part[1]} of {repository} came with another length"
            raise RefusedError(ErrorCode.SIZE_INVALID, 400, message)
    except StorageError:
        # A full disk is not helped by half a blob that can never be finished.
        writer.close()
        registry.upload_cancel(repository, identifier)
        raise
    finally:
        writer.close()
    return writer.offset


async def _write_body(request: Request, writer: UploadWriter) -> None:
    waiting = bytearray()
    try:
        async for chunk in request.stream():
            waiting += chunk
            if len(waiting) >= CHUNK_BYTES:
                full, waiting = waiting, bytearray()
                await run_in_threadpool(writer.write, full)
    except ClientDisconnect:
        await run_in_threadpool(writer.write, waiting)
        raise
    await run_in_threadpool(writer.write, waiting)


async def _refused_chunk(registry: LayoutRegistry, repository: str, identifier: str, error: RefusedError) -> Response:
    if error.status != 416:  # noqa: PLR2004, 416 is 416
        raise error
    size = await run_in_threadpool(registry.upload_size, repository, identifier)
    return error_response(416, error.code, str(error), _session_headers(repository, identifier, size))


def _names(request: Request) -> tuple[str, str]:
    return request.path_params["repository"], request.path_params["identifier"]


def _session(repository: str, identifier: str, size: int, status: int) -> Response:
    return Response(status_code=status, headers=_session_headers(repository, identifier, size))


def _session_headers(repository: str, identifier: str, size: int) -> dict[str, str]:
    return {
        "location": f"/v2/{repository}/blobs/uploads/{identifier}",
        # The field's convention: an empty session says 0-0 as well.
        "range": f"0-{max(size - 1, 0)}",
        "docker-upload-uuid": identifier,
    }


def _created(repository: str, digest: Digest) -> Response:
    headers = {"location": f"/v2/{repository}/blobs/{digest}", "docker-content-digest": str(digest)}
    return Response(status_code=201, headers=headers)
