"""Manifests over HTTP: pull, push under one or many names, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from harbor_satellite.oci.descriptor import MANIFEST_MAX_BYTES
from harbor_satellite.oci.digest import Digest, is_digest
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.layout_refusals import ErrorCode, RefusedError
from harbor_satellite.registry.server_requests import check_reference, is_known

if TYPE_CHECKING:
    from starlette.requests import Request

    from harbor_satellite.registry.layout import LayoutRegistry


def read_manifest(registry: LayoutRegistry, request: Request) -> Response:
    """Answer GET and HEAD of a manifest; the bytes are verified before they are sent."""
    repository, reference = _names(request)
    descriptor = registry.manifest_head(repository, reference)
    if descriptor is None:
        raise RefusedError(ErrorCode.MANIFEST_UNKNOWN, 404, f"no manifest {reference} in {repository}")
    etag = f'"{descriptor.digest}"'
    headers = {"docker-content-digest": str(descriptor.digest), "etag": etag}
    if is_known(request, etag):
        return Response(status_code=304, headers=headers)
    headers |= {"content-type": descriptor.media_type, "content-length": str(descriptor.size)}
    if request.method == "HEAD":
        return Response(headers=headers)
    # By digest: the tag may have moved since, and the headers must tell of these very bytes.
    return Response(registry.manifest_get(repository, str(descriptor.digest)).raw, headers=headers)


async def write_manifest(registry: LayoutRegistry, request: Request) -> Response:
    """Answer PUT of a manifest, under a tag or under its digest with any number of ``?tag=``."""
    repository, reference = _names(request)
    extra = [check_reference(tag) for tag in request.query_params.getlist("tag")]
    raw = await _body(request, f"{repository}:{reference}")
    by_digest = is_digest(reference)
    tags = tuple(extra if by_digest else [reference, *extra])
    digest = Digest.parse(reference) if by_digest else Digest.of(raw)
    content = ManifestContent(request.headers.get("content-type", ""), raw)
    manifest = await run_in_threadpool(registry.manifest_store, repository, content, digest, tags)
    headers = {"location": f"/v2/{repository}/manifests/{digest}", "docker-content-digest": str(digest)}
    if manifest.subject is not None:
        headers["oci-subject"] = str(manifest.subject.digest)
    if extra:
        headers["oci-tag"] = ", ".join(tags)
    return Response(status_code=201, headers=headers)


def delete_manifest(registry: LayoutRegistry, request: Request) -> Response:
    """Answer DELETE of a tag, or of a manifest with all its tags."""
    repository, reference = _names(request)
    if not registry.manifest_delete(repository, reference):
        raise RefusedError(ErrorCode.MANIFEST_UNKNOWN, 404, f"no manifest {reference} in {repository}")
    return Response(status_code=202)


async def _body(request: Request, what: str) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MANIFEST_MAX_BYTES:
            message = f"manifest {what} is larger than {MANIFEST_MAX_BYTES} bytes"
            raise RefusedError(ErrorCode.SIZE_INVALID, 413, message)
    return bytes(body)


def _names(request: Request) -> tuple[str, str]:
    return request.path_params["repository"], check_reference(request.path_params["reference"])
