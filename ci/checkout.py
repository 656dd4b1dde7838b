"""What the checkout says of itself: commit, its time, tags, the package's version. Reads git and two files."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Final

from ci.context import Build
from ci.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ci.context import Mirrors

_VERSION: Final = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
_VERSION_FILE: Final = "harbor_satellite/__init__.py"
_SPECIAL: Final = re.compile(r"[\\*?\[\]!]")
_NO_TIME: Final = 315_532_800  # 1980: a zip file, which a wheel is, knows no earlier date


def read_build(source: Path, version: str, mirrors: Mirrors, tools: Mapping[str, str]) -> Build:
    """Return what a build of this checkout is told.

    Args:
        source: its folder.
        version: PEP 440; empty: the package's own.
        mirrors: of package registries.
        tools: those that are not to be the table's.

    Raises:
        UsageError: it is not this project's folder.
    """
    source = source.resolve()
    own = package_version(source)
    commit = _git(source, "rev-parse", "HEAD")
    epoch = _git(source, "show", "--no-patch", "--format=%ct", "HEAD")
    return Build(source, version or own, commit, int(epoch) if epoch else _NO_TIME, mirrors, tools)


def package_version(source: Path) -> str:
    """Return the version that the package says of itself.

    Raises:
        UsageError: it says none.
    """
    path = source / _VERSION_FILE
    try:
        found = _VERSION.search(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{source} is no checkout of this project: {error}") from error
    if found is None:
        raise UsageError(f"{path} has no line __version__ = …")
    return found[1]


def is_changed(source: Path) -> bool:
    """Return whether tracked files differ from the commit, or there are new ones that git does not ignore."""
    return bool(_git(source, "status", "--porcelain"))


def git_tags(source: Path) -> tuple[str, ...]:
    """Return all tags of the checkout; none where it has none or is no checkout."""
    return tuple(_git(source, "tag", "--list").split())


def commit_of(source: Path, tag: str) -> str:
    """Return the commit of a tag; empty: there is no such tag."""
    return _git(source, "rev-parse", "--verify", f"refs/tags/{tag.removeprefix('refs/tags/')}^{{commit}}")


def tracked_texts(source: Path, *folders: str) -> dict[str, str]:
    """Return path in the checkout → content of the files below folders that git keeps.

    Never what merely lies there: a folder that is tried out holds secrets, which git ignores.

    Raises:
        UsageError: one is gone, or is no text.
    """
    try:
        return {path: (source / path).read_text(encoding="utf-8") for path in _paths(source, "--", *folders)}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{source}: a file that git keeps cannot be read: {error}") from error


def untracked_patterns(source: Path, *, is_ignored_only: bool) -> tuple[str, ...]:
    """Return patterns, as Dagger reads them, of all in the checkout that git does not keep.

    Beside the `.gitignore` files this knows what a user ignores by `.git/info/exclude` or for all repositories.

    Args:
        source: the checkout; of what is none, nothing is known.
        is_ignored_only: leave out what is new, and not ignored.
    """
    ignored = _paths(source, "--others", "--directory", "--ignored", "--exclude-standard")
    others = () if is_ignored_only else _paths(source, "--others", "--directory")
    # Both: an ignored file in a new folder is in the one list, and its folder in the other.
    paths = sorted({path.rstrip("/") for path in (*ignored, *others)} - {""})
    return tuple(_SPECIAL.sub(r"\\\g<0>", path) for path in paths)


def remote_url(source: Path) -> str:
    """Return the URL from which the checkout came; empty: none. It may hold credentials."""
    return _git(source, "config", "--get", "remote.origin.url")


def _paths(source: Path, *arguments: str) -> tuple[str, ...]:
    return tuple(path for path in _git(source, "ls-files", "-z", *arguments).split("\0") if path)


def _git(source: Path, *arguments: str) -> str:
    command = ("git", "-C", str(source), *arguments)
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", check=False)  # noqa: S603 - fixed words
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
