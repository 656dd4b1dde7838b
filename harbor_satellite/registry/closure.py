"""Closures: everything one reference needs, found by walking manifests, in the order it may be stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import SizeLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harbor_satellite.oci.descriptor import Descriptor, Manifest
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.registry.api import ManifestContent

MANIFEST_LIMIT: Final = 4096
"""Manifests in one closure; a deeper or wider one is not an image but an attack."""
DEPTH_LIMIT: Final = 16
"""Indexes within indexes; images have one."""
BYTES_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of all manifests of one closure, which are held in memory."""


@dataclass(frozen=True, slots=True)
class FoundManifest:
    """One manifest of a closure with its exact bytes."""

    digest: Digest
    content: ManifestContent
    manifest: Manifest
    is_local: bool = False
    """Whether the copy's target already had it, so that no byte of it crossed the WAN."""


@dataclass(frozen=True, slots=True)
class Closure:
    """Everything one reference needs, in the order in which it may be stored."""

    root: Digest
    manifests: tuple[FoundManifest, ...]
    """Children before their index, subjects before their referrers."""
    referrers: tuple[Digest, ...]
    """Those manifests that belong to it as referrers, sorted."""
    absent: tuple[Descriptor, ...] = ()
    """Children of indexes that the platform filter left out."""

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob of every manifest, each digest once."""
        return tuple({blob.digest: blob for item in self.manifests for blob in item.manifest.blobs}.values())

    @property
    def size(self) -> int:
        """Bytes of all blobs and manifests, each once."""
        return sum(blob.size for blob in self.blobs) + sum(len(item.content.raw) for item in self.manifests)


@dataclass(frozen=True, slots=True)
class Walker:
    """Walks manifests from a root."""

    read: Callable[[Digest], FoundManifest]
    """Reads and verifies one manifest."""
    referrers_of: Callable[[Digest], tuple[Descriptor, ...]]
    """Asks the source who refers to a manifest."""
    platforms: tuple[Platform, ...] = ()
    """Children of an index to follow; empty: all of them."""

    def walk(self, root: Digest, referrers: tuple[Digest, ...] | None) -> Closure:
        """Find everything the root needs.

        Args:
            root: a manifest or an index.
            referrers: what belongs to it besides; None: ask for the referrers of every manifest, and of
                those referrers (the signature of an SBOM).

        Raises:
            SizeLimitError: it leads to more manifests than any image has.
        """
        seen: dict[Digest, FoundManifest] = {}
        self._take(root, seen)
        own = frozenset(seen)
        if referrers is None:
            queue = list(seen)
            while queue:
                for descriptor in self.referrers_of(queue.pop()):
                    queue.extend(self._take(descriptor.digest, seen))
        else:
            for referrer in referrers:
                self._take(referrer, seen)
        found = seen.keys() - own if referrers is None else referrers
        return Closure(root, tuple(seen.values()), tuple(sorted(found)), self._absent(seen))

    def _take(self, digest: Digest, seen: dict[Digest, FoundManifest]) -> list[Digest]:
        taken = []
        size = sum(len(item.content.raw) for item in seen.values())
        for item in self._tree(digest, seen, 0):
            size += len(item.content.raw)
            if len(seen) >= MANIFEST_LIMIT or size > BYTES_LIMIT:
                raise SizeLimitError(
                    f"{digest} leads to more than {MANIFEST_LIMIT} manifests or {BYTES_LIMIT} bytes of them"
                )
            seen[item.digest] = item
            taken.append(item.digest)
        return taken

    def _tree(self, digest: Digest, seen: dict[Digest, FoundManifest], depth: int) -> Iterator[FoundManifest]:
        if digest in seen:
            return
        if depth > DEPTH_LIMIT:
            raise SizeLimitError(f"{digest} stands in more than {DEPTH_LIMIT} indexes within each other")
        item = self.read(digest)
        for child in item.manifest.manifests:
            if is_wanted(child, self.platforms):
                yield from self._tree(child.digest, seen, depth + 1)
        yield item

    def _absent(self, seen: dict[Digest, FoundManifest]) -> tuple[Descriptor, ...]:
        children = (child for item in seen.values() for child in item.manifest.manifests)
        return tuple({child.digest: child for child in children if child.digest not in seen}.values())


def is_wanted(child: Descriptor, platforms: tuple[Platform, ...]) -> bool:
    """Tell whether a platform filter (empty: none) lets a child of an index through; one without platform passes."""
    if not platforms or child.platform is None:
        return True
    return any(platform.covers(child.platform) for platform in platforms)
