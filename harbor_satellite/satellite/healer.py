"""Healing what an audit found damaged: good bytes first, then the least that the registry needs to take them.

An upload over the damaged copy is tried first: it heals whatever the registry itself knows to be missing or short, and
everything in the embedded registry. Zot believes a copy of the right size: there every manifest that needs the blob is
deleted, in every repository, then the blob, and all of it is put back, tags last. The upload is under way by then and
only its last piece is held back, so that images are away for as long as these few local requests take. A registry that
keeps one copy for all and never writes it again (CNCF distribution) cannot be healed through its API, and is told so.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from harbor_satellite.errors import HarborSatelliteError, RemoteError
from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.registry.copy import is_complete, publish_tags
from harbor_satellite.satellite.audit import Pace, look_at_blob
from harbor_satellite.satellite.findings import Damage, Finding
from harbor_satellite.satellite.generations import load_generations
from harbor_satellite.satellite.good_bytes import GoodBytes, chunks_of
from harbor_satellite.satellite.healing_journal import HeldManifest, Journal, load_journal
from harbor_satellite.satellite.holders import Holders
from harbor_satellite.satellite.inventory import read_manifest, roots_of
from harbor_satellite.satellite.pins import pin_tag
from harbor_satellite.satellite.replacing import Replacement
from harbor_satellite.state.desired import LocalTag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.registry.api import ManifestContent, Registry
    from harbor_satellite.satellite.inventory import Root
    from harbor_satellite.satellite.store import SatelliteStore

_LOG = logging.getLogger(__name__)
_INCOMPLETE: Final = frozenset({400, 404})
"""How a registry refuses a manifest whose content is not all there."""
_OVERWRITTEN: Final = "uploaded again"
_REPLACED: Final = "taken away with all that needs it, and put back"
_KEEPS: Final = (
    "this registry keeps its damaged copy: remove the file of this digest under the registry's own folder, "
    "restart it, and audit again"
)


@dataclass
class Healer:
    """Heals one site; whoever uses it holds the site's lock.

    Args:
        target: the local registry.
        store: the satellite's records, and the journal.
        good: where good bytes come from.
        platforms: the site's own choice, for names of which none are on record.
    """

    target: Registry
    store: SatelliteStore
    good: GoodBytes
    platforms: tuple[Platform, ...] = ()
    _held: Holders | None = field(default=None, init=False)
    _root: tuple[Root, ...] | None = field(default=None, init=False)

    def heal(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """Heal what can be healed; one that cannot does not stop the others.

        Findings that time has settled (healed since, or of content that the site holds no longer) are left out.

        Args:
            findings: of an audit of this site.

        Returns:
            Each finding with what became of it: manifests before blobs, so that all who need a blob can be read.
        """
        order = {"manifest": 0, "blob": 1, "tag": 2}
        healed = []
        for finding in sorted(findings, key=lambda item: order[item.subject]):
            try:
                still = self._still_damaged(finding)
                if still is None:
                    continue
                outcome = self._heal(still)
            except HarborSatelliteError as error:
                outcome = finding.left(f"{type(error).__name__}: {error}")
            log = _LOG.info if outcome.is_healed else _LOG.warning
            log("%s %s note=%s", "healed" if outcome.is_healed else "not healed", outcome, outcome.note)
            healed.append(outcome)
        return tuple(healed)

    def heal_all(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """Finish what was interrupted, heal, and give the disk back; errors are in the findings."""
        try:
            finished = self.finish()
        except HarborSatelliteError as error:
            _LOG.warning("interrupted healing not finished reason=%s", error)
            return tuple(finding.left(f"an interrupted healing comes first: {error}") for finding in findings)
        healed = self.heal(findings)
        if all(finding.is_healed for finding in healed):
            self.good.forget_all()
        return (*((finished,) if finished else ()), *healed)

    def finish(self) -> Finding | None:
        """Finish the healing that was killed half-way; None if there is none.

        Raises:
            HarborSatelliteError: why it cannot be finished now; what was taken away is still on record.
        """
        journal = load_journal(self.store)
        if journal is None:
            return None
        _LOG.warning("finishing a healing digest=%s repositories=%s", journal.digest, ",".join(journal.repositories))
        journal = replace(journal, manifests=tuple(self._still_wanted(held) for held in journal.manifests))
        images = tuple(root.name for root in self._roots() if root.name.repository in journal.repositories)
        subject: Literal["manifest", "blob"] = "manifest" if journal.blob_size is None else "blob"
        finding = Finding(subject, Damage.MISSING, journal.digest, journal.blob_size or 0, journal.repositories, images)
        replacement = Replacement(self.target, self.store, journal, self._holders().repositories)
        if journal.blob_size is None or not self._is_damaged(finding.digest, finding.size, journal.repositories):
            replacement.finish()
        else:
            replacement.replace_blob(self.good.blob(journal.digest, journal.blob_size, images, ()))
            self.good.forget(journal.digest)
        return finding.healed("finished what was interrupted")

    def _heal(self, finding: Finding) -> Finding:
        match finding.subject:
            case "tag":
                return self._heal_tag(finding)
            case "manifest":
                return self._heal_manifest(finding)
            case _:
                return self._heal_blob(finding)

    def _still_damaged(self, finding: Finding) -> Finding | None:
        """Look once more, now that nobody else is at work, and take the names from today's records."""
        standing = {root.name for root in self._roots()}
        names = tuple(name for name in finding.images if name in standing)
        if finding.subject == "tag":
            tagged = {(root.name, root.digest) for root in self._roots() if root.is_tagged}
            is_wrong = any(
                (name, finding.digest) in tagged and self._tag_names(name) != finding.digest for name in names
            )
            return finding if is_wrong else None
        if finding.subject == "manifest":
            read = read_manifest(self.target, finding.repositories[0], finding.digest)
            return replace(finding, images=names) if isinstance(read, Damage) and names else None
        is_damaged = bool(names) and self._is_damaged(finding.digest, finding.size, finding.repositories)
        return replace(finding, images=names) if is_damaged else None

    def _is_damaged(self, digest: Digest, size: int, where: Iterable[str]) -> bool:
        """Tell whether any copy is; reads on until one is met."""
        return any(look_at_blob(self.target, each, digest, size, Pace(None)) is not None for each in where)

    def _tag_names(self, name: LocalTag) -> Digest | None:
        found = self.target.manifest_head(name.repository, name.tag)
        return found.digest if found else None

    def _heal_tag(self, finding: Finding) -> Finding:
        (name,) = finding.images
        platforms = next((root.platforms for root in self._roots() if root.name == name), ())
        if not is_complete(self.target, name.repository, finding.digest, platforms):
            return finding.left("its content is not whole; replication brings it")
        publish_tags(self.target, name.repository, finding.digest, (name.tag,))
        return finding.healed("put back")

    def _heal_manifest(self, finding: Finding) -> Finding:
        (repository,), digest = finding.repositories, finding.digest
        others = tuple(each for each in self._holders().repositories if each != repository)
        content = self.good.manifest(digest, finding.images, others)
        if self._overwrite_manifest(repository, digest, content, finding.images):
            return finding.healed(_OVERWRITTEN)
        self._holders().look_again()
        above = tuple(held for held in self._holders().of(digest) if held.repository == repository)
        tags = self._tags(finding)
        first = HeldManifest(repository, digest, content, tags)
        journal = Journal(digest, None, (repository,), (first, *above))
        self._replacement(journal).replace_manifest()
        is_good = not isinstance(read_manifest(self.target, repository, digest), Damage)
        return finding.healed(_REPLACED) if is_good else finding.left(_KEEPS)

    def _overwrite_manifest(
        self, repository: str, digest: Digest, content: ManifestContent, images: tuple[LocalTag, ...]
    ) -> bool:
        """Put a manifest over the damaged one: as a manifest, and as the blob that it is in some registries."""
        blob = Descriptor(content.media_type, digest, len(content.raw))
        attempts: tuple[Callable[[], None], ...] = (
            lambda: self._put_manifest(repository, digest, content, images),
            lambda: self.target.blob_put(repository, blob, [content.raw]),
        )
        for attempt in attempts:
            with contextlib.suppress(RemoteError):
                attempt()
            if not isinstance(read_manifest(self.target, repository, digest), Damage):
                return True
        return False

    def _put_manifest(
        self, repository: str, digest: Digest, content: ManifestContent, images: tuple[LocalTag, ...]
    ) -> None:
        try:
            self.target.manifest_put(repository, str(digest), content)
        except RemoteError as error:
            if error.status not in _INCOMPLETE:
                raise
            # What it needs is gone too: bring all of it.
            roots = [root for root in self._roots() if root.name in images]
            platforms = roots[0].platforms if roots else ()
            self.good.copy(repository, digest, images, platforms)

    def _heal_blob(self, finding: Finding) -> Finding:
        digest, size = finding.digest, finding.size
        users = self._holders().of(digest)
        elsewhere = sorted({held.repository for held in users} - set(finding.repositories))
        path = self.good.blob(digest, size, finding.images, tuple(elsewhere))
        # What others keep at the site is healed along with it: they may share the very file.
        where = (*finding.repositories, *elsewhere)
        how = _OVERWRITTEN
        if not self._overwrite_blob(Descriptor("application/octet-stream", digest, size), where, path):
            self._holders().look_again()
            self._replacement(Journal(digest, size, where, self._holders().of(digest))).replace_blob(path)
            how = _REPLACED
            if self._is_damaged(digest, size, where):
                return finding.left(_KEEPS)
        self.good.forget(digest)
        return finding.healed(how)

    def _overwrite_blob(self, blob: Descriptor, where: tuple[str, ...], path: Path) -> bool:
        """Put a blob over its damaged copies; False as soon as the registry keeps one of them."""
        for repository in where:
            if self._is_damaged(blob.digest, blob.size, (repository,)):
                self.target.blob_put(repository, blob, chunks_of(path))
                if self._is_damaged(blob.digest, blob.size, (repository,)):
                    return False
        return True

    def _tags(self, finding: Finding) -> tuple[str, ...]:
        """Return the tags of a damaged manifest: those that the registry tells, and those that are on record."""
        (repository,) = finding.repositories
        told = self._holders().tags_of(repository, finding.digest)
        roots = (root for root in self._roots() if root.digest == finding.digest and root.is_tagged)
        return tuple(sorted({*told, *(root.name.tag for root in roots if root.name.repository == repository)}))

    def _replacement(self, journal: Journal) -> Replacement:
        """Prepare a replacement, with the names that are the satellite's own told from others'."""
        held = tuple(
            replace(item, own_tags=tuple(tag for tag in item.tags if self._is_own(item, tag)))
            for item in journal.manifests
        )
        return Replacement(self.target, self.store, replace(journal, manifests=held), self._holders().repositories)

    def _is_own(self, held: HeldManifest, tag: str) -> bool:
        return tag == pin_tag(held.digest) or LocalTag(held.repository, tag) in self.store.applied().owned

    def _still_wanted(self, held: HeldManifest) -> HeldManifest:
        """Leave out the satellite's own tags that a replication since then took away or moved."""
        owned, pins = self.store.applied().owned, load_generations(self.store).pins
        is_pinned = (held.repository, held.digest) in pins or LocalTag(held.repository, str(held.digest)) in owned
        gone = {
            tag
            for tag in held.own_tags
            if held.digest not in owned.get(LocalTag(held.repository, tag), ())
            and not (tag == pin_tag(held.digest) and is_pinned)
        }
        return replace(held, tags=tuple(tag for tag in held.tags if tag not in gone))

    def _roots(self) -> tuple[Root, ...]:
        if self._root is None:
            self._root = roots_of(self.store, self.platforms)
        return self._root

    def _holders(self) -> Holders:
        if self._held is None:
            known = tuple(sorted({(root.name.repository, root.digest) for root in self._roots()}))
            self._held = Holders(self.target, known)
        return self._held
