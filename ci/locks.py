"""The lock of the Python distributions: what of it a platform gets, as requirements that pip checks by hash. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from packaging.markers import InvalidMarker, Marker
from packaging.utils import canonicalize_name

from ci.errors import UsageError
from ci.platforms import GROUND_CONTROL, SATELLITE, Platform, marker_environment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

LOCK_OF: Final = {SATELLITE: "constraints-edge.txt", GROUND_CONTROL: "constraints-ground-control.txt"}
"""Which lock, in the checkout's root, an image is installed from."""

_PINNED: Final = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;]+)\s*(?:;\s*(?P<marker>[^#]+))?")
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class LockedDistribution:
    """One distribution of a lock."""

    name: str
    """Normalised (PEP 503): `ruamel-yaml-clib`."""
    version: str
    marker: str
    """Where it is needed (PEP 508); empty: everywhere."""
    hashes: tuple[str, ...]
    """`sha256:…` of its files, wheels and source; at least one."""

    def is_wanted_on(self, platform: Platform) -> bool:
        """Return whether the images' Python needs it on this platform."""
        return not self.marker or Marker(self.marker).evaluate(marker_environment(platform))


def parse_lock(text: str) -> tuple[LockedDistribution, ...]:
    """Return what a lock names, in its order.

    Args:
        text: pip's requirements format, as `uv pip compile --generate-hashes` writes it.

    Raises:
        UsageError: a line that is not pinned to one version and to hashes, or a name and marker that come twice.
    """
    locked: list[LockedDistribution] = []
    seen: set[tuple[str, str]] = set()
    for number, line in _logical_lines(text):
        each = _distribution(number, line)
        if (each.name, each.marker) in seen:
            raise UsageError(f"lock, line {number}: {each.name} is there twice")
        seen.add((each.name, each.marker))
        locked.append(each)
    return tuple(locked)


def requirements_text(lock_text: str, platform: Platform, given_by_debian: Collection[str]) -> str:
    """Return a lock's part for one platform: for `pip install --no-deps --require-hashes`, without any marker.

    pip would evaluate markers for the machine it runs on, whatever platform it is told to install for.

    Args:
        lock_text: see `parse_lock`.
        platform: where it will run.
        given_by_debian: names of distributions that come as Debian packages there.

    Raises:
        UsageError: the lock is not in order, or Debian is to give what the platform does not need.
    """
    wanted = {each.name: each for each in parse_lock(lock_text) if each.is_wanted_on(platform)}
    given = {canonicalize_name(name) for name in given_by_debian}
    if strange := sorted(given - set(wanted)):
        raise UsageError(
            f"lock for {platform.name}: {', '.join(strange)} come from Debian, but nothing needs them there"
        )
    lines = [
        " \\\n    ".join([f"{each.name}=={each.version}", *(f"--hash={digest}" for digest in each.hashes)]) + "\n"
        for each in wanted.values()
        if each.name not in given
    ]
    return "".join(lines)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each requirement as one line, with the number of the line where it starts."""
    start = 0
    parts: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not parts and (not stripped or stripped.startswith("#")):
            continue
        start = start if parts else number
        parts.append(stripped.removesuffix("\\").strip())
        if not stripped.endswith("\\"):
            yield start, " ".join(parts)
            parts = []
    if parts:
        yield start, " ".join(parts)


def _distribution(number: int, line: str) -> LockedDistribution:
    """Return what one logical line names."""
    requirement, *options = line.split(" --hash=")
    matched = _PINNED.fullmatch(requirement.strip())
    if matched is None:
        raise UsageError(f"lock, line {number}: not a name pinned by ==: {requirement!r}")
    hashes = tuple(option.strip() for option in options)
    if not hashes or not all(_HASH.fullmatch(each) for each in hashes):
        raise UsageError(f"lock, line {number}: {matched['name']} has no sha256 hashes, or others than those")
    marker = (matched["marker"] or "").strip()
    try:
        _ = Marker(marker) if marker else None
    except InvalidMarker as error:
        raise UsageError(f"lock, line {number}: {matched['name']} has a marker that is none: {marker!r}") from error
    return LockedDistribution(canonicalize_name(matched["name"]), matched["version"], marker, hashes)
