"""A host's files below a root folder: read, matched, and replaced whole or not at all.

Symbolic links are followed as the host would follow them, within the root: a file that is reached by one is written
where it lies, and the link stays.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import InvalidInputError, StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_LINKS_MAX: Final = 40
_FILE_MAX_BYTES: Final = 4 * 1024**2
_TEMPORARY: Final = ".harbor-satellite-"
_NEW_FOLDER_MODE: Final = 0o755


@dataclass(frozen=True, slots=True)
class Owner:
    """Mode and owner of a file."""

    mode: int
    uid: int
    gid: int


class HostTree:
    """The host's files.

    Args:
        root: where the host's ``/`` is seen.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def place(self, path: str) -> Path:
        """Return where a path of the host really is, links followed.

        Raises:
            StorageError: links without end.
        """
        parts, root = [part for part in path.split("/") if part][::-1], str(self.root).rstrip("/")
        done = root
        for _ in range(_LINKS_MAX * (len(parts) + 1)):
            if not parts:
                return Path(done or "/")
            part = parts.pop()
            if part in {".", ".."}:
                done = done.rpartition("/")[0] if part == ".." and done != root else done
                continue
            try:
                link = os.readlink(f"{done}/{part}")  # noqa: PTH115  (many times a path)
            except OSError:
                done = f"{done}/{part}"
                continue
            parts += [piece for piece in link.split("/") if piece][::-1]
            done = root if link.startswith("/") else done
        raise StorageError(f"{path}: too many symbolic links")

    def read_bytes(self, path: str) -> bytes | None:
        """Return a file's bytes; None: there is none.

        Raises:
            StorageError: it cannot be read, is no file, or larger than any configuration.
        """
        place = self.place(path)
        try:
            with place.open("rb") as file:
                content = file.read(_FILE_MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"cannot read {place}: {error.strerror}") from error
        if len(content) > _FILE_MAX_BYTES:
            raise StorageError(f"{place} is larger than {_FILE_MAX_BYTES} bytes")
        return content

    def match(self, pattern: str) -> tuple[str, ...]:
        """Return the paths of the files that match a pattern with wildcards, such as ``/etc/a/*.toml``, sorted."""
        found = [""]
        for part in (piece for piece in pattern.split("/") if piece):
            if any(letter in part for letter in "*?["):
                found = [f"{path}/{name}" for path in found for name in self._names(path) if fnmatchcase(name, part)]
            else:
                found = [f"{path}/{part}" for path in found]
        return tuple(sorted(path for path in found if self.place(path).is_file()))

    def _names(self, folder: str) -> list[str]:
        try:
            names = os.listdir(self.place(folder))  # noqa: PTH208  (names, not paths)
        except OSError:
            return []
        return [name for name in names if not name.startswith(".")]

    def is_there(self, path: str) -> bool:
        """Tell whether there is a file, socket or folder."""
        return self.place(path).exists()

    def owner(self, path: str) -> Owner | None:
        """Return mode and owner of a file; None: there is none."""
        try:
            found = self.place(path).stat()
        except OSError:
            return None
        return Owner(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)

    def missing_folders(self, path: str) -> tuple[str, ...]:
        """Return the folders that a file needs and that are not there, the outermost first."""
        names = path.strip("/").split("/")[:-1]
        folders = ["/" + "/".join(names[: number + 1]) for number in range(len(names))]
        return tuple(folder for folder in folders if not self.place(folder).is_dir())

    def write(self, path: str, content: bytes, owner: Owner) -> None:
        """Replace or make a file, atomically, with its folders.

        Raises:
            StorageError: the disk is full, read-only or refuses.
        """
        place = self.place(path)
        try:
            for folder in self.missing_folders(path):
                made = self.place(folder)
                made.mkdir(exist_ok=True)
                made.chmod(_NEW_FOLDER_MODE)  # whatever the umask: Podman reads there without root
                _sync_folder(made.parent)
            handle, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}{_TEMPORARY}")
            try:
                with os.fdopen(handle, "wb") as file:
                    _fill(file.fileno(), content, owner, place)
                _replace(Path(name), place, content)
            finally:
                Path(name).unlink(missing_ok=True)
            _sync_folder(place.parent)
        except OSError as error:
            raise StorageError(f"cannot write {place}: {error.strerror}") from error

    def remove(self, path: str) -> None:
        """Remove a file, if it is there.

        Raises:
            StorageError: the disk is read-only or refuses.
        """
        place = self.place(path)
        try:
            place.unlink(missing_ok=True)
            if place.parent.is_dir():
                _sync_folder(place.parent)
        except NotADirectoryError:
            return
        except OSError as error:
            raise StorageError(f"cannot remove {place}: {error.strerror}") from error

    def sweep(self, path: str) -> None:
        """Remove what a writer of a file left beside it when it was killed; the caller keeps other writers away."""
        place = self.place(path)
        for left in place.parent.glob(f".{glob.escape(place.name)}{_TEMPORARY}*"):
            with contextlib.suppress(OSError):
                left.unlink()

    def remove_folder(self, path: str) -> bool:
        """Remove a folder if it is empty; tell whether it is gone."""
        place = self.place(path)
        with contextlib.suppress(OSError):
            place.rmdir()
        return not place.exists()


class HostText:
    """The host's files as text, with some of them as they were before we wrote; see ``rendered.HostFiles``.

    Args:
        tree: the host.
        before: path → its bytes before us; None: there was no file.
    """

    def __init__(self, tree: HostTree, before: Mapping[str, bytes | None]) -> None:
        self._tree = tree
        self._before = before

    def read(self, path: str) -> str | None:
        """Return a file's text; None: there is none.

        Raises:
            InvalidInputError: it is not UTF-8.
        """
        content = self._before[path] if path in self._before else self._tree.read_bytes(path)
        return None if content is None else text_of(path, content)

    def match(self, pattern: str) -> tuple[str, ...]:
        """Return the paths of the files that match a pattern, sorted."""
        return tuple(path for path in self._tree.match(pattern) if self._before.get(path, b"") is not None)


def text_of(path: str, content: bytes) -> str:
    """Return a file's text.

    Raises:
        InvalidInputError: it is not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not UTF-8: byte {error.start}") from error


def _fill(handle: int, content: bytes, owner: Owner, place: Path) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]
    found = os.fstat(handle)
    if (found.st_uid, found.st_gid) != (owner.uid, owner.gid):
        with contextlib.suppress(PermissionError):  # without root the file stays the writer's
            os.fchown(handle, owner.uid, owner.gid)
    with contextlib.suppress(OSError):  # there is no file yet, or its file system has none
        for name in os.listxattr(place):  # SELinux's label, access control lists
            os.setxattr(handle, name, os.getxattr(place, name))
    os.fchmod(handle, owner.mode)  # after the owner: that change takes bits away
    os.fsync(handle)


def _replace(temporary: Path, place: Path, content: bytes) -> None:
    try:
        temporary.replace(place)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # A mount point, as /etc/hosts is in a container: it cannot be renamed over, only be written into.
        with place.open("r+b") as file:
            file.write(content)
            file.truncate()
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
