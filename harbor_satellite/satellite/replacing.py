"""Replacing content that a registry believes to be right: taken away with all that needs it, and put back.

Every step may be repeated: whoever is killed in between leaves a journal, and the next one goes through it again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError, RemoteError
from harbor_satellite.oci.descriptor import Descriptor
from harbor_satellite.satellite.good_bytes import chunks_of
from harbor_satellite.satellite.healing_journal import drop_journal, save_journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.healing_journal import HeldManifest, Journal
    from harbor_satellite.satellite.store import SatelliteStore

_LOG = logging.getLogger(__name__)
_IN_USE: Final = 405
"""How a registry refuses to delete what a manifest still needs."""


@dataclass
class Replacement:
    """One replacement in the local registry, from its journal.

    Args:
        target: the local registry.
        store: keeps the journal.
        journal: what to replace, and all that needs it.
        everywhere: every repository of the registry: one may hold the blob without a manifest that needs it.
    """

    target: Registry
    store: SatelliteStore
    journal: Journal
    everywhere: tuple[str, ...] = ()
    _released: list[str] = field(default_factory=list)

    def replace_blob(self, path: Path) -> None:
        """Take the blob away everywhere and put good bytes in its place.

        Args:
            path: a file with the good bytes.

        Raises:
            HarborSatelliteError: the registry refused; all that was taken away is back, or else still on record.
        """
        save_journal(self.store, self.journal)
        try:
            self._exchange(path)
        except HarborSatelliteError:
            self._undo(path)
            raise
        self.finish()

    def replace_manifest(self) -> None:
        """Take the manifest away with every index above it, and put them back; errors as of ``replace_blob``."""
        save_journal(self.store, self.journal)
        try:
            for held in reversed(self.journal.manifests):
                self.target.manifest_delete(held.repository, str(held.digest))
        except HarborSatelliteError:
            self._undo()
            raise
        self.finish()

    def finish(self) -> None:
        """Put everything back and forget the journal; errors as of ``put_back``."""
        self.put_back()
        drop_journal(self.store)

    def put_back(self) -> None:
        """Put back every manifest that is not there, and then every tag that names nothing; others' tags stay.

        Raises:
            HarborSatelliteError: the registry refused one; those after it were tried all the same.
        """
        problem: HarborSatelliteError | None = None
        for held in self.journal.manifests:
            try:
                if self.target.manifest_head(held.repository, str(held.digest)) is None:
                    self.target.manifest_put(held.repository, str(held.digest), held.content)
            except HarborSatelliteError as error:
                problem = error
        for held in self.journal.manifests:
            for tag in held.tags:
                try:
                    if self.target.manifest_head(held.repository, tag) is None:
                        self.target.manifest_put(held.repository, tag, held.content)
                except HarborSatelliteError as error:
                    problem = error
        if problem is not None:
            raise problem

    def _exchange(self, path: Path) -> None:
        descriptor, first = self._descriptor, self.journal.repositories[0]
        # Nothing is away while the bytes travel: only the last piece waits for the deletions.
        self.target.blob_put(first, descriptor, _before_the_end(chunks_of(path), self._release))
        for repository in dict.fromkeys((*self.journal.repositories, *self._released)):
            if repository != first and not self.target.blob_mount(repository, descriptor.digest, first):
                self.target.blob_put(repository, descriptor, chunks_of(path))

    def _release(self) -> None:
        """Delete the blob everywhere, and first what needs it where the registry insists."""
        if not self._is_guarded():
            # A registry that deletes what is needed does not say what others need either: theirs is left alone.
            for repository in self.journal.repositories:
                self.target.blob_delete(repository, self.journal.digest)
            return
        for repository in self.everywhere:
            if repository not in self.journal.repositories:
                if self._refuses_to_delete(repository):
                    raise self._refusal(repository)
                self._released.append(repository)
        for repository in self.journal.repositories:
            for item in reversed(self._held(repository)):
                self.target.manifest_delete(repository, str(item.digest))
            self.target.blob_delete(repository, self.journal.digest)

    def _is_guarded(self) -> bool:
        """Find out, at the first blob that something needs, whether the registry refuses to delete such."""
        for repository in self.journal.repositories:
            held = self._held(repository)
            if not held:
                continue
            try:
                was_there = self.target.blob_delete(repository, self.journal.digest)
            except RemoteError as error:
                if error.status != _IN_USE:
                    raise
                return True
            # Gone already: somebody was killed here; then the next one tells.
            if was_there and self.target.manifest_head(repository, str(held[-1].digest)) is not None:
                return False
        return False

    def _held(self, repository: str) -> list[HeldManifest]:
        return [item for item in self.journal.manifests if item.repository == repository]

    def _refuses_to_delete(self, repository: str) -> bool:
        try:
            self.target.blob_delete(repository, self.journal.digest)
        except RemoteError as error:
            if error.status != _IN_USE:
                raise
            return True
        return False

    def _refusal(self, repository: str) -> RemoteError:
        what = f"{self.target.name}/{repository}@{self.journal.digest}"
        if self.target.blob_head(repository, self.journal.digest) is None:
            return RemoteError(f"{what}: this registry deletes nothing; allow it to, and audit again", status=_IN_USE)
        message = f"{what} is held by a manifest that no tag leads to: tag or delete that, and audit again"
        return RemoteError(message, status=_IN_USE)

    @property
    def _descriptor(self) -> Descriptor:
        return Descriptor("application/octet-stream", self.journal.digest, self.journal.blob_size or 0)

    def _undo(self, path: Path | None = None) -> None:
        """Put back what was taken away so far; what cannot be stays on record."""
        try:
            if path is not None:
                self._refill(path)
            self.finish()
        except HarborSatelliteError as error:
            _LOG.warning("not all is back yet digest=%s reason=%s", self.journal.digest, error)

    def _refill(self, path: Path) -> None:
        for repository in dict.fromkeys((*self.journal.repositories, *self._released)):
            if self.target.blob_head(repository, self.journal.digest) is None:
                self.target.blob_put(repository, self._descriptor, chunks_of(path))


def _before_the_end(chunks: Iterator[bytes], act: Callable[[], None]) -> Iterator[bytes]:
    """Give chunks, and act before the last one is given."""
    held = b""
    for chunk in chunks:
        if held:
            yield held
        held = chunk
    act()
    if held:
        yield held
