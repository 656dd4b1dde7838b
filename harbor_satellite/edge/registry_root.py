"""Whether the folder of a registry is the one that it was: a disk that is not mounted leaves an empty one in its place.

What goes there then would fill the system's disk, and vanish below the mount when the disk comes back. So a root on a
disk of its own is marked at its first use. What must not live here: what is done about a root that is away
(``registry_service``).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import StorageError
from harbor_satellite.registry.layout_files import make_directory, storage_errors
from harbor_satellite.satellite.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

MARK_FILE: Final = ".harbor-satellite-root"
_MARK_BYTES: Final = 16


class RootAwayError(StorageError):
    """The disk that holds a site's images is not there."""

    def diagnostics(self) -> str:
        """Say what an operator should check."""
        return "Mount the disk; the registry is started again within a minute."


@dataclass(frozen=True, slots=True)
class KnownRoot:
    """A root as it was when it served last."""

    root: str
    mark: str
    """What its file says."""
    device: int
    """``st_dev``: another one after some restarts of the machine, so never the only witness."""


def check_root(root: Path, home: Path, known: KnownRoot | None) -> KnownRoot | None:
    """Make a root if there is none, and return what it is known by from now on.

    A root without its mark on the same disk was wiped by somebody, and is filled again. An empty mark is an operator's
    word that the folder is the right one, whatever was before.

    Args:
        root: where a registry is to serve from.
        home: the satellite's folder.
        known: the root that served last.

    Returns:
        None if the root shares the disk of the satellite's folder: away, that takes all that is known with it.

    Raises:
        RootAwayError: it is not the one that it was: the mark is not there, and it is on another disk.
        StorageError: it cannot be read or made.
    """
    before = known if known and known.root == str(root) else None
    path = root / MARK_FILE
    with storage_errors(root, "looking at the registry's folder"):
        found, device = _read(path), _device(root)
        if before and found not in {before.mark, ""} and device != before.device:
            raise RootAwayError(
                f"{root} is not the folder that held this site's images: its disk is not mounted, or it is another "
                f"one; mount it, or, to have this one filled instead: mkdir -p {root} && touch {path}"
            )
        make_directory(root)
        if device == _device(home):
            return None
        mark = before.mark if before else found or secrets.token_hex(_MARK_BYTES)
        if found != mark:
            write_atomically(path, mark.encode())  # replaced: an operator may have made it as root
        return KnownRoot(str(root), mark, device)


def _read(path: Path) -> str | None:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(4 * _MARK_BYTES).strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _device(folder: Path) -> int:
    """Return the disk that a folder is on, or would be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.stat().st_dev
