"""Listings over HTTP: tags, repositories and referrers (distribution-spec, "Content Discovery")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import index_bytes
from harbor_satellite.registry.layout_refusals import ErrorCode, RefusedError
from harbor_satellite.registry.server_requests import page_of, parse_digest

if TYPE_CHECKING:
    from starlette.requests import Request

    from harbor_satellite.registry.layout import LayoutRegistry


def list_tags(registry: LayoutRegistry, request: Request) -> Response:
    """Answer the tags of a repository, page by page; 404 for a repository that holds nothing."""
    repository = request.path_params["repository"]
    tags = registry.tag_list(repository)
    if not tags and repository not in registry.repository_list():
        raise RefusedError(ErrorCode.NAME_UNKNOWN, 404, f"no repository {repository}")
    page, headers = page_of(tags, request)
    return JSONResponse({"name": repository, "tags": page}, headers=headers)


def list_repositories(registry: LayoutRegistry, request: Request) -> Response:
    """Answer the repositories that hold something, page by page."""
    page, headers = page_of(registry.repository_list(), request)
    return JSONResponse({"repositories": page}, headers=headers)


def list_referrers(registry: LayoutRegistry, request: Request) -> Response:
    """Answer the manifests whose subject is a digest, which itself need not be there."""
    digest = parse_digest(request.path_params["digest"])
    referrers = registry.referrer_list(request.path_params["repository"], digest)
    wanted = request.query_params.get("artifactType")
    headers = {}
    if wanted:
        referrers = tuple(referrer for referrer in referrers if referrer.artifact_type == wanted)
        headers["oci-filters-applied"] = "artifactType"
    return Response(index_bytes(referrers), headers=headers, media_type=media_types.OCI_INDEX)
