"""Which Debian packages an image's root file system is made of, and the lock that names each file by its hash. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from ci.errors import UsageError
from ci.platforms import GROUND_CONTROL, SATELLITE, Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOTS: Final = (
    "base-files",  # the first folders, os-release, the licences that copyright files refer to
    "ca-certificates",
    "libpython3.13-stdlib",
    "python3.13-minimal",
)
# manylinux lets wheels want it; of those at a site none does, and its smoke run would tell.
_ROOTS_OF: Final = {SATELLITE: (), GROUND_CONTROL: ("libstdc++6",)}

EXCLUDED: Final = {
    "awk": "runs in base-files' maintainer script",
    "debconf": "asks questions in maintainer scripts; none runs",
    "libdb5.3t64": "for the standard library's dbm.ndbm alone",
    "libncursesw6": "for the standard library's curses alone",
    "libreadline8t64": "for the standard library's readline alone",
    "libtinfo6": "for curses and readline alone",
    "netbase": "names of ports and protocols, which nothing here looks up",
    "openssl": "the program: runs in ca-certificates' maintainer script",
    "openssl-provider-legacy": "ciphers that only a configuration can load",
    "tzdata": "PyPI's tzdata is there, and newer",
}
"""Packages that others depend on and that images do without, each with the reason; nor what only they need."""

_EXCLUDED_OF: Final = {
    SATELLITE: {
        "libsqlite3-0": "nothing at a site keeps an SQLite database",
        "python3": "the default Python's name and scripts; Debian's modules are loaded by python3.13 itself",
    },
    GROUND_CONTROL: {},
}

_DEBIAN_NAMES: Final = {
    "bcrypt": "python3-bcrypt",
    "orjson": "python3-orjson",
    "pyyaml": "python3-yaml",
    "regex": "python3-regex",
    "ruamel-yaml-clib": "python3-ruamel.yaml.clib",
}
_WITHOUT_WHEEL: Final = {
    "linux/ppc64le": ("bcrypt", "orjson", "pyyaml", "ruamel-yaml-clib"),
    "linux/s390x": ("bcrypt", "orjson", "ruamel-yaml-clib"),
    "linux/386": ("bcrypt", "pyyaml", "regex"),
    "linux/riscv64": ("bcrypt", "orjson", "pyyaml", "ruamel-yaml-clib"),
}
"""Distributions of the satellite's lock that the package index has no wheel of for CPython 3.13 and trixie's glibc."""

_HEADER: Final = "# Debian packages of an image; written by `python -m ci lock`, not by hand."
_NAME: Final = r"[a-z0-9][a-z0-9+.-]+"
_LINE: Final = re.compile(
    rf"(?P<name>{_NAME}) (?P<version>[0-9][A-Za-z0-9.+:~-]*) (?P<architecture>[a-z0-9]+) "
    r"(?P<path>pool/[A-Za-z0-9][A-Za-z0-9.+:~_/-]*\.deb) (?P<size>[1-9][0-9]*) sha256:(?P<sha256>[0-9a-f]{64})"
)
_SNAPSHOT: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z")


@dataclass(frozen=True, order=True)
class DebianPackage:
    """One `.deb` of a lock."""

    name: str
    version: str
    architecture: str
    """Debian's, or `all`."""
    path: str
    """Below the archive's root: `pool/main/…`."""
    size_bytes: int
    sha256: str
    """64 hex digits."""

    @property
    def archive(self) -> str:
        """Which archive of a Debian mirror has it: `debian` or `debian-security`."""
        return "debian-security" if self.path.startswith("pool/updates/") else "debian"

    @property
    def file_name(self) -> str:
        """The path's last part."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class DebianLock:
    """The packages of one image on one platform, complete: nothing is resolved when an image is built."""

    snapshot: str
    """When the index that it was made from was written, `20261122T020905Z`: snapshot.debian.org has files by that."""
    architecture: str
    roots: tuple[str, ...]
    """What was asked for, sorted; the rest is what that depends on."""
    packages: tuple[DebianPackage, ...]
    """Sorted by name."""

    def snapshot_url(self, package: DebianPackage) -> str:
        """Return where a package is had for good, also after a point release has dropped its version."""
        return f"https://snapshot.debian.org/archive/{package.archive}/{self.snapshot}/{package.path}"


def lock_name(image: str, platform: Platform) -> str:
    """Return the name of an image's lock for a platform, in `ci/locks`."""
    return f"debian-{image}-{platform.debian}.lock"


def python_packages(image: str, platform: Platform) -> Mapping[str, str]:
    """Return which distributions come from Debian: PyPI's name → Debian's package; a wheel is had of all others."""
    names = _WITHOUT_WHEEL.get(platform.name, ()) if image == SATELLITE else ()
    return {name: _DEBIAN_NAMES[name] for name in names}


def roots(image: str, platform: Platform) -> tuple[str, ...]:
    """Return the Debian packages that an image asks for on a platform, sorted."""
    return tuple(sorted({*_ROOTS, *_ROOTS_OF[image], *python_packages(image, platform).values()}))


def excluded(image: str) -> Mapping[str, str]:
    """Return the packages that an image does without, though others depend on them: name → reason."""
    return {**EXCLUDED, **_EXCLUDED_OF[image]}


def parse_debian_lock(text: str) -> DebianLock:
    """Return what a lock file says.

    Args:
        text: as `debian_lock_text` writes it.

    Raises:
        UsageError: a line that is none of a lock's, a package of another architecture, or not in order.
    """
    header: dict[str, str] = {}
    packages: list[DebianPackage] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        key, separator, value = line.partition(": ")
        if separator and not packages:
            header[key] = value
            continue
        packages.append(_package(number, line))
    if set(header) != {"snapshot", "architecture", "roots"} or not _SNAPSHOT.fullmatch(header["snapshot"]):
        raise UsageError("Debian lock: its header has to say snapshot (20261122T020905Z), architecture and roots")
    lock = DebianLock(header["snapshot"], header["architecture"], tuple(header["roots"].split()), tuple(packages))
    _check(lock)
    return lock


def debian_lock_text(lock: DebianLock) -> str:
    """Return a lock as its file holds it; `parse_debian_lock` reads it."""
    lines = [
        _HEADER,
        f"snapshot: {lock.snapshot}",
        f"architecture: {lock.architecture}",
        f"roots: {' '.join(lock.roots)}",
        "",
        *(
            f"{each.name} {each.version} {each.architecture} {each.path} {each.size_bytes} sha256:{each.sha256}"
            for each in lock.packages
        ),
    ]
    return "\n".join(lines) + "\n"


def _package(number: int, line: str) -> DebianPackage:
    """Return the package that one line names."""
    matched = _LINE.fullmatch(line)
    if matched is None or ".." in matched["path"].split("/"):
        raise UsageError(f"Debian lock, line {number}: not `name version architecture path size sha256:…`: {line!r}")
    return DebianPackage(
        name=matched["name"],
        version=matched["version"],
        architecture=matched["architecture"],
        path=matched["path"],
        size_bytes=int(matched["size"]),
        sha256=matched["sha256"],
    )


def _check(lock: DebianLock) -> None:
    """Raise UsageError where a lock contradicts itself."""
    names = [each.name for each in lock.packages]
    if names != sorted(set(names)):
        raise UsageError("Debian lock: its packages are not in order, or one is there twice")
    if missing := sorted(set(lock.roots) - set(names)):
        raise UsageError(f"Debian lock: {', '.join(missing)} asked for, but not there")
    for each in lock.packages:
        if each.architecture not in {lock.architecture, "all"}:
            raise UsageError(f"Debian lock for {lock.architecture}: {each.name} is for {each.architecture}")
