"""A small OCI registry in memory that misbehaves on request.

It speaks through ``transport()`` (httpx, no socket) or from ``serving()`` (a real threaded server on loopback: the
bodies of blobs go through urllib3, which needs one). It shows what real registries were seen to do: Harbor's ``sid``
cookie and empty tokens, distribution's ``_state`` in upload addresses, missing referrers API.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor, index_bytes
from harbor_satellite.oci.digest import Digest, is_digest
from tests.fakes.registry_wire import FakeReply, Fault, SeenRequest, mock_transport, serve

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    import httpx

_CODES: Final = {401: "UNAUTHORIZED", 404: "NOT_FOUND", 405: "UNSUPPORTED", 400: "DIGEST_INVALID", 403: "DENIED"}
_PATH: Final = re.compile(r"/v2/(?P<repository>.+?)/(?P<kind>manifests|blobs|tags|referrers)/(?P<rest>.*)")


class FakeRegistry:
    """The registry.

    Args:
        auth: ``""``, ``"basic"`` or ``"bearer"`` (the token service is at ``/token``).
        username: who may do everything, if there is ``auth``.
        password: the secret.
        has_referrers_api: else the path is unknown, as in CNCF distribution.
        redirect_blobs: where GETs of blobs are sent, as to an object store: scheme, host and port.
        page_size: of tag lists.
        absolute_locations: upload sessions are named by a full URL.
    """

    def __init__(
        self,
        *,
        auth: str = "",
        username: str = "robot$edge",
        password: str = "made-up-secret",
        has_referrers_api: bool = True,
        redirect_blobs: str = "",
        page_size: int = 1000,
        absolute_locations: bool = False,
    ) -> None:
        self.auth = auth
        self.basic = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        self.has_referrers_api = has_referrers_api
        self.redirect_blobs = redirect_blobs
        self.page_size = page_size
        self.absolute_locations = absolute_locations
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[str, bytes]]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.tokens: dict[str, tuple[str, ...]] = {}
        self.sessions: set[str] = set()
        self.requests: list[SeenRequest] = []
        self.token_seconds: object = 300
        self.challenge: str | None = None
        self.upload_host = ""
        self._faults: list[Fault] = []
        self._lock = threading.RLock()

    def misbehave(self, pattern: str, reply: FakeReply, times: int = 1) -> None:
        """Give this reply the next ``times`` that ``METHOD /path`` matches; faults are tried in order."""
        self._faults.append(Fault(pattern, reply, times))

    def add_blob(
        self,
        repository: str,
        content: bytes,
        media_type: str = media_types.OCI_LAYER_GZIP,
        digest: Digest | None = None,
    ) -> Descriptor:
        """Hold a blob; a ``digest`` of other bytes makes a damaged one."""
        descriptor = Descriptor(media_type, digest or Digest.of(content), len(content))
        self.blobs.setdefault(repository, {})[str(descriptor.digest)] = content
        return descriptor

    def add_manifest(
        self, repository: str, raw: bytes, tag: str = "", media_type: str = media_types.OCI_MANIFEST
    ) -> Descriptor:
        """Hold a manifest, without a look at what it names."""
        digest = Digest.of(raw)
        self.manifests.setdefault(repository, {})[str(digest)] = (media_type, raw)
        if tag:
            self.tags.setdefault(repository, {})[tag] = str(digest)
        return Descriptor(media_type, digest, len(raw))

    def seen(self, pattern: str) -> list[SeenRequest]:
        """Return the requests so far whose ``METHOD /path`` matches."""
        return [one for one in self.requests if re.fullmatch(pattern, f"{one.method} {one.path}")]

    def transport(self) -> httpx.MockTransport:
        """Return httpx's way in; cut bodies and hanging become httpx's errors."""
        return mock_transport(self.answer)

    def serving(self, context: ssl.SSLContext | None = None) -> AbstractContextManager[str]:
        """Listen on loopback, with TLS if there is a context, and give the URL."""
        return serve(self.answer, context)

    def answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> FakeReply:
        """Answer one request."""
        parts = urlsplit(url)
        lower = {name.lower(): value for name, value in headers.items()}
        request = SeenRequest(method, parts.path, parse_qs(parts.query, keep_blank_values=True), lower, body)
        with self._lock:
            self.requests.append(request)
            for fault in self._faults:
                if fault.times > 0 and re.fullmatch(fault.pattern, f"{method} {parts.path}"):
                    fault.times -= 1
                    return fault.reply
            reply = self._refusal(request) or self._route(request)
        # Harbor: every answer sets this, and a write that carries it is refused.
        return FakeReply(reply.status, {"Set-Cookie": "sid=trap; Path=/", **reply.headers}, reply.body)

    def _refusal(self, request: SeenRequest) -> FakeReply | None:
        if "cookie" in request.headers:
            return _error(403, "CSRF token not found in request")
        if not self.auth or request.path == "/token":
            return None
        given = request.headers.get("authorization", "")
        if self.auth == "basic":
            challenge = 'Basic realm="fake"'
            is_allowed = given == self.basic
        else:
            wanted = _wanted_scope(request)
            base = f"http://{request.headers['host']}"
            challenge = f'Bearer realm="{base}/token",service="fake"' + (f',scope="{wanted}"' if wanted else "")
            is_allowed = _covers(self.tokens.get(given.removeprefix("Bearer ")), wanted)
        if is_allowed:
            return None
        return _error(401, "unauthorized", {"WWW-Authenticate": self.challenge or challenge})

    def _route(self, request: SeenRequest) -> FakeReply:
        match = _PATH.fullmatch(request.path)
        if match is None:
            return self._page(request)
        repository, kind, rest = match["repository"], match["kind"], match["rest"]
        if kind == "blobs" and rest.startswith("uploads/"):
            return self._upload(request, repository, rest)
        answer = {"manifests": self._manifest, "tags": self._tags, "referrers": self._referrers, "blobs": self._blob}
        return answer[kind](request, repository, rest)

    def _page(self, request: SeenRequest) -> FakeReply:
        if request.path == "/token":
            return self._token(request)
        if request.path == "/v2/_catalog":
            return _json({"repositories": sorted({*self.blobs, *self.manifests})})
        return FakeReply(200) if request.path == "/v2/" else _error(404, "no such page")

    def _token(self, request: SeenRequest) -> FakeReply:
        scopes = tuple(request.query.get("scope", []))
        is_known = request.headers.get("authorization") == self.basic
        # Harbor: wrong credentials get a token that is good for nothing.
        token = f"token-{len(self.tokens)}"
        self.tokens[token] = scopes if is_known else ()
        return _json({"token": token, "access_token": "", "expires_in": self.token_seconds})

    def _manifest(self, request: SeenRequest, repository: str, reference: str) -> FakeReply:
        held = self.manifests.setdefault(repository, {})
        tags = self.tags.setdefault(repository, {})
        digest = reference if is_digest(reference) else tags.get(reference, "")
        if request.method == "PUT":
            kind = request.headers["content-type"]
            stored = self.add_manifest(repository, request.body, "" if is_digest(reference) else reference, kind)
            subject = json.loads(request.body).get("subject")
            extra = {"OCI-Subject": subject["digest"]} if subject and self.has_referrers_api else {}
            return FakeReply(201, {"Docker-Content-Digest": str(stored.digest), **extra})
        if digest not in held:
            return _error(404, "manifest unknown")
        if request.method == "DELETE":
            tags.pop(reference, None)
            if is_digest(reference):
                del held[reference]
            return FakeReply(202)
        kind, raw = held[digest]
        return FakeReply(200, {"Content-Type": kind, "Docker-Content-Digest": digest}, raw)

    def _tags(self, request: SeenRequest, repository: str, _rest: str) -> FakeReply:
        if repository not in self.tags:
            return _error(404, "repository name not known to registry")
        last = request.query.get("last", [""])[0]
        names = sorted(name for name in self.tags[repository] if name > last)
        page = names[: self.page_size]
        link = f'</v2/{repository}/tags/list?n={self.page_size}&last={page[-1]}>; rel="next"' if page != names else ""
        return _json({"name": repository, "tags": page or None}, {"Link": link} if link else {})

    def _referrers(self, _request: SeenRequest, repository: str, subject: str) -> FakeReply:
        if not self.has_referrers_api:
            return FakeReply(404, {"Content-Type": "text/plain"}, b"404 page not found\n")
        found = []
        for digest, (kind, raw) in self.manifests.get(repository, {}).items():
            document = json.loads(raw)
            if (document.get("subject") or {}).get("digest") == subject:
                found.append(Descriptor(kind, Digest.parse(digest), len(raw), None, document.get("artifactType", "")))
        return FakeReply(200, {"Content-Type": media_types.OCI_INDEX}, index_bytes(found))

    def _blob(self, request: SeenRequest, repository: str, digest: str) -> FakeReply:
        held = self.blobs.setdefault(repository, {})
        if digest not in held:
            return _error(404, "blob unknown to registry")
        if request.method == "DELETE":
            del held[digest]
            return FakeReply(202)
        if request.method == "GET" and self.redirect_blobs:
            return FakeReply(307, {"Location": f"{self.redirect_blobs}{request.path}?signature=secret"})
        content = held[digest]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
        if wanted is None:
            return FakeReply(200, {"Docker-Content-Digest": digest}, content)
        first, last = int(wanted[1]), int(wanted[2])
        if first >= len(content):
            return FakeReply(416, {"Content-Range": f"bytes */{len(content)}"})
        return FakeReply(206, {"Content-Range": f"bytes {first}-{last}/{len(content)}"}, content[first : last + 1])

    def _upload(self, request: SeenRequest, repository: str, rest: str) -> FakeReply:
        identifier = rest.removeprefix("uploads/")
        if request.method == "POST":
            mount = request.query.get("mount", [""])[0]
            content = self.blobs.get(request.query.get("from", [""])[0], {}).get(mount)
            if content is not None:
                self.blobs.setdefault(repository, {})[mount] = content
                return FakeReply(201, {"Docker-Content-Digest": mount})
            identifier = f"session-{len(self.requests)}"
            self.sessions.add(identifier)
            base = f"http://{request.headers['host']}" if self.absolute_locations else ""
            path = f"/v2/{repository}/blobs/uploads/{identifier}?_state=a%2Fb%3D"
            return FakeReply(202, {"Location": f"{self.upload_host or base}{path}"})
        if identifier not in self.sessions or (request.method == "PUT" and request.query.get("_state") != ["a/b="]):
            return _error(404, "upload unknown")
        self.sessions.discard(identifier)
        if request.method == "DELETE":
            return FakeReply(204)
        digest = request.query["digest"][0]
        if Digest.of(request.body, digest.partition(":")[0]) != Digest.parse(digest):
            return _error(400, "provided digest did not match uploaded content")
        self.blobs.setdefault(repository, {})[digest] = request.body
        return FakeReply(201, {"Docker-Content-Digest": digest})


def _wanted_scope(request: SeenRequest) -> str:
    if request.path == "/v2/_catalog":
        return "registry:catalog:*"
    match = _PATH.fullmatch(request.path)
    actions = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}.get(request.method, "pull,push")
    return f"repository:{match['repository']}:{actions}" if match else ""


def _covers(granted: tuple[str, ...] | None, wanted: str) -> bool:
    if granted is None:
        return False
    resource, _, actions = wanted.rpartition(":")
    held = {
        action
        for scope in granted
        if scope.rpartition(":")[0] == resource
        for action in scope.split(":")[-1].split(",")
    }
    return not wanted or set(actions.split(",")) <= held


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> FakeReply:
    return _json({"errors": [{"code": _CODES.get(status, "UNKNOWN"), "message": message}]}, headers, status)


def _json(document: object, headers: Mapping[str, str] | None = None, status: int = 200) -> FakeReply:
    return FakeReply(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(document).encode())
