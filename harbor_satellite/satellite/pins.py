"""Tags of our own that keep content at the local registry which no other tag names; and taking tags away."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError, RemoteError, UntrustedDataError
from harbor_satellite.oci.descriptor import parse_manifest
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.copy import publish_tags

if TYPE_CHECKING:
    from collections.abc import Collection

    from harbor_satellite.registry.api import Registry
    from harbor_satellite.state.desired import LocalTag

_LOG = logging.getLogger(__name__)
_PREFIX: Final = "satellite-pin-"
_NO_CONTENT: Final = frozenset({400, 404})
"""How a registry answers that no longer has a manifest, or not all that it needs."""
_NO_TAG_DELETION: Final = frozenset({400, 405, 501})
"""How a registry answers that deletes manifests by digest only (distribution-spec, "Deleting tags")."""


def pin_tag(digest: Digest) -> str:
    """Return the tag that keeps an artifact without one from a registry's garbage collection."""
    return f"{_PREFIX}{digest.hex[:40]}"


def tag_of(name: LocalTag) -> str:
    """Return the tag that holds a name at the registry: its own, or the pin of what has none."""
    return pin_tag(Digest.parse(name.tag)) if name.is_digest else name.tag


def put_pins(target: Registry, contents: Collection[tuple[str, Digest]]) -> None:
    """Pin content by repository and digest; what is gone or damaged already cannot be pinned, and is no reason to stop.

    Raises:
        HarborSatelliteError: the registry cannot pin what may well be there: then no tag may be moved off it.
    """
    for repository, digest in sorted(contents):
        try:
            found = target.manifest_head(repository, pin_tag(digest))
            if found is None or found.digest != digest:
                publish_tags(target, repository, digest, (pin_tag(digest),))
        except HarborSatelliteError as error:
            if not _is_about_content(error):
                raise
            _LOG.warning("not pinned reference=%s@%s reason=%s", repository, digest, error)


def _is_about_content(error: HarborSatelliteError) -> bool:
    """Tell whether it is the content that cannot be pinned (gone, damaged), and not the registry that will not."""
    return isinstance(error, UntrustedDataError) or (isinstance(error, RemoteError) and error.status in _NO_CONTENT)


def drop_pins(target: Registry, contents: Collection[tuple[str, Digest]]) -> frozenset[tuple[str, Digest]]:
    """Take pins away.

    Returns:
        Those that could not be taken away, to be tried again.
    """
    left = set()
    for repository, digest in sorted(contents):
        try:
            target.manifest_delete(repository, pin_tag(digest))
        except HarborSatelliteError as error:
            # Never the manifest itself, where a registry deletes nothing else: an index may need it.
            _LOG.warning("pin not dropped reference=%s@%s reason=%s", repository, digest, error)
            left.add((repository, digest))
    return frozenset(left)


def delete_tag(target: Registry, repository: str, tag: str, digest: Digest, *, is_pinned: bool) -> bool:
    """Delete a tag; where the registry cannot, its manifest, unless another tag needs it.

    Args:
        target: the local registry.
        repository: of the tag.
        tag: to be deleted.
        digest: what it names.
        is_pinned: whether our own pin of that content is still needed.

    Returns:
        False if the tag had to stay, because this registry deletes manifests only and another tag needs this one.
    """
    try:
        target.manifest_delete(repository, tag)
    except RemoteError as error:
        if error.status not in _NO_TAG_DELETION:
            raise
        besides = {tag} if is_pinned else {tag, pin_tag(digest)}
        if is_needed(target, repository, digest, besides):
            return False
        target.manifest_delete(repository, str(digest))
    return True


def is_needed(target: Registry, repository: str, digest: Digest, besides: Collection[str]) -> bool:
    """Tell whether any other tag of the repository names the manifest, or an index that lists it."""
    for tag in target.tag_list(repository):
        if tag in besides:
            continue
        content = target.manifest_get(repository, tag)
        manifest = parse_manifest(content.raw, content.media_type, f"{repository}:{tag}")
        if digest in {content.digest, *(child.digest for child in manifest.manifests)}:
            return True
    return False
