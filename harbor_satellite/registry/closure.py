"""Closures: everything one reference needs, found by walking manifests, in the order it may be stored."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from harbor_satellite.errors import InvalidInputError, SizeLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from harbor_satellite.oci.descriptor import Descriptor, Manifest
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.registry.api import ManifestContent

_T = TypeVar("_T")
MANIFEST_LIMIT: Final = 4096
"""Manifests in one closure; a deeper or wider one is not an image but an attack."""
DEPTH_LIMIT: Final = 16
"""Indexes within indexes; images have one."""
BYTES_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of all manifests of one closure, which are held in memory."""
WORKERS: Final = 8
"""Manifests of one closure read at once: on a slow link their round trips are all there is."""


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
    """Reads and verifies one manifest; called from several threads, as is ``referrers_of``."""
    referrers_of: Callable[[Digest], tuple[Descriptor, ...]]
    """Asks the source who refers to a manifest."""
    platforms: tuple[Platform, ...] = ()
    """Children of an index to follow; empty: all of them."""

    def walk(self, root: Digest, referrers: tuple[Digest, ...] | None) -> Closure:
        """Find everything the root needs; siblings are read side by side.

        Args:
            root: a manifest or an index.
            referrers: what belongs to it besides; None: ask for the referrers of every manifest, and of
                those referrers (the signature of an SBOM).

        Raises:
            SizeLimitError: it leads to more manifests than any image has.
        """
        seen: dict[Digest, FoundManifest] = {}
        with ThreadPoolExecutor(WORKERS, "walk") as pool:
            own = self._fetch([root], seen, pool)
            roots = [root]
            if referrers is None:
                fresh = own
                while fresh:
                    answers = [item.digest for found in _each(self.referrers_of, fresh, pool) for item in found]
                    roots.extend(answers)
                    fresh = self._fetch(answers, seen, pool)
            else:
                roots.extend(referrers)
                self._fetch(referrers, seen, pool)
        found = seen.keys() - set(own) if referrers is None else referrers
        order: dict[Digest, FoundManifest] = {}
        for digest in roots:
            self._place(digest, seen, order)
        return Closure(root, tuple(order.values()), tuple(sorted(found)), self._absent(seen))

    def _fetch(
        self, digests: Iterable[Digest], seen: dict[Digest, FoundManifest], pool: ThreadPoolExecutor
    ) -> list[Digest]:
        """Read what these digests lead to, level by level, and return what is new."""
        taken: list[Digest] = []
        level = list(dict.fromkeys(digest for digest in digests if digest not in seen))
        for _ in range(DEPTH_LIMIT + 1):
            _check_limits(level, seen)
            # A few at once: what a hostile index makes us hold is looked at before more is read.
            for start in range(0, len(level), WORKERS):
                for item in _each(self.read, level[start : start + WORKERS], pool):
                    seen[item.digest] = item
                    self._check_offer(item)
                _check_limits(level[start + WORKERS :], seen)
            taken.extend(level)
            children = (child.digest for digest in level for child in self._wanted(seen[digest]))
            level = list(dict.fromkeys(digest for digest in children if digest not in seen))
            if not level:
                return taken
        raise SizeLimitError(f"{level[0]} stands in more than {DEPTH_LIMIT} indexes within each other")

    def _check_offer(self, item: FoundManifest) -> None:
        """Refuse an index that has nothing for any wanted platform: what would be published could not be pulled."""
        offered = sorted({str(child.platform) for child in item.manifest.manifests if child.platform})
        if self.platforms and offered and not any(self._wanted(item)):
            wanted = ", ".join(map(str, self.platforms))
            raise InvalidInputError(f"{item.digest} has nothing for {wanted}; it has {', '.join(offered)[:300]}")

    def _place(self, digest: Digest, seen: dict[Digest, FoundManifest], order: dict[Digest, FoundManifest]) -> None:
        if digest not in order:
            for child in self._wanted(seen[digest]):
                self._place(child.digest, seen, order)
            order[digest] = seen[digest]

    def _wanted(self, item: FoundManifest) -> Iterator[Descriptor]:
        return (child for child in item.manifest.manifests if is_wanted(child, self.platforms))

    def _absent(self, seen: dict[Digest, FoundManifest]) -> tuple[Descriptor, ...]:
        children = (child for item in seen.values() for child in item.manifest.manifests)
        return tuple({child.digest: child for child in children if child.digest not in seen}.values())


def _each(work: Callable[[Digest], _T], digests: list[Digest], pool: ThreadPoolExecutor) -> Iterable[_T]:
    return pool.map(work, digests) if len(digests) > 1 else map(work, digests)


def _check_limits(coming: list[Digest], seen: Mapping[Digest, FoundManifest]) -> None:
    size = sum(len(item.content.raw) for item in seen.values())
    if len(seen) + len(coming) > MANIFEST_LIMIT or size > BYTES_LIMIT:
        raise SizeLimitError(
            f"one artifact leads to more than {MANIFEST_LIMIT} manifests or {BYTES_LIMIT} bytes of them"
        )


def is_wanted(child: Descriptor, platforms: tuple[Platform, ...]) -> bool:
    """Tell whether a platform filter (empty: none) lets a child of an index through; one without platform passes."""
    if not platforms or child.platform is None:
        return True
    return any(platform.covers(child.platform) for platform in platforms)
