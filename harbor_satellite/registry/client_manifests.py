"""Manifests over HTTP (distribution-spec, "Pulling manifests", "Pushing Manifests").

What lives here: what is asked for a manifest and what the answers mean. What must not: blobs, sockets, tokens.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx

from harbor_satellite.errors import InvalidInputError, MalformedStateError, RemoteError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import MANIFEST_MAX_BYTES, Descriptor, parse_manifest
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.reference import reference_kind
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.auth import repository_scope
from harbor_satellite.registry.client_api import Call
from harbor_satellite.registry.client_errors import parse_complaint
from harbor_satellite.registry.client_headers import check_digest_header, content_length, digest_header
from harbor_satellite.registry.client_listing import PAGE_MAX_BYTES
from harbor_satellite.registry.client_referrers import Referrers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harbor_satellite.oci.descriptor import Manifest
    from harbor_satellite.registry.client_api import ApiTransport, Reply

_ACCEPT = {"Accept": media_types.ACCEPT_MANIFESTS}
_DELETED = frozenset({httpx.codes.ACCEPTED, httpx.codes.OK, httpx.codes.NO_CONTENT})


class Manifests:
    """The manifests of one registry; each method is that of ``Registry`` without its prefix.

    Args:
        api: how to ask the registry.
    """

    def __init__(self, api: ApiTransport) -> None:
        self._api = api
        self._referrers = Referrers(api.send, self.get, self.put)

    def head(self, repository: str, reference: str) -> Descriptor | None:
        """Return what a tag or digest names, or None if it is not there."""
        call = self._call("look up manifest", "HEAD", repository, reference, headers=_ACCEPT)
        reply = self._api.send(call)
        if reply.status == httpx.codes.NOT_FOUND:
            return None
        if reply.status not in (httpx.codes.OK, httpx.codes.METHOD_NOT_ALLOWED):
            raise reply.refused(call.what)
        if reply.status == httpx.codes.OK:
            described = _described(reply, reference, call.what)
            if described is not None:
                return described
        try:
            content = self.get(repository, reference)
        except RemoteError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise
        digest = Digest.parse(reference) if reference_kind(reference) == "digest" else content.digest
        return Descriptor(content.media_type, digest, len(content.raw))

    def get(self, repository: str, reference: str) -> ManifestContent:
        """Return a manifest's exact bytes; verified if ``reference`` is a digest."""
        call = self._call("pull manifest", "GET", repository, reference, headers=_ACCEPT, max_bytes=MANIFEST_MAX_BYTES)
        reply = self._api.send(call)
        if reply.status != httpx.codes.OK:
            raise reply.refused(call.what)
        if reference_kind(reference) == "digest":
            Digest.parse(reference).verify(reply.body, call.what)
        return ManifestContent(_media_type(reply), reply.body)

    def put(self, repository: str, reference: str, content: ManifestContent) -> None:
        """Store a manifest under a tag or its own digest; a ``subject`` gets its referrer listed."""
        headers = {"Content-Type": content.media_type}
        if not content.media_type.isascii() or not content.media_type.isprintable():
            raise InvalidInputError(f"not a media type: {content.media_type[:120]!r}")
        call = self._call(
            "push manifest", "PUT", repository, reference, actions="pull,push", headers=headers, content=content.raw
        )
        if reference_kind(reference) == "digest":
            Digest.parse(reference).verify(content.raw, call.what)
        reply = self._api.send(call)
        if reply.status != httpx.codes.CREATED:
            raise reply.refused(call.what)
        check_digest_header(reply.headers, content.digest, call.what)
        manifest = _readable(content, call.what)
        if manifest and manifest.subject and "oci-subject" not in reply.headers:
            # distribution-spec, "Pushing Manifests with Subject": no OCI-Subject means the client keeps the list.
            self._referrers.add(repository, content, manifest, manifest.subject.digest)

    def delete(self, repository: str, reference: str) -> bool:
        """Delete a tag, or a manifest by digest with every tag on it; False if it was not there."""
        call = self._call("delete manifest", "DELETE", repository, reference, actions="delete")
        return was_deleted(self._api.send(call), call.what)

    def referrers(self, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
        """Return the manifests whose ``subject`` is this digest; falls back to the referrers tag."""
        call = Call(
            f"list referrers of {self._api.address.name}/{repository}@{subject}",
            "GET",
            self._api.url(repository, f"referrers/{subject}"),
            frozenset({repository_scope(repository, "pull")}),
            headers={"Accept": media_types.OCI_INDEX},
            max_bytes=PAGE_MAX_BYTES,
        )
        return self._referrers.list(call, repository, subject)

    def _call(
        self,
        verb: str,
        method: str,
        repository: str,
        reference: str,
        *,
        actions: str = "pull",
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        max_bytes: int = PAGE_MAX_BYTES,
    ) -> Call:
        mark = "@" if reference_kind(reference) == "digest" else ":"
        return Call(
            f"{verb} {self._api.address.name}/{repository}{mark}{reference}",
            method,
            self._api.url(repository, f"manifests/{reference}"),
            frozenset({repository_scope(repository, actions)}),
            headers=headers or {},
            content=content,
            max_bytes=max_bytes,
        )


def was_deleted(reply: Reply, what: str) -> bool:
    """Read the answer to a DELETE: True if done, False if there was nothing to delete.

    Raises:
        RemoteError: the registry refuses.
    """
    if reply.status in _DELETED:
        return True
    if reply.status == httpx.codes.NOT_FOUND:
        return False
    complaint = parse_complaint(reply.body)
    if reply.status == httpx.codes.METHOD_NOT_ALLOWED or complaint.code == "UNSUPPORTED":
        reason = f" ({complaint})" if str(complaint) else ""
        raise RemoteError(f"{what}: this registry does not allow to delete it{reason}", status=reply.status)
    raise reply.refused(what)


def _described(reply: Reply, reference: str, what: str) -> Descriptor | None:
    """Read a HEAD's headers; None if they do not say everything."""
    media_type = _essence(reply)
    size = content_length(reply.headers, -1)
    digest = digest_header(reply.headers)
    if reference_kind(reference) == "digest":
        asked = Digest.parse(reference)
        check_digest_header(reply.headers, asked, what)
        digest = asked
    if digest is None or size <= 0 or media_type not in media_types.MANIFESTS:
        return None
    return Descriptor(media_type, digest, size)


def _essence(reply: Reply) -> str:
    return (reply.headers.get("content-type") or "").partition(";")[0].strip()


def _media_type(reply: Reply) -> str:
    """Choose the kind of a manifest: the header's if it names one, else what the manifest says of itself."""
    essence = _essence(reply)
    if essence in media_types.MANIFESTS:
        return essence
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        return essence
    inside = document.get("mediaType") if isinstance(document, dict) else None
    return inside if isinstance(inside, str) and inside else essence


def _readable(content: ManifestContent, what: str) -> Manifest | None:
    try:
        return parse_manifest(content.raw, content.media_type, what)
    except MalformedStateError:
        # The registry took it; a kind that we cannot read has no subject that we could list.
        return None
