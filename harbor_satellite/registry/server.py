"""The embedded registry: distribution-spec over HTTP in front of a ``LayoutRegistry``.

What lives here: the routes, and how a process serves them. What must not: the answers, which are
``server_*.py``, and anything about the disk, which is ``layout*.py``.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from harbor_satellite.registry import server_blobs, server_listings, server_manifests, server_uploads
from harbor_satellite.registry.htpasswd import HtpasswdAuthenticator
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.layout_files import storage_errors
from harbor_satellite.registry.server_auth import AccessControl
from harbor_satellite.registry.server_errors import HANDLERS
from harbor_satellite.registry.server_process import RegistryServer, announce, collecting_garbage, parse_listen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping
    from pathlib import Path

    from starlette.requests import Request

    from harbor_satellite.registry.server_auth import Authenticator
    from harbor_satellite.registry.server_process import KeyPair

    Answer = Callable[[LayoutRegistry, Request], Awaitable[Response]]

GARBAGE_AGE_SECONDS: Final = 30 * 24 * 3600.0
UNTAGGED_AGE_SECONDS: Final = 7 * 24 * 3600.0
"""How long a running server keeps blobs that no manifest reaches: a slow link may take weeks for one image."""


def _in_thread(answer: Callable[[LayoutRegistry, Request], Response]) -> Answer:
    """Run a plain function, which will touch the disk, off the event loop."""

    @wraps(answer)
    async def run(registry: LayoutRegistry, request: Request) -> Response:
        return await run_in_threadpool(answer, registry, request)

    return run


_REPOSITORY: Final = "/v2/{repository:path}"
_UPLOADS: Final = {"POST": server_uploads.start_upload}
# Uploads come before blobs: a session's address looks like a blob's.
_ROUTES: Final[tuple[tuple[str, Mapping[str, Answer]], ...]] = (
    ("/v2/_catalog", {"GET": _in_thread(server_listings.list_repositories)}),
    (f"{_REPOSITORY}/tags/list", {"GET": _in_thread(server_listings.list_tags)}),
    (f"{_REPOSITORY}/referrers/{{digest}}", {"GET": _in_thread(server_listings.list_referrers)}),
    (f"{_REPOSITORY}/blobs/uploads/", _UPLOADS),
    (f"{_REPOSITORY}/blobs/uploads", _UPLOADS),
    (
        f"{_REPOSITORY}/blobs/uploads/{{identifier}}",
        {
            "GET": _in_thread(server_uploads.read_upload),
            "PATCH": server_uploads.append_chunk,
            "PUT": server_uploads.finish_upload,
            "DELETE": _in_thread(server_uploads.cancel_upload),
        },
    ),
    (
        f"{_REPOSITORY}/blobs/{{digest}}",
        {"GET": _in_thread(server_blobs.read_blob), "DELETE": _in_thread(server_blobs.delete_blob)},
    ),
    (
        f"{_REPOSITORY}/manifests/{{reference}}",
        {
            "GET": _in_thread(server_manifests.read_manifest),
            "PUT": server_manifests.write_manifest,
            "DELETE": _in_thread(server_manifests.delete_manifest),
        },
    ),
)


def create_registry_app(
    registry: LayoutRegistry,
    authenticator: Authenticator | None = None,
    *,
    anonymous_read: bool = True,
    allow_anonymous_writes: bool = False,
    writers: Collection[str] | None = None,
) -> Starlette:
    """Build the ASGI application that serves a layout.

    Args:
        registry: what is served; the caller closes it.
        authenticator: who knows the passwords; without one nobody may write.
        anonymous_read: pulls need no credentials. Wrong ones are refused all the same.
        allow_anonymous_writes: without an authenticator, let everybody write; for tests and demos.
        writers: which users may write; None: all whom the authenticator knows.
    """
    access = Middleware(
        AccessControl,
        authenticator,
        anonymous_read=anonymous_read,
        allow_anonymous_writes=allow_anonymous_writes,
        writers=writers,
    )
    routes = [_route(registry, path, answers) for path, answers in _ROUTES]
    fixed = [_route(registry, "/healthz", {"GET": _in_thread(_health)})]
    fixed += [_route(registry, path, {"GET": _in_thread(_ping)}) for path in ("/v2/", "/v2")]
    app = Starlette(routes=[*fixed, *routes], middleware=[access], exception_handlers=HANDLERS)
    app.router.redirect_slashes = False
    return app


def serve(
    registry: LayoutRegistry,
    host: str,
    port: int,
    authenticator: Authenticator | None = None,
    *,
    anonymous_read: bool = True,
    allow_anonymous_writes: bool = False,
    writers: Collection[str] | None = None,
    key_pair: KeyPair | None = None,
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serve a layout in this process until SIGTERM or SIGINT; ``on_listening`` is told the address.

    Raises:
        InvalidInputError: nobody can listen there.
    """
    app = create_registry_app(
        registry,
        authenticator,
        anonymous_read=anonymous_read,
        allow_anonymous_writes=allow_anonymous_writes,
        writers=writers,
    )
    RegistryServer(app, host, port, key_pair).run(on_listening)


def run_registry_server(
    root: Path,
    listen: str,
    htpasswd: Path | None,
    *,
    anonymous_read: bool = True,
    allow_anonymous_writes: bool = False,
    writers: Collection[str] | None = None,
    key_pair: KeyPair | None = None,
    untagged_age_seconds: float = UNTAGGED_AGE_SECONDS,
) -> None:
    """Be the embedded registry: own the root, print ``listening on URL``, serve until SIGTERM or SIGINT.

    Args:
        root: directory of all repositories; created if it is not there.
        listen: ``HOST:PORT``; an IPv6 host stands in brackets, port 0 means any free one.
        htpasswd: who may write, as bcrypt; re-read whenever it changes. None means nobody may.
        anonymous_read: pulls need no credentials.
        allow_anonymous_writes: without a htpasswd, let everybody write; for tests and demos.
        writers: which users of the htpasswd may write; None: all.
        key_pair: makes it speak TLS; None: plain HTTP.
        untagged_age_seconds: how long manifests without a tag are kept.

    Raises:
        InvalidInputError: nobody can listen there, or the key pair cannot be used.
        StorageError: the root cannot be written, or another process owns it.
    """
    host, port = parse_listen(listen)
    authenticator = None if htpasswd is None else HtpasswdAuthenticator(htpasswd)
    with (
        LayoutRegistry(root, listen) as registry,
        collecting_garbage(registry, GARBAGE_AGE_SECONDS, untagged_age_seconds),
    ):
        serve(
            registry,
            host,
            port,
            authenticator,
            anonymous_read=anonymous_read,
            allow_anonymous_writes=allow_anonymous_writes,
            writers=writers,
            key_pair=key_pair,
            on_listening=announce,
        )


def _route(registry: LayoutRegistry, path: str, answers: Mapping[str, Answer]) -> Route:
    async def endpoint(request: Request) -> Response:
        return await answers["GET" if request.method == "HEAD" else request.method](registry, request)

    return Route(path, endpoint, methods=list(answers))


def _ping(_registry: LayoutRegistry, _request: Request) -> Response:
    return JSONResponse({}, headers={"docker-distribution-api-version": "registry/2.0"})


def _health(registry: LayoutRegistry, _request: Request) -> Response:
    with storage_errors(registry.root, "looking at the registry"):
        registry.root.stat()
    return JSONResponse({"status": "ok"})
