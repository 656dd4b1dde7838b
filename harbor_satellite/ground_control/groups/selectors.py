"""Selectors: wishes like "the newest three of shop/** with label edge", checked, matched and applied.

Pure: what the source holds comes in as values (``selection.py`` asks for it). Globs are those of Harbor: ``*`` and
``?`` stay within a component, ``**`` does not, ``{a,b}`` and ``[a-z]`` choose.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import InvalidInputError
from harbor_satellite.ground_control.groups.globs import Glob, parse_glob
from harbor_satellite.ground_control.groups.group_entries import GroupEntry
from harbor_satellite.ground_control.groups.policies import check_priority
from harbor_satellite.oci.platform import Platform
from harbor_satellite.oci.reference import check_repository

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from harbor_satellite.oci.digest import Digest

_LIST_LONGEST: Final = 32  # labels, or platforms, of a selector
_LABEL_LONGEST: Final = 255  # characters; Harbor's
_NEWEST_MOST: Final = 10_000
_GLOB_LONGEST: Final = 255  # characters


@dataclass(frozen=True, slots=True)
class Selector:
    """What a group shall hold of one project; see ``make_selector``."""

    project: str
    repository: Glob
    """Below the project."""
    tag: Glob
    labels: frozenset[str] = frozenset()
    """An artifact must have all of them."""
    platforms: tuple[Platform, ...] = ()
    """An artifact must have one of them; empty: whatever."""
    newest: int | None = None
    """How many of each repository, by push time; None: all."""
    priority: int = 0
    """Higher ones cross the link first."""

    def __str__(self) -> str:
        return f"{self.project}/{self.repository.text}:{self.tag.text}"

    def takes_repository(self, repository: str) -> bool:
        """Tell whether a repository, its project in front, is one of those that are looked at."""
        project, _, name = repository.partition("/")
        return project == self.project and self.repository.matches(name)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One artifact that the source has."""

    repository: str
    """With its project in front."""
    digest: Digest
    tags: tuple[str, ...]
    push_time: datetime
    labels: frozenset[str] = frozenset()
    platforms: tuple[Platform, ...] = ()
    type: str = "IMAGE"


def make_selector(
    where: str,
    *,
    project: str,
    repository: str = "**",
    tag: str = "**",
    labels: Sequence[str] = (),
    platforms: Sequence[str] = (),
    newest: int | None = None,
    priority: int = 0,
) -> Selector:
    """Check one selector.

    Raises:
        InvalidInputError: a value breaks its rule; the message begins with ``where`` and the field's name.
    """
    with _named(where, "project"):
        _check_project(project)
    with _named(where, "repository"):
        repository_glob = _glob(repository)
    with _named(where, "tag"):
        tag_glob = _glob(tag)
    with _named(where, "labels"):
        _check_labels(labels)
    with _named(where, "platforms"):
        _check_count(platforms)
        wanted = tuple(sorted({Platform.parse(text) for text in platforms}))
    with _named(where, "newest"):
        _check_newest(newest)
    with _named(where, "priority"):
        check_priority(priority, project)
    return Selector(project, repository_glob, tag_glob, frozenset(labels), wanted, newest, priority)


def select(candidates: Iterable[Candidate], selector: Selector) -> tuple[GroupEntry, ...]:
    """Return what a selector takes of what the source has, by repository and newest first.

    Each entry has the digest of the listing and those of its tags that match; what has no such tag is not taken.
    """
    taken: dict[str, list[tuple[Candidate, tuple[str, ...]]]] = {}
    for candidate in candidates:
        if _is_wanted(candidate, selector):
            tags = tuple(sorted(tag for tag in candidate.tags if selector.tag.matches(tag)))
            if tags:
                taken.setdefault(candidate.repository, []).append((candidate, tags))
    entries = []
    for repository in sorted(taken):
        # By digest where times are equal: the same listing always gives the same choice.
        newest = sorted(taken[repository], key=lambda item: (item[0].push_time, item[0].digest), reverse=True)
        entries += [_entry(candidate, tags, selector) for candidate, tags in newest[: selector.newest]]
    return tuple(entries)


def _is_wanted(candidate: Candidate, selector: Selector) -> bool:
    return (
        selector.takes_repository(candidate.repository)
        and selector.labels <= candidate.labels
        and (
            not selector.platforms
            or any(wish.covers(platform) for wish in selector.platforms for platform in candidate.platforms)
        )
    )


def _entry(candidate: Candidate, tags: tuple[str, ...], selector: Selector) -> GroupEntry:
    return GroupEntry(candidate.repository, tags, candidate.digest, type=candidate.type, priority=selector.priority)


@contextmanager
def _named(where: str, field: str) -> Iterator[None]:
    try:
        yield
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}.{field}: {error}") from error


def _check_project(project: str) -> None:
    if "/" in check_repository(project):
        raise InvalidInputError(f"a project has no '/': {project[:200]!r}")


def _check_newest(newest: int | None) -> None:
    if newest is not None and not 0 < newest <= _NEWEST_MOST:
        raise InvalidInputError(f"not between 1 and {_NEWEST_MOST}")


def _glob(text: str) -> Glob:
    if not text or len(text) > _GLOB_LONGEST:
        raise InvalidInputError(f"not between 1 and {_GLOB_LONGEST} characters")
    return parse_glob(text)


def _check_labels(labels: Sequence[str]) -> None:
    _check_count(labels)
    for label in labels:
        if not label or len(label) > _LABEL_LONGEST or not label.isprintable():
            raise InvalidInputError(f"not a label: {label[:80]!r}")


def _check_count(items: Sequence[str]) -> None:
    if len(items) > _LIST_LONGEST:
        raise InvalidInputError(f"{len(items)} of them; at most {_LIST_LONGEST} are taken")
