"""Referrers: reading their list, and keeping it where a registry does not.

What lives here: the referrers API's pages and the referrers tag of registries without that API (distribution-spec,
"Listing Referrers" and "Referrers Tag Schema"). What must not: HTTP; how to ask is handed in.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import httpx

from harbor_satellite.errors import MalformedStateError, RemoteError, SizeLimitError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import MANIFEST_MAX_BYTES, Descriptor, index_bytes, parse_manifest
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.client_errors import parse_complaint
from harbor_satellite.registry.client_listing import ListChangedError, pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.oci.descriptor import Manifest
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.client_api import Call, Reply

_REFERRERS_MAX: Final = 100_000
_LOCKS: Final = 64
# What registries answer at an address that they do not have.
_NO_API: Final = frozenset({httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED, httpx.codes.NOT_IMPLEMENTED})


def referrers_tag(subject: Digest) -> str:
    """Name the tag that lists the referrers of ``subject``; the spec cuts algorithm and hex to fit a tag."""
    return f"{subject.algorithm[:32]}-{subject.hex[:64]}"


class Referrers:
    """The lists of referrers at one registry; remembers whether it has the API. Safe to use from many threads.

    Args:
        send: sends a call to the referrers API.
        manifest_get: reads a manifest of a repository by tag.
        manifest_put: writes one.
    """

    def __init__(
        self,
        send: Callable[[Call], Reply],
        manifest_get: Callable[[str, str], ManifestContent],
        manifest_put: Callable[[str, str, ManifestContent], None],
    ) -> None:
        self._send = send
        self._manifest_get = manifest_get
        self._manifest_put = manifest_put
        self._is_api_absent = False
        # One of a fixed set for each subject: two referrers written at once must not lose each other.
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))

    def list(self, call: Call, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
        """Return the referrers of ``subject``, each once, in the registry's order; empty if there are none.

        Args:
            call: the request for the first page of the referrers API.
            repository: where the subject is.
            subject: its digest.

        Raises:
            RemoteError: the registry refuses or cannot be reached.
            UntrustedDataError: it sends something else than an image index.
        """
        if not self._is_api_absent:
            found = self._from_api(call)
            if found is not None:
                return found
        return self._from_tag(repository, subject)

    def add(self, repository: str, content: ManifestContent, manifest: Manifest, subject: Digest) -> None:
        """List a manifest under the referrers tag of its subject, unless it is there already.

        Raises:
            RemoteError: the registry refuses or cannot be reached.
            UntrustedDataError: the tag holds something else than an image index; it is left as it is.
        """
        referrer = Descriptor(
            media_type=content.media_type,
            digest=content.digest,
            size=len(content.raw),
            artifact_type=manifest.referrer_type,
            annotations=manifest.annotations,
        )
        with self._locks[hash((repository, subject)) % _LOCKS]:
            listed = self._from_tag(repository, subject)
            if any(known.digest == referrer.digest for known in listed):
                return
            index = ManifestContent(media_types.OCI_INDEX, index_bytes((*listed, referrer)))
            if len(index.raw) > MANIFEST_MAX_BYTES:
                raise SizeLimitError(f"referrers of {repository}@{subject}: no room for another in one manifest")
            self._manifest_put(repository, referrers_tag(subject), index)

    def _from_api(self, call: Call) -> tuple[Descriptor, ...] | None:
        reply = self._send(call)
        if reply.status in _NO_API:
            # A registry with the API answers 200 and an empty list; Harbor answers 404 with an error body for an
            # unknown repository, which says nothing about the API.
            self._is_api_absent = not parse_complaint(reply.body).code
            return None
        found: dict[Digest, Descriptor] = {}
        try:
            for page in pages(self._send, call, reply):
                index = _parse_index(page.body, page.headers.get("content-type", ""), call.what)
                found.update({one.digest: one for one in index})
                if len(found) > _REFERRERS_MAX:
                    raise SizeLimitError(f"{call.what}: more than {_REFERRERS_MAX} referrers")
        except ListChangedError as error:
            raise RemoteError(f"{call.what}: the list changed while it was read", retryable=True) from error
        return tuple(found.values())

    def _from_tag(self, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
        tag = referrers_tag(subject)
        try:
            content = self._manifest_get(repository, tag)
        except RemoteError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return ()
            raise
        return _parse_index(content.raw, content.media_type, f"{repository}:{tag}")


def _parse_index(raw: bytes, content_type: str, what: str) -> tuple[Descriptor, ...]:
    manifest = parse_manifest(raw, content_type, what)
    if not manifest.is_index:
        raise MalformedStateError(f"{what}: the list of referrers is not an image index")
    return manifest.manifests
