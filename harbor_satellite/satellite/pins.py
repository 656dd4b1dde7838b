"""Tags of our own that keep content at the local registry which no other tag names; and taking tags away."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError, RemoteError
from harbor_satellite.registry.copy import publish_tags

if TYPE_CHECKING:
    from collections.abc import Collection

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import Registry

_LOG = logging.getLogger(__name__)
_PREFIX: Final = "satellite-pin-"
_NO_TAG_DELETION: Final = frozenset({400, 405, 501})
"""How a registry answers that deletes manifests by digest only (distribution-spec, "Deleting tags")."""


def pin_tag(digest: Digest) -> str:
    """Return the tag that keeps an artifact without one from a registry's garbage collection."""
    return f"{_PREFIX}{digest.hex[:40]}"


def put_pins(target: Registry, contents: Collection[tuple[str, Digest]]) -> None:
    """Pin content by repository and digest; what is gone already cannot be pinned, and is no reason to stop."""
    for repository, digest in sorted(contents):
        try:
            publish_tags(target, repository, digest, (pin_tag(digest),))
        except HarborSatelliteError as error:
            _LOG.warning("not pinned reference=%s@%s reason=%s", repository, digest, error)


def drop_pins(target: Registry, contents: Collection[tuple[str, Digest]]) -> frozenset[tuple[str, Digest]]:
    """Take pins away.

    Returns:
        Those that could not be taken away, to be tried again.
    """
    left = set()
    for repository, digest in sorted(contents):
        try:
            if not delete_tag(target, repository, pin_tag(digest), digest):
                left.add((repository, digest))
        except HarborSatelliteError as error:
            _LOG.warning("pin not dropped reference=%s@%s reason=%s", repository, digest, error)
            left.add((repository, digest))
    return frozenset(left)


def delete_tag(target: Registry, repository: str, tag: str, digest: Digest) -> bool:
    """Delete a tag; where the registry cannot, its manifest, unless another tag needs it.

    Returns:
        False if the tag had to stay, because this registry deletes manifests only and another tag needs this one.
    """
    try:
        target.manifest_delete(repository, tag)
    except RemoteError as error:
        if error.status not in _NO_TAG_DELETION:
            raise
        if is_tagged(target, repository, digest, besides=tag):
            return False
        target.manifest_delete(repository, str(digest))
    return True


def is_tagged(target: Registry, repository: str, digest: Digest, besides: str = "") -> bool:
    """Tell whether any (other) tag of the repository names the digest."""
    for tag in target.tag_list(repository):
        found = target.manifest_head(repository, tag) if tag != besides else None
        if found is not None and found.digest == digest:
            return True
    return False
