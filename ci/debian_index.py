"""From what apt knows to a lock: the closure of dependencies, without what images do without. Pure.

What apt knows is the output of `apt-cache dumpavail`: one stanza for each package, the version that apt would install.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from ci.debian import DebianLock, DebianPackage, excluded, roots
from ci.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ci.platforms import Platform

_FIELDS: Final = frozenset(
    {"Package", "Version", "Architecture", "Filename", "Size", "SHA256", "Depends", "Pre-Depends", "Provides"}
)
_NAME_ALONE: Final = re.compile(r"\s*(?P<name>[a-z0-9][a-z0-9+.-]+)")
_RELEASE_DATE: Final = re.compile(r"^Date: (?P<date>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class _Index:
    """What can be installed."""

    stanzas: Mapping[str, Mapping[str, str]]
    """Package → its fields."""
    providers: Mapping[str, tuple[str, ...]]
    """Virtual package → the packages that provide it, sorted."""


def make_lock(available: str, snapshot: str, image: str, platform: Platform) -> DebianLock:
    """Return the lock of an image on a platform.

    Args:
        available: what `apt-cache dumpavail` prints for the platform's architecture.
        snapshot: see `snapshot_time`.
        image: SATELLITE or GROUND_CONTROL.
        platform: the platform.

    Raises:
        UsageError: a package that is asked for or depended on is not available.
    """
    index = _parse(available)
    asked = roots(image, platform)
    names = _closure(index, asked, excluded(image))
    packages = tuple(_package(index.stanzas[name]) for name in sorted(names))
    return DebianLock(snapshot=snapshot, architecture=platform.debian, roots=asked, packages=packages)


def snapshot_time(releases: Iterable[str]) -> str:
    """Return when the newest of some suites was written, for `DebianLock.snapshot`.

    Args:
        releases: texts of the suites' `InRelease` files.

    Raises:
        UsageError: none of them says its date.
    """
    dates = [parsedate_to_datetime(found["date"]) for text in releases if (found := _RELEASE_DATE.search(text))]
    if not dates:
        raise UsageError("no InRelease file with a date: apt-get update has brought no index")
    return max(each if each.tzinfo else each.replace(tzinfo=UTC) for each in dates).strftime("%Y%m%dT%H%M%SZ")


def _closure(index: _Index, asked: Iterable[str], without: Mapping[str, str]) -> set[str]:
    """Return the packages asked for with all that they depend on, but for those that images do without."""
    found: set[str] = set()
    waiting = [(name, "an image") for name in asked]
    while waiting:
        name, wanted_by = waiting.pop()
        if name in found:
            continue
        if name not in index.stanzas:
            raise UsageError(f"Debian package {name}, which {wanted_by} needs, is not available")
        found.add(name)
        stanza = index.stanzas[name]
        for field in ("Pre-Depends", "Depends"):
            for group in filter(str.strip, stanza.get(field, "").split(",")):
                chosen = _chosen(index, group, without)
                waiting += [(each, name) for each in chosen]
    return found


def _chosen(index: _Index, group: str, without: Mapping[str, str]) -> tuple[str, ...]:
    """Return the package that satisfies `a (>= 1) | b`, none if images do without: apt's order, the first that can."""
    alternatives = list(_names(group, "|"))
    for name in alternatives:
        if name in without:
            return ()
        if name in index.stanzas:
            return (name,)
        if providers := index.providers.get(name):
            return providers[:1]
    return tuple(alternatives[:1])


def _names(text: str, separator: str) -> Iterator[str]:
    """Yield the names in a relationship field's part, without versions and architectures."""
    for part in text.split(separator):
        if matched := _NAME_ALONE.match(part):
            yield matched["name"]


def _parse(available: str) -> _Index:
    """Return what apt's text says; continuation lines (descriptions) are passed over."""
    stanzas: dict[str, dict[str, str]] = {}
    providers: dict[str, list[str]] = {}
    for text in available.split("\n\n"):
        pairs = (line.partition(": ") for line in text.splitlines() if not line.startswith(" "))
        stanza = {key: value for key, separator, value in pairs if separator and key in _FIELDS}
        if "Package" not in stanza:
            continue
        stanzas[stanza["Package"]] = stanza
        for name in _names(stanza.get("Provides", ""), ","):
            providers.setdefault(name, []).append(stanza["Package"])
    return _Index(stanzas, {name: tuple(sorted(each)) for name, each in providers.items()})


def _package(stanza: Mapping[str, str]) -> DebianPackage:
    """Return one package of a lock."""
    try:
        return DebianPackage(
            name=stanza["Package"],
            version=stanza["Version"],
            architecture=stanza["Architecture"],
            path=stanza["Filename"],
            size_bytes=int(stanza["Size"]),
            sha256=stanza["SHA256"],
        )
    except (KeyError, ValueError) as error:
        raise UsageError(f"Debian package {stanza['Package']}: apt says no path, size or SHA256 of it") from error
