"""What the site's own registry should hold for this satellite: every manifest read, every blob that they name.

Reads manifests only, all of them each time: they are small, and one that is damaged hides what lies below it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import DigestMismatchError, HarborSatelliteError, MalformedStateError, RemoteError
from harbor_satellite.oci.descriptor import Manifest, parse_manifest
from harbor_satellite.oci.media_types import is_nondistributable
from harbor_satellite.registry.closure import MANIFEST_LIMIT, is_wanted
from harbor_satellite.satellite.findings import Damage, Finding
from harbor_satellite.satellite.generations import load_generations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.registry.api import ManifestContent, Registry
    from harbor_satellite.satellite.store import SatelliteStore
    from harbor_satellite.state.desired import LocalTag

_LOG = logging.getLogger(__name__)
_NOT_FOUND: Final = 404
BROKEN: Final = 500
"""How registries answer for content that they have and cannot make sense of."""


@dataclass(frozen=True, slots=True)
class Root:
    """One artifact that the satellite put at the site, under one of its names."""

    name: LocalTag
    digest: Digest
    platforms: tuple[Platform, ...] = ()
    """Children of an index that were brought; empty: all."""
    is_tagged: bool = True
    """Whether its tag should name it now."""
    is_own: bool = True
    """False: wanted, and put there by somebody else; if it is not there at all, replication sees to it."""


@dataclass
class BlobUse:
    """One blob, and who needs it where."""

    size: int
    is_optional: bool = False
    """Its licence may keep it elsewhere."""
    images: defaultdict[str, set[LocalTag]] = field(default_factory=lambda: defaultdict(set))
    """Names that need it, by the repository in which they do."""


@dataclass
class Inventory:
    """What should be there, and what of it is not."""

    manifests_read: int = 0
    bytes_read: int = 0
    blobs: dict[Digest, BlobUse] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def roots_of(store: SatelliteStore, site_platforms: tuple[Platform, ...] = ()) -> tuple[Root, ...]:
    """Return every artifact that this satellite put at the site: what stands, and the generation before.

    Args:
        store: the satellite's records.
        site_platforms: for names of which no platforms are on record although the site chooses some.
    """
    applied, generations = store.applied(), load_generations(store)
    current = generations.current.names if generations.current else {}
    roots: dict[tuple[LocalTag, Digest], Root] = {}
    for name, digests in applied.owned.items():
        # Two digests: stopped while its tag moved. Only the one it should have is known to be whole.
        standing = next(iter(digests)) if len(digests) == 1 else applied.wanted.get(name)
        if standing not in digests or standing is None:
            continue
        is_tagged = not name.is_digest and (name in applied.wanted or name in current)
        platforms = applied.platforms.get(name, site_platforms)
        roots[name, standing] = Root(name, standing, platforms, is_tagged)
    for name, digest in applied.wanted.items():
        if name not in applied.owned:
            platforms = applied.platforms.get(name, site_platforms)
            roots[name, digest] = Root(name, digest, platforms, is_tagged=False, is_own=False)
    for generation in (generations.current, generations.previous):
        for name, digest in (generation.digests() if generation else {}).items():
            if (name.repository, digest) in generations.pins and (name, digest) not in roots:
                roots[name, digest] = Root(name, digest, applied.platforms.get(name, site_platforms), is_tagged=False)
    return tuple(roots[key] for key in sorted(roots))


def take_inventory(target: Registry, roots: tuple[Root, ...]) -> Inventory:
    """Read every manifest of the roots and of what refers to them, and list the blobs that they need.

    Args:
        target: the local registry; only read.
        roots: what should be there.

    Raises:
        RemoteError: the registry cannot be reached.
    """
    return _Walk(target).take(roots)


def read_manifest(target: Registry, repository: str, digest: Digest) -> ManifestContent | Damage:
    """Read one manifest of the local registry, verified; or say what is wrong with it.

    Raises:
        RemoteError: the registry cannot be reached, or refuses for a reason that is not this manifest's.
    """
    try:
        return target.manifest_get(repository, str(digest))
    except DigestMismatchError:
        return Damage.WRONG_BYTES
    except RemoteError as error:
        if error.status == _NOT_FOUND:
            return Damage.MISSING
        if error.status == BROKEN:
            return Damage.UNREADABLE
        raise


class _Walk:
    """One pass over all roots; each manifest is read once, whatever number of names lead to it."""

    def __init__(self, target: Registry) -> None:
        self._target = target
        self._inventory = Inventory()
        self._manifests: dict[tuple[str, Digest], Manifest | Damage] = {}
        self._referrers: dict[tuple[str, Digest], tuple[Digest, ...]] = {}
        self._damaged: defaultdict[tuple[str, Digest], set[LocalTag]] = defaultdict(set)

    def take(self, roots: tuple[Root, ...]) -> Inventory:
        for root in roots:
            if not root.is_own and self._manifest(root.name.repository, root.digest) is Damage.MISSING:
                continue
            for digest, manifest in self._tree(root):
                if isinstance(manifest, Damage):
                    self._damaged[root.name.repository, digest].add(root.name)
                    continue
                for blob in manifest.blobs:
                    use = self._inventory.blobs.setdefault(blob.digest, BlobUse(blob.size))
                    use.is_optional |= is_nondistributable(blob.media_type)
                    use.images[root.name.repository].add(root.name)
            self._check_tag(root)
        for (repository, digest), names in sorted(self._damaged.items()):
            damage = self._manifests[repository, digest]
            if isinstance(damage, Damage):
                images = tuple(sorted(names))
                self._inventory.findings.append(Finding("manifest", damage, digest, 0, (repository,), images))
        return self._inventory

    def _tree(self, root: Root) -> Iterator[tuple[Digest, Manifest | Damage]]:
        repository, pending = root.name.repository, [root.digest]
        seen: set[Digest] = set()
        while pending:
            digest = pending.pop()
            if digest in seen:
                continue
            seen.add(digest)
            if len(seen) > MANIFEST_LIMIT:
                _LOG.warning("more manifests than any image has reference=%s digest=%s", root.name, root.digest)
                return
            manifest = self._manifest(repository, digest)
            yield digest, manifest
            if not isinstance(manifest, Damage):
                pending.extend(child.digest for child in manifest.manifests if is_wanted(child, root.platforms))
            pending.extend(self._referrers_of(repository, digest))

    def _manifest(self, repository: str, digest: Digest) -> Manifest | Damage:
        key = (repository, digest)
        if key not in self._manifests:
            content = read_manifest(self._target, repository, digest)
            if isinstance(content, Damage):
                self._manifests[key] = content
            else:
                self._inventory.manifests_read += 1
                self._inventory.bytes_read += len(content.raw)
                self._manifests[key] = _parsed(content, f"{repository}@{digest}")
        return self._manifests[key]

    def _referrers_of(self, repository: str, digest: Digest) -> tuple[Digest, ...]:
        key = (repository, digest)
        if key not in self._referrers:
            try:
                found = self._target.referrer_list(repository, digest)
            except HarborSatelliteError as error:  # what cannot be listed cannot be looked at
                _LOG.warning("referrers not listed reference=%s@%s reason=%s", repository, digest, error)
                found = ()
            self._referrers[key] = tuple(item.digest for item in found)
        return self._referrers[key]

    def _check_tag(self, root: Root) -> None:
        if not root.is_tagged or isinstance(self._manifests[root.name.repository, root.digest], Damage):
            return
        try:
            found = self._target.manifest_head(root.name.repository, root.name.tag)
        except RemoteError as error:
            if error.status == BROKEN:
                return  # it names something else, which is damaged and nobody's business here
            raise
        if found is None or found.digest != root.digest:
            damage = Damage.TAG_GONE if found is None else Damage.TAG_MOVED
            where, images = (root.name.repository,), (root.name,)
            note = f"it names {found.digest}" if found else ""
            self._inventory.findings.append(Finding("tag", damage, root.digest, 0, where, images, note=note))


def _parsed(content: ManifestContent, what: str) -> Manifest:
    try:
        return parse_manifest(content.raw, content.media_type, what)
    except MalformedStateError as error:  # the bytes are the right ones: it was published like this
        _LOG.warning("not looked into reference=%s reason=%s", what, error)
        return Manifest("")
