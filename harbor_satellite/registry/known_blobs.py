"""Which repositories of a target hold a blob, so that it crosses the WAN once; shared by all copies of a run."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from harbor_satellite.oci.digest import Digest


@dataclass
class KnownBlobs:
    """What is known of a target's blobs, and a lock per blob; safe to use from many threads."""

    lookup: Callable[[], dict[Digest, str]] = field(default=dict)
    """Builds the map of what was there before; may be slow, and is called once, when nothing else is known of a
    blob that is missing."""
    _before: dict[Digest, str] | None = None
    _seen: defaultdict[Digest, set[str]] = field(default_factory=lambda: defaultdict(set))
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _lookup_guard: threading.Lock = field(default_factory=threading.Lock)
    _locks: defaultdict[Digest, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    def repository_of(self, digest: Digest) -> str | None:
        """Return a repository of the target that held the blob before this run, if one is known."""
        # A lock of its own: a slow lookup must not hold up blobs that need none.
        with self._lookup_guard:
            if self._before is None:
                self._before = self.lookup()
            return self._before.get(digest)

    def seen_at(self, digest: Digest) -> tuple[str, ...]:
        """Return the repositories that were seen to hold the blob during this run, sorted."""
        with self._guard:
            return tuple(sorted(self._seen.get(digest, ())))

    def add(self, digest: Digest, repository: str) -> None:
        """Remember that the repository holds the blob now."""
        with self._guard:
            self._seen[digest].add(repository)

    def lock(self, digest: Digest) -> threading.Lock:
        """Return the lock under which this blob is brought."""
        with self._guard:
            return self._locks[digest]
