"""One blob from a source to a target in one piece, however often the link is cut on the way.

What lives here: going on at the right offset, from the disk and then from the source. What must not: what becomes of
the bytes; the target hashes all of them, those from the disk too, and stores nothing that is wrong.

Nothing is tried twice here: a body that was cut goes on where it ended, under the same request to the target. A
request that is refused before any byte of the blob is at hand is its caller's to repeat.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import DigestMismatchError, RemoteError
from harbor_satellite.registry.client import HttpRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from contextlib import AbstractContextManager

    from harbor_satellite.oci.descriptor import Descriptor
    from harbor_satellite.registry.api import BlobStream, Registry
    from harbor_satellite.registry.partials import PartialBlob, PartialFolder

_log = logging.getLogger(__name__)

WAITS_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Before each connection that follows one without a byte."""
BARREN_MAX: Final = 5
"""Connections in a row without a byte, after which the source counts as gone."""
RESTARTS_MAX: Final = 2
"""How often a blob may come from its start again, from a source that serves no ranges."""
RETRY_AFTER_MAX_SECONDS: Final = 30.0
"""Of what the source asks for; the target's own patience is not endless."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Brings blobs from one source."""

    source: Registry
    partials: PartialFolder | None = None
    """Where what has arrived is kept until all of it has; None: nowhere."""
    on_bytes: Callable[[int], None] = lambda _: None
    """Told of every chunk that came from the source (bytes)."""
    sleep: Callable[[float], None] = time.sleep

    def bring(self, repository: str, blob: Descriptor, store: Callable[[Iterable[bytes]], None]) -> int:
        """Bring one blob.

        Args:
            repository: where the source has it.
            blob: which one.
            store: takes all its bytes from the first on and verifies them, such as a target's ``blob_put``.

        Returns:
            Bytes read from the source.

        Raises:
            RemoteError: the source refused, or stayed without a byte for ``BARREN_MAX`` connections; or the target.
            DigestMismatchError: the source's bytes are not what the descriptor promises.
            PausedError: bytes may not move now. What has arrived is kept for the next call, here and above.
        """
        if self.partials is None:
            return self._bring(repository, blob, store, None)
        with self.partials.open(blob) as partial:
            at_hand = partial.size
            try:
                return self._bring_kept(repository, blob, store, partial)
            except DigestMismatchError as error:
                if not at_hand:
                    raise
                _log.warning("what was at hand of a blob is damaged, it starts over: %s", error)
        with self.partials.open(blob) as partial:
            return self._bring_kept(repository, blob, store, partial)

    def _bring_kept(
        self, repository: str, blob: Descriptor, store: Callable[[Iterable[bytes]], None], partial: PartialBlob
    ) -> int:
        try:
            read = self._bring(repository, blob, store, partial)
        except DigestMismatchError:
            partial.discard()
            raise
        partial.discard()
        return read

    def _bring(
        self,
        repository: str,
        blob: Descriptor,
        store: Callable[[Iterable[bytes]], None],
        partial: PartialBlob | None,
    ) -> int:
        reading = _Reading(self, repository, blob, partial)
        # Closed at once, whoever fails: it holds a connection to the source.
        with closing(reading.chunks()) as chunks:
            store(chunks)
        return reading.bytes_read


class _Reading:
    """One blob's bytes, each once and in order."""

    def __init__(self, transfer: Transfer, repository: str, blob: Descriptor, partial: PartialBlob | None) -> None:
        self._transfer = transfer
        self._repository = repository
        self._blob = blob
        self._partial = partial
        self._position = 0  # bytes given out
        self._restarts = 0
        self.bytes_read = 0

    def chunks(self) -> Generator[bytes]:
        if self._partial is not None:
            for chunk in self._partial.chunks():
                self._position += len(chunk)
                yield chunk
        barren = 0
        while self._position < self._blob.size:
            start = self._position
            try:
                yield from self._connection()
            except RemoteError as error:
                if not error.retryable or not self._position or self._restarts > RESTARTS_MAX:
                    raise
                barren = 0 if self._position > start else barren + 1
                if barren >= BARREN_MAX:
                    raise
                self._wait(barren, error)
            else:
                return  # all of it, or all that the source has: the target sees what is missing

    def _connection(self) -> Iterator[bytes]:
        with self._open() as stream:
            known = self._position - stream.offset
            if known:
                self._restarts += 1
                if self._restarts > RESTARTS_MAX:
                    message = f"pull blob {self._what()}: the source serves no ranges and was cut too often"
                    raise RemoteError(message, retryable=True)
            for chunk in stream:
                fresh = chunk[known:] if known else chunk
                known -= len(chunk) - len(fresh)
                if self._partial is not None:
                    self._partial.append(fresh)
                # Told when the bytes are safe: the listener may raise to end it.
                self.bytes_read += len(chunk)
                self._transfer.on_bytes(len(chunk))
                if fresh:
                    self._position += len(fresh)
                    yield fresh

    def _open(self) -> AbstractContextManager[BlobStream]:
        source = self._transfer.source
        # Each connection starts at the registry itself: a presigned address or a token may have expired meanwhile.
        if isinstance(source, HttpRegistry):
            return source.blob_get(self._repository, self._blob.digest, self._position, size=self._blob.size)
        return source.blob_get(self._repository, self._blob.digest, self._position)

    def _wait(self, barren: int, error: RemoteError) -> None:
        asked = min(error.retry_after_seconds or 0.0, RETRY_AFTER_MAX_SECONDS)
        seconds = max(WAITS_SECONDS[barren - 1] if barren else 0.0, asked)
        _log.info("going on with %s offset=%d wait_seconds=%.1f: %s", self._what(), self._position, seconds, error)
        if seconds:
            self._transfer.sleep(seconds)

    def _what(self) -> str:
        return f"{self._transfer.source.name}/{self._repository}@{self._blob.digest}"
