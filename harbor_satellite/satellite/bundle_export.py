"""Making a bundle: what the states ask for, less what the site has, from the source straight into the file.

Nothing is held in memory but the manifests of the images that are being walked.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError, PausedError, RemoteError, StorageError
from harbor_satellite.oci.descriptor import Descriptor, Manifest, parse_manifest
from harbor_satellite.oci.media_types import is_nondistributable
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.bundle_writer import BundleWriter
from harbor_satellite.registry.closure import Closure, FoundManifest, Walker
from harbor_satellite.registry.resolve import cosign_tags
from harbor_satellite.registry.transfer import Transfer
from harbor_satellite.satellite.bundle_decision import BuiltArtifact
from harbor_satellite.satellite.bundle_names import CREATED, IS_INCREMENTAL, PLATFORMS, SATELLITE, STATE, STATE_DIGEST
from harbor_satellite.satellite.outcome import ImageOutcome, failed_outcome
from harbor_satellite.satellite.receipt import Receipt
from harbor_satellite.state.desired import merge_states
from harbor_satellite.state.plan import Copy, Rule, plan_replication

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from datetime import datetime
    from pathlib import Path

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.satellite.bundle_decision import Decision, DecisionArtifact
    from harbor_satellite.satellite.connections import Connections

_LOG = logging.getLogger(__name__)
_WALKS_AHEAD: Final = 8
"""Images whose manifests are read while the blobs of one are written."""
_TRIES: Final = 3
"""Of each image, as long as its error says that trying again may help; what has arrived of it stays."""
_WAIT_SECONDS: Final = 2.0
"""Before the second try; twice as long before the third."""
_NOT_FOUND: Final = 404
_LINK_STATUSES: Final = frozenset({None, 401, 429})
"""Nobody answered, or nobody may log in: that is no image's fault, and ends the export."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a bundle is made."""

    output: Path
    part_bytes: int | None = None
    platforms: tuple[Platform, ...] = ()
    """Of the site, for groups that do not choose themselves; empty: all."""
    receipt: Receipt | None = None
    """What the site holds; None: nothing is left out."""
    on_bytes: Callable[[int], None] = lambda _: None
    """Told of every chunk that came from the source (bytes)."""
    sleep: Callable[[float], None] = time.sleep
    """Waits before an image is tried again (seconds)."""


@dataclass(frozen=True, slots=True)
class ExportOutcome:
    """What an export came to."""

    images: tuple[ImageOutcome, ...]
    """``copied``: into the bundle; ``kept``: the site holds all of it; ``failed``: not in the bundle."""
    paths: tuple[Path, ...]
    size: int
    """bytes of the bundle"""
    bytes_from_source: int
    seconds: float

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing from the bundle."""
        return not any(image.action == "failed" for image in self.images)


@dataclass
class _Export:
    """One export on its way."""

    connections: Connections
    writer: BundleWriter
    options: ExportOptions
    images: list[ImageOutcome] = field(default_factory=list)
    bytes_read: int = 0

    def write_decision(self, artifact: DecisionArtifact) -> None:
        """Write a state with whatever signs it."""
        if isinstance(artifact.source, BuiltArtifact):
            root = self._write_built(artifact.source)
        else:
            root = self._write_found(artifact.source, artifact)
        for name in artifact.names:
            self.writer.add_name(artifact.repository, name, root)

    def _write_built(self, built: BuiltArtifact) -> Descriptor:
        for blob, raw in built.blobs:
            if not self.writer.holds(blob.digest):
                self.writer.add_blob(blob, [raw])
        self.writer.add_manifest(built.content.digest, built.content)
        return Descriptor(built.content.media_type, built.content.digest, len(built.content.raw))

    def _write_found(self, source: Registry, artifact: DecisionArtifact) -> Descriptor:
        walk = _Walk(source, artifact.repository)
        closure = walk.closure(artifact.digest, None)
        self._write(walk, closure, Receipt())
        for tag in cosign_tags(source, artifact.repository, [closure]):
            self._write_signature(source, artifact.repository, tag)
        return walk.descriptor(artifact.digest)

    def _write_signature(self, source: Registry, repository: str, tag: str) -> None:
        head = source.manifest_head(repository, tag)
        if head is not None:
            walk = _Walk(source, repository)
            self._write(walk, walk.closure(head.digest, ()), Receipt())
            self.writer.add_name(repository, tag, walk.descriptor(head.digest))

    def write_images(self, copies: tuple[Copy, ...]) -> None:
        """Write every image, reading the manifests of some ahead."""
        with ThreadPoolExecutor(_WALKS_AHEAD, "walk") as pool:
            pending: deque[tuple[Copy, Future[_Walked]]] = deque()
            try:
                for copy in copies:
                    pending.append((copy, pool.submit(self._walk, copy)))
                    if len(pending) > _WALKS_AHEAD:
                        self._write_image(*pending.popleft())
                while pending:
                    self._write_image(*pending.popleft())
            finally:
                for _, walk in pending:
                    walk.cancel()

    def _walk(self, copy: Copy) -> _Walked:
        walk = _Walk(self.connections.source(copy.source), copy.repository, copy.wish.platforms)
        # Where the state does not name the referrers, each manifest's are asked for: then all must be read.
        walk.receipt = self.options.receipt if copy.referrers is not None else None
        return walk, walk.closure(copy.digest, copy.referrers)

    def _write_image(self, copy: Copy, walked: Future[_Walked]) -> None:
        started, before = time.monotonic(), self.writer.size
        try:
            walk, closure = self._bring_image(copy, walked)
        except HarborSatelliteError as error:
            if _ends_everything(error):
                raise
            _LOG.warning("not in the bundle: reference=%s error=%s", copy, error)
            self.images.append(failed_outcome(str(copy), copy.digest, error))
            return
        if self.writer.holds(copy.digest):
            for name in copy.names:
                self.writer.add_name(copy.repository, name.tag, walk.descriptor(copy.digest))
        size, seconds, digest = self.writer.size - before, time.monotonic() - started, str(copy.digest)
        is_held = size == 0 and not any(self.writer.holds(item.digest) for item in closure.manifests)
        if is_held or all(item.is_local for item in closure.manifests):
            self.images.append(ImageOutcome("kept", str(copy), digest, "the site holds all of it", 0, seconds))
        else:
            reason = f"wanted by {', '.join(copy.groups)}"
            self.images.append(ImageOutcome("copied", str(copy), digest, reason, size, seconds))

    def _bring_image(self, copy: Copy, walked: Future[_Walked]) -> _Walked:
        turn = 1
        while True:
            try:
                walk, closure = walked.result() if turn == 1 else self._walk(copy)
                self._write(walk, closure, self.options.receipt or Receipt())
            except HarborSatelliteError as error:
                if not error.retryable or turn == _TRIES:
                    raise
                _LOG.info("trying again: reference=%s error=%s", copy, error)
                self.options.sleep(_WAIT_SECONDS * turn)
                turn += 1
            else:
                return walk, closure

    def _write(self, walk: _Walk, closure: Closure, receipt: Receipt) -> None:
        fresh = [item for item in closure.manifests if not item.is_local]
        for item in fresh:
            for blob in item.manifest.blobs:
                if blob.digest not in receipt.blobs and not self.writer.holds(blob.digest):
                    self._bring(walk, blob)
        for child in closure.absent:
            content = walk.source.manifest_get(walk.repository, str(child.digest))
            self._count(len(content.raw))
            self.writer.add_manifest(child.digest, content)
        held = receipt.repositories.get(walk.repository)
        for item in fresh:
            if held is None or item.digest not in held.manifests:
                self._count(len(item.content.raw))
                self.writer.add_manifest(item.digest, item.content)
        for subject, referrer in walk.referrers:
            self.writer.add_referrer(walk.repository, subject, referrer)

    def _bring(self, walk: _Walk, blob: Descriptor) -> None:
        transfer = Transfer(walk.source, on_bytes=self._count, sleep=self.options.sleep)
        try:
            transfer.bring(walk.repository, blob, lambda chunks: self.writer.add_blob(blob, chunks))
        except RemoteError as error:
            # image-spec: such layers may stay where their licence keeps them.
            if error.status != _NOT_FOUND or not is_nondistributable(blob.media_type):
                raise

    def _count(self, size: int) -> None:
        self.bytes_read += size
        self.options.on_bytes(size)


@dataclass
class _Walk:
    """Reads the manifests of one artifact at its source."""

    source: Registry
    repository: str
    platforms: tuple[Platform, ...] = ()
    receipt: Receipt | None = None
    """What need not be read, as the site holds all of it; None: everything is read."""
    referrers: list[tuple[Digest, Descriptor]] = field(default_factory=list)
    """Every referrer met, with its subject."""
    _found: dict[Digest, FoundManifest] = field(default_factory=dict)

    def closure(self, digest: Digest, referrers: tuple[Digest, ...] | None) -> Closure:
        closure = Walker(self._read, self._referrers_of, self.platforms).walk(digest, referrers)
        for item in closure.manifests:
            subject = item.manifest.subject
            if subject is not None and not item.is_local:
                self.referrers.append((subject.digest, self.descriptor(item.digest)))
        return closure

    def descriptor(self, digest: Digest) -> Descriptor:
        item = self._found[digest]
        return Descriptor(
            item.manifest.media_type,
            digest,
            len(item.content.raw),
            artifact_type=item.manifest.referrer_type if item.manifest.subject else "",
        )

    def _read(self, digest: Digest) -> FoundManifest:
        if self.receipt is not None and self.receipt.holds_manifest(self.repository, digest, self.platforms):
            return FoundManifest(digest, ManifestContent("", b""), Manifest(""), is_local=True)
        content = self.source.manifest_get(self.repository, str(digest))
        what = f"{self.source.name}/{self.repository}@{digest}"
        item = FoundManifest(digest, content, parse_manifest(content.raw, content.media_type, what))
        self._found[digest] = item
        return item

    def _referrers_of(self, digest: Digest) -> tuple[Descriptor, ...]:
        return self.source.referrer_list(self.repository, digest)


_Walked = tuple[_Walk, Closure]


def export_bundle(connections: Connections, decision: Decision, options: ExportOptions, now: datetime) -> ExportOutcome:
    """Write a bundle with a decision and everything that the site needs to follow it.

    An image that the source cannot give is left out and reported; without the link or the disk there is no bundle.

    Raises:
        InvalidInputError: there is such a file already.
        RemoteError: the source cannot be reached, or does not give the states.
        StorageError: the disk is full or refuses.
    """
    started = time.monotonic()
    plan = plan_replication(merge_states(decision.states, options.platforms), {}, {})
    with BundleWriter(options.output, options.part_bytes) as writer:
        export = _Export(connections, writer, options)
        for artifact in decision.artifacts:
            export.write_decision(artifact)
        export.write_images(plan.copy)
        paths = writer.finish(_annotations(decision, options, now))
        size = writer.size
    refused = (ImageOutcome("failed", str(item.name), "", item.reason, rule=Rule.DISPUTED) for item in plan.refuse)
    return ExportOutcome((*export.images, *refused), paths, size, export.bytes_read, time.monotonic() - started)


def _ends_everything(error: HarborSatelliteError) -> bool:
    is_link = isinstance(error, RemoteError) and error.status in _LINK_STATUSES
    return is_link or isinstance(error, StorageError | PausedError)


def _annotations(decision: Decision, options: ExportOptions, now: datetime) -> dict[str, str]:
    return {
        CREATED: now.isoformat(),
        STATE: decision.state,
        STATE_DIGEST: str(decision.artifacts[-1].digest),
        SATELLITE: decision.satellite,
        PLATFORMS: ",".join(sorted(map(str, options.platforms))),
        IS_INCREMENTAL: "true" if options.receipt else "false",
    }
