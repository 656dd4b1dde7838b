"""Which blobs reached the target in runs that did not finish: so the next run mounts them instead of fetching them.

What lives here: an append-only file of lines. What must not: proof; the target is asked before anything is built on it.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.oci.digest import Digest

if TYPE_CHECKING:
    from pathlib import Path


class Arrivals:
    """The journal; safe to use from many threads of one process.

    Args:
        path: its file; in a folder that is there when something is noted.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._lock = threading.Lock()
        self._repositories: dict[Digest, str] | None = None

    def all(self) -> dict[Digest, str]:
        """Return the repository of the target that took each blob."""
        with self._lock:
            return dict(self._known())

    def get(self, digest: Digest) -> str | None:
        """Return the repository of the target that took a blob."""
        with self._lock:
            return self._known().get(digest)

    def note(self, digest: Digest, repository: str) -> None:
        """Add one.

        Raises:
            OSError: the disk does not take it; until this process ends it is known all the same.
        """
        with self._lock:
            if self._known().get(digest) == repository:
                return
            self._known()[digest] = repository
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o600)
            try:
                os.write(descriptor, f"{digest} {repository}\n".encode())
            finally:
                os.close(descriptor)

    def clear(self) -> None:
        """Forget all of them.

        Raises:
            OSError: the file cannot be removed.
        """
        with self._lock:
            self._repositories = {}
            self._path.unlink(missing_ok=True)

    def _known(self) -> dict[Digest, str]:
        if self._repositories is None:
            self._repositories = {}
            with suppress(OSError):
                content = self._path.read_bytes()
                # What follows the last line break was torn; gone, it cannot become the start of another line.
                whole = content[: content.rfind(b"\n") + 1]
                if len(whole) < len(content):
                    os.truncate(self._path, len(whole))
                for line in whole.decode(errors="replace").splitlines():
                    digest, _, repository = line.partition(" ")
                    with suppress(InvalidInputError):
                        self._repositories[Digest.parse(digest)] = repository
        return self._repositories
