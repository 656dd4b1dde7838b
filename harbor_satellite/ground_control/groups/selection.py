"""Evaluating selectors against the source: what it holds is asked for, what belongs to the group is decided elsewhere.

A listing that fails takes nothing from any site: what was published of what the selector names stays as it was, and
the problem is kept with the group's unresolved artifacts. A project that truly has nothing empties the selector.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError, RemoteError
from harbor_satellite.ground_control.groups.group_entries import GroupEntry
from harbor_satellite.ground_control.groups.selectors import Candidate, Selector, select
from harbor_satellite.ground_control.groups.unresolved import Unresolved
from harbor_satellite.harbor.artifacts import HarborArtifact, list_artifacts, list_repositories
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from harbor_satellite.harbor.client import HarborClient
    from harbor_satellite.registry.api import Registry
    from harbor_satellite.state.artifact import StateArtifact, StateEntry

logger = logging.getLogger(__name__)

REFERRER: Final = "REFERRER"
"""Type of an entry that was found beside another: a signature of older cosign, under a tag of its own."""
_WORKERS: Final = 8
"""Repositories listed at once; the source is near."""
_DEADLINE_SECONDS: Final = 300.0
"""For all selectors of a group; less than its task may take, so that the rest of the group is still published."""
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Selection:
    """What the selectors of a group give."""

    entries: tuple[GroupEntry, ...] = ()
    """Each with the digest of the listing; of one tag, what the first selector says."""
    kept: tuple[StateEntry, ...] = ()
    """As published before, because it could not be looked at now; no tag of it is in ``entries``."""
    problems: tuple[Unresolved, ...] = ()


class Evaluation:
    """One evaluation of a group's selectors; every repository is listed once, whoever names it.

    Args:
        harbor: whom to ask for listings; None where the source is no Harbor.
        registry: the source, asked for tags where there is no Harbor.
        published: what was published of the group last.
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        harbor: HarborClient | None,
        registry: Registry,
        published: StateArtifact | None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._harbor = harbor
        self._registry = registry
        self._published = published.artifacts if published else ()
        self._monotonic = monotonic
        self._ends_at = monotonic() + _DEADLINE_SECONDS
        self._listings: dict[str, tuple[Candidate, ...] | HarborSatelliteError] = {}
        self._repositories: dict[str, tuple[str, ...]] = {}

    def run(self, selectors: Sequence[Selector]) -> Selection:
        """Return what the selectors give; nothing that the source does or says is raised."""
        entries: list[GroupEntry] = []
        kept: list[StateEntry] = []
        problems: list[Unresolved] = []
        for selector in selectors:
            evaluate = self._by_tags if self._harbor is None else self._by_listing
            try:
                found = evaluate(selector)
            except HarborSatelliteError as error:
                found = self._failed(selector, selector.takes_repository, error)
            entries += found.entries
            kept += found.kept
            problems += found.problems
        return _first_of_each_tag(entries, kept, problems)

    def _by_listing(self, selector: Selector) -> Selection:
        if self._harbor is None:
            raise InvalidInputError("the source is no Harbor")
        names = tuple(name for name in self._names(self._harbor, selector.project) if selector.takes_repository(name))
        self._list(self._harbor, names)
        candidates: list[Candidate] = []
        failed: list[Selection] = []
        for name in names:
            listing = self._listings[name]
            if isinstance(listing, HarborSatelliteError):
                failed.append(self._failed(selector, {name}.__contains__, listing, name))
            else:
                candidates += listing
        return Selection(
            select(candidates, selector),
            tuple(entry for each in failed for entry in each.kept),
            tuple(problem for each in failed for problem in each.problems),
        )

    def _names(self, harbor: HarborClient, project: str) -> tuple[str, ...]:
        if project not in self._repositories:
            self._check_time()
            self._repositories[project] = tuple(f"{project}/{name}" for name in list_repositories(harbor, project))
        return self._repositories[project]

    def _list(self, harbor: HarborClient, names: Iterable[str]) -> None:
        missing = [name for name in names if name not in self._listings]

        def listed(name: str) -> tuple[Candidate, ...] | HarborSatelliteError:
            project, _, repository = name.partition("/")
            try:
                self._check_time()
                return tuple(_candidate(name, item) for item in list_artifacts(harbor, project, repository))
            except HarborSatelliteError as error:
                return error

        with ThreadPoolExecutor(_WORKERS, "select") as pool:
            self._listings.update(zip(missing, pool.map(listed, missing), strict=True))

    def _by_tags(self, selector: Selector) -> Selection:
        """Ask a registry that is no Harbor: it knows tags, and no projects, labels or times."""
        asked = {"labels": selector.labels, "platforms": selector.platforms, "newest": selector.newest}
        beyond = [name for name, value in asked.items() if value]
        if beyond or not selector.repository.is_literal:
            what = ", ".join([*beyond, *([] if selector.repository.is_literal else ["a pattern of repositories"])])
            raise InvalidInputError(f"only a Harbor can be asked for {what}; the source is none")
        self._check_time()
        repository = f"{selector.project}/{selector.repository.text}"
        tags = self._registry.tag_list(repository)
        if not tags:
            # To a registry a repository that is gone and one that is empty are the same.
            raise InvalidInputError(f"{self._registry.name}/{repository} has no tags, or is not there")
        found = tuple(tag for tag in tags if selector.tag.matches(tag))
        return Selection((GroupEntry(repository, found, priority=selector.priority),) if found else ())

    def _check_time(self) -> None:
        if self._monotonic() > self._ends_at:
            raise RemoteError(f"the source took more than {_DEADLINE_SECONDS:.0f} s to answer", retryable=True)

    def _failed(
        self, selector: Selector, is_named: Callable[[str], bool], error: HarborSatelliteError, name: str = ""
    ) -> Selection:
        reference = f"{name}:{selector.tag.text}" if name else str(selector)
        logger.warning("selector not evaluated selector=%s reason=%s", reference, error)
        # A signature under a tag of its own stays beside what it may belong to.
        kept = tuple(
            replace(entry, tags=tags)
            for entry in self._published
            if is_named(entry.repository)
            if (tags := tuple(tag for tag in entry.tags if entry.type == REFERRER or selector.tag.matches(tag)))
        )
        return Selection((), kept, (Unresolved(reference, str(error)),))


def _first_of_each_tag(
    entries: Sequence[GroupEntry], kept: Sequence[StateEntry], problems: Sequence[Unresolved]
) -> Selection:
    seen: set[tuple[str, str]] = set()
    fresh: list[GroupEntry] = []
    for entry in entries:
        tags = tuple(tag for tag in entry.tags if (entry.repository, tag) not in seen)
        seen.update((entry.repository, tag) for tag in tags)
        if tags:
            fresh.append(replace(entry, tags=tags))
    return Selection(tuple(fresh), without_tags(kept, seen), tuple(dict.fromkeys(problems)))


def without_tags(entries: Iterable[StateEntry], tags: set[tuple[str, str]]) -> tuple[StateEntry, ...]:
    """Return published entries without the tags of repositories that are given; those with no tag left are dropped.

    Of one tag that two entries name, the first counts; ``tags`` grows by what is returned.
    """
    left: list[StateEntry] = []
    for entry in entries:
        mine = tuple(tag for tag in entry.tags if (entry.repository, tag) not in tags)
        tags.update((entry.repository, tag) for tag in mine)
        if mine:
            left.append(replace(entry, tags=mine))
    return tuple(left)


def _candidate(repository: str, artifact: HarborArtifact) -> Candidate:
    return Candidate(
        repository=repository,
        digest=Digest.parse(artifact.digest),
        tags=artifact.tags,
        push_time=artifact.push_time or _NEVER,
        labels=frozenset(artifact.labels),
        platforms=tuple(Platform(*text.split("/", 2)) for text in artifact.platforms),
        type=artifact.type if artifact.type not in {"", "UNKNOWN"} else "IMAGE",
    )
