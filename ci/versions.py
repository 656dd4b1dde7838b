"""Versions of a release: git tag, Python version, chart version, image tags and part of the changelog. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ci.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_NUMBER: Final = r"(0|[1-9][0-9]*)"
_TAG: Final = re.compile(rf"v{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-(alpha|beta|rc)\.{_NUMBER})?")
# How PEP 440 writes what semantic versioning calls a pre-release; the values sort as the releases do.
_STAGES: Final = {"alpha": "a", "beta": "b", "rc": "rc"}
_FINAL: Final = "~"
_HEADING: Final = re.compile(r"^## +\[?(?P<name>[^\]\s]+)\]?.*$", re.MULTILINE)
_LINK: Final = re.compile(r"^\[[^\]]+\]: +\S+\s*$", re.MULTILINE)
UNRELEASED: Final = "Unreleased"
LATEST: Final = "latest"


@dataclass(frozen=True, order=True)
class Release:
    """What a git tag such as `v1.2.3` or `v1.2.3-rc.1` says; ordered as semantic versioning orders."""

    major: int
    minor: int
    patch: int
    stage: str = _FINAL
    """`alpha`, `beta`, `rc`, or a mark that sorts after them."""
    number: int = 0
    """Of the pre-release."""

    @property
    def is_final(self) -> bool:
        """Whether it is no pre-release."""
        return self.stage == _FINAL

    @property
    def semver(self) -> str:
        """As the chart, the images and the changelog call it: `1.2.3-rc.1`."""
        core = f"{self.major}.{self.minor}.{self.patch}"
        return core if self.is_final else f"{core}-{self.stage}.{self.number}"

    @property
    def pep440(self) -> str:
        """As Python calls it: `1.2.3rc1`."""
        core = f"{self.major}.{self.minor}.{self.patch}"
        return core if self.is_final else f"{core}{_STAGES[self.stage]}{self.number}"


def parse_tag(tag: str) -> Release:
    """Return the release that a git tag names.

    Args:
        tag: `v1.2.3`, `v1.2.3-rc.1` (or `alpha`, `beta`); `refs/tags/` before it is dropped.

    Raises:
        UsageError: it is no release's.
    """
    found = _TAG.fullmatch(tag.removeprefix("refs/tags/"))
    if found is None:
        raise UsageError(f"{tag!r} is no release's tag: wanted is v1.2.3 or v1.2.3-rc.1 (alpha, beta, rc)")
    major, minor, patch, stage, number = found.groups()
    return Release(int(major), int(minor), int(patch), stage or _FINAL, int(number or 0))


def releases(tags: Iterable[str]) -> tuple[Release, ...]:
    """Return the releases among the tags of a checkout, oldest first; other tags are passed over."""
    return tuple(sorted(parse_tag(tag) for tag in tags if _TAG.fullmatch(tag)))


def tags_to_publish(release: Release, others: Iterable[Release] = ()) -> tuple[str, ...]:
    """Return the tags under which the images of a release are published, the exact one first.

    A tag that moves (`1.2`, `1`, `latest`) goes to final releases only, and only to the newest of its line: a fix of
    an old line published after a new one must not take `latest` back.

    Args:
        release: the one to publish.
        others: those that there are already; itself may be among them.
    """
    if not release.is_final:
        return (release.semver,)
    newer = [other for other in others if other.is_final and other > release]
    tags = [release.semver]
    if not any((other.major, other.minor) == (release.major, release.minor) for other in newer):
        tags.append(f"{release.major}.{release.minor}")
    if not any(other.major == release.major for other in newer):
        tags.append(f"{release.major}")
    if not newer:
        tags.append(LATEST)
    return tuple(tags)


def notes(changelog: str, version: str, *, may_be_unreleased: bool = False) -> str:
    """Return a version's section of a changelog in Keep a Changelog's form, without its heading.

    Args:
        changelog: the text of CHANGELOG.md.
        version: as the heading names it, `1.2.3`.
        may_be_unreleased: show what is unreleased where the version has no section yet.

    Raises:
        UsageError: the version has no section, or an empty one.
    """
    sections = _sections(changelog)
    wanted = [version, UNRELEASED] if may_be_unreleased else [version]
    for name in wanted:
        if text := sections.get(name.lower(), ""):
            return text
    there = ", ".join(_HEADING.findall(changelog)) or "none"
    raise UsageError(
        f"CHANGELOG.md has nothing under '## [{version}]': write the version's section (there are: {there})"
    )


def _sections(changelog: str) -> dict[str, str]:
    headings = list(_HEADING.finditer(changelog))
    ends = [heading.start() for heading in headings[1:]] + [len(changelog)]
    return {
        heading["name"].lower(): _LINK.sub("", changelog[heading.end() : end]).strip()
        for heading, end in zip(headings, ends, strict=True)
    }
