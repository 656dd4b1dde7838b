"""Who holds content in a registry: every manifest that can be found in it, with its tags, whoever put it there."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harbor_satellite.errors import HarborSatelliteError
from harbor_satellite.oci.descriptor import parse_manifest
from harbor_satellite.satellite.healing_journal import HeldManifest

if TYPE_CHECKING:
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import Registry

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What one manifest names; the manifest itself is not kept, since a registry may hold very many."""

    blobs: frozenset[Digest]
    children: frozenset[Digest]


@dataclass
class Holders:
    """All manifests of one registry that a tag, an index, a referrer or a record leads to; each is read once.

    Args:
        target: the registry.
        known: content that is there by digest alone, as the satellite's records say.
    """

    target: Registry
    known: tuple[tuple[str, Digest], ...] = ()
    _parts: dict[tuple[str, Digest], _Parts] = field(default_factory=dict)
    _tagged: dict[str, defaultdict[Digest, set[str]]] = field(default_factory=dict)
    _repositories: tuple[str, ...] = ()

    @property
    def repositories(self) -> tuple[str, ...]:
        """Every repository of the registry, as far as it tells, and of the records."""
        if not self._repositories:
            named = {repository for repository, _ in self.known}
            self._repositories = tuple(sorted(named.union(self.target.repository_list())))
        return self._repositories

    def look_again(self) -> None:
        """Forget what tags name: others may have moved them meanwhile."""
        self._tagged.clear()
        self._repositories = ()

    def of(self, digest: Digest) -> tuple[HeldManifest, ...]:
        """Return every manifest that needs this content, or leads to it, with its tags; children before indexes.

        Raises:
            RemoteError: the registry cannot be reached.
        """
        held: list[HeldManifest] = []
        for repository in self.repositories:
            for each in _users(digest, self._found(repository)):
                content = self.target.manifest_get(repository, str(each))
                held.append(HeldManifest(repository, each, content, self.tags_of(repository, each)))
        return tuple(held)

    def tags_of(self, repository: str, digest: Digest) -> tuple[str, ...]:
        """Return the tags that name a digest."""
        return tuple(sorted(self._tags(repository)[digest]))

    def _tags(self, repository: str) -> defaultdict[Digest, set[str]]:
        if repository in self._tagged:
            return self._tagged[repository]
        tags: defaultdict[Digest, set[str]] = defaultdict(set)
        for tag in self.target.tag_list(repository):
            try:
                found = self.target.manifest_head(repository, tag)
            except HarborSatelliteError as error:  # damaged: then it cannot be deleted either
                _LOG.warning("tag not read reference=%s:%s reason=%s", repository, tag, error)
                continue
            if found is not None:
                tags[found.digest].add(tag)
        self._tagged[repository] = tags
        return tags

    def _found(self, repository: str) -> dict[Digest, _Parts]:
        pending = [*self._tags(repository), *(digest for each, digest in self.known if each == repository)]
        found: dict[Digest, _Parts] = {}
        while pending:
            digest = pending.pop()
            if digest in found:
                continue
            parts = self._read(repository, digest)
            if parts is not None:
                found[digest] = parts
                pending.extend(parts.children)
                pending.extend(self._referrers(repository, digest))
        return found

    def _read(self, repository: str, digest: Digest) -> _Parts | None:
        key = (repository, digest)
        if key not in self._parts:
            try:
                content = self.target.manifest_get(repository, str(digest))
                manifest = parse_manifest(content.raw, content.media_type, f"{repository}@{digest}")
            except HarborSatelliteError as error:  # absent children of a sparse index, damaged ones
                _LOG.debug("not read reference=%s@%s reason=%s", repository, digest, error)
                return None
            blobs = frozenset(blob.digest for blob in manifest.blobs)
            self._parts[key] = _Parts(blobs, frozenset(child.digest for child in manifest.manifests))
        return self._parts[key]

    def _referrers(self, repository: str, digest: Digest) -> tuple[Digest, ...]:
        try:
            return tuple(item.digest for item in self.target.referrer_list(repository, digest))
        except HarborSatelliteError:
            return ()


def _users(digest: Digest, found: dict[Digest, _Parts]) -> list[Digest]:
    """Return the manifests that need some content and all indexes above them, children first."""
    users: list[Digest] = []
    wave = {digest}
    while wave:
        wave = {each for each, parts in found.items() if not wave.isdisjoint(parts.blobs | parts.children)}
        # An index above two users is met twice: its last place is the one behind both.
        users = [each for each in users if each not in wave] + sorted(wave)
    return users
