"""Resolving what a group names into what its sites shall hold: digests, sizes, platforms, referrers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import InvalidInputError, RemoteError
from harbor_satellite.oci.descriptor import parse_manifest
from harbor_satellite.oci.platform import Platform
from harbor_satellite.registry.closure import Closure, FoundManifest, Walker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.state.artifact import StateEntry

_NOT_FOUND: Final = 404
# Where cosign before version 3 keeps signatures, attestations and SBOMs of a digest.
_COSIGN_TAG_SUFFIXES: Final = (".sig", ".att", ".sbom")


def resolve_tag(source: Registry, repository: str, tag: str) -> Digest:
    """Return the digest a tag names now.

    Raises:
        RemoteError: ``.status == 404`` if there is no such tag.
    """
    found = source.manifest_head(repository, tag)
    if found is None:
        raise RemoteError(f"{source.name}/{repository}:{tag} does not exist", status=_NOT_FOUND)
    return found.digest


def describe(source: Registry, entry: StateEntry) -> tuple[StateEntry, Closure]:
    """Fill in size, media type, platforms and referrers of an entry by walking it at the source.

    Raises:
        RemoteError: part of it is not there, or the source refused.
        UntrustedDataError: part of it is damaged.
    """

    def read(digest: Digest) -> FoundManifest:
        content = source.manifest_get(entry.repository, str(digest))
        what = f"{source.name}/{entry.repository}@{digest}"
        return FoundManifest(digest, content, parse_manifest(content.raw, content.media_type, what))

    walker = Walker(read, lambda digest: source.referrer_list(entry.repository, digest))
    closure = walker.walk(entry.digest, None)
    root = next(item for item in closure.manifests if item.digest == entry.digest)
    platforms = {child.platform for child in root.manifest.manifests if child.platform and _is_sayable(child.platform)}
    described = replace(
        entry,
        size=closure.size,
        media_type=root.manifest.media_type,
        platforms=tuple(sorted(platforms)),
        referrers=closure.referrers,
    )
    return described, closure


def _is_sayable(platform: Platform) -> bool:
    """Tell whether a platform survives being written into a state; an index may hold odd ones."""
    try:
        return Platform.parse(str(platform)) == platform
    except InvalidInputError:
        return False


def cosign_tags(source: Registry, repository: str, closures: Iterable[Closure]) -> tuple[str, ...]:
    """Return the tags in which older cosign keeps what belongs to the closures' manifests."""
    wanted = {
        f"{item.digest.algorithm}-{item.digest.hex}{suffix}"
        for closure in closures
        for item in closure.manifests
        for suffix in _COSIGN_TAG_SUFFIXES
    }
    return tuple(tag for tag in source.tag_list(repository) if tag in wanted)
