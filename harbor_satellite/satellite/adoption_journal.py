"""Which tags a registry that takes over was given so far, over all attempts, whatever killed one of them.

Between two attempts the site goes on, and deletes some of them in the registry that still serves: without this, they
would come back with the move, and nobody would ever delete them again.
"""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Final, TypeAlias

from harbor_satellite.registry.layout_files import storage_errors

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_PRIVATE: Final = 0o600
Name: TypeAlias = tuple[str, str]
"""Repository and tag."""


class AdoptionJournal:
    """A file with one line for each tag, written before the tag is. Safe to use from many threads.

    Args:
        path: made with the first tag.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def note(self, repository: str, digest: str, tags: Collection[str]) -> None:
        """Write down tags that are about to name a digest.

        Raises:
            StorageError: the disk refuses.
        """
        if not tags:
            return
        lines = "".join(json.dumps([repository, tag, digest]) + "\n" for tag in tags).encode()
        with self._lock, storage_errors(self._path, "noting what is taken over"):
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
            with os.fdopen(handle, "ab") as file:
                file.write(lines)
                file.flush()
                os.fsync(handle)

    def noted(self) -> dict[Name, set[str]]:
        """Return every tag of every attempt, with the digests that it was to name.

        Raises:
            StorageError: the disk refuses.
        """
        found: dict[Name, set[str]] = {}
        with storage_errors(self._path, "reading what was taken over"):
            try:
                lines = self._path.read_bytes().splitlines()
            except FileNotFoundError:
                return found
        for line in lines:
            try:
                repository, tag, digest = json.loads(line)
            except ValueError:
                continue  # a kill has torn it: that tag was not written
            found.setdefault((str(repository), str(tag)), set()).add(str(digest))
        return found

    def forget(self) -> None:
        """Remove the file: the move is over.

        Raises:
            StorageError: the disk refuses.
        """
        with storage_errors(self._path, "removing the record of what was taken over"):
            self._path.unlink(missing_ok=True)
