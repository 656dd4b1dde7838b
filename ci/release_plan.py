"""What a release will be, decided and checked before anything is built, and the texts that tell of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ci import charts
from ci.checkout import commit_of, git_tags, package_version
from ci.credentials import read_secret
from ci.errors import UsageError
from ci.platforms import PLATFORMS_OF
from ci.references import image_reference
from ci.versions import LATEST, notes, parse_tag, releases, tags_to_publish

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ci.options import Options
    from ci.references import Reference
    from ci.versions import Release

TOKEN_VARIABLE: Final = "GITHUB_TOKEN"  # noqa: S105 - its name
CHART_NAME: Final = charts.CHART.rpartition("/")[2]


@dataclass(frozen=True)
class Plan:
    """A release."""

    release: Release
    tags: tuple[str, ...]
    """Of the images."""
    notes: str
    """Markdown, from the changelog."""

    @property
    def is_latest(self) -> bool:
        """Whether it is what `latest` names: final, and the newest."""
        return LATEST in self.tags


def plan_release(options: Options, source: Path, commit: str, environment: Mapping[str, str]) -> Plan:
    """Return what will be released.

    Raises:
        UsageError: tag, package, changelog, checkout and variables do not fit together.
    """
    release = parse_tag(options.release_tag)
    if not commit:
        raise UsageError(f"{source} is no git checkout, and a release has the files that git keeps")
    if (own := package_version(source)) != release.pep440:
        raise UsageError(f"the tag {options.release_tag} is of {release.pep440}, but the package says it is {own}")
    if set(options.images) != set(PLATFORMS_OF):
        raise UsageError("a release has all images, which its chart and compose files name: leave out --image")
    if not options.dry_run:
        _refuse_unfinished(options, source, commit, environment)
    changelog = (source / "CHANGELOG.md").read_text(encoding="utf-8")
    return Plan(
        release,
        tags_to_publish(release, releases(git_tags(source))),
        notes(changelog, release.semver, may_be_unreleased=options.dry_run),
    )


def chart_reference(prefix: Reference) -> Reference:
    """Return the chart's repository below the prefix, without tag and digest."""
    return image_reference(prefix, f"charts/{CHART_NAME}")


def _refuse_unfinished(options: Options, source: Path, commit: str, environment: Mapping[str, str]) -> None:
    if options.platforms or not options.smoke:
        raise UsageError("a release has all platforms, each run once: leave out --platform and --no-smoke")
    if commit_of(source, options.release_tag) != commit:
        raise UsageError(f"{source} is at {commit}, not at the tag {options.release_tag}: check it out")
    if options.github and read_secret(environment, TOKEN_VARIABLE) is None:
        raise UsageError(f"{TOKEN_VARIABLE} must hold a token that may write the contents of {options.github}")


def notes_text(plan: Plan, artifacts: Mapping[str, str]) -> str:
    """Return the release's notes: the changelog's section, and what was published, by digest.

    Args:
        plan: the release.
        artifacts: what → reference.
    """
    lines = [f"| {what} | `{reference}` |" for what, reference in artifacts.items()]
    return "\n".join([plan.notes, "", "### Images and chart", "", "| what | reference |", "|---|---|", *lines, ""])


def files_text(sizes_bytes: Mapping[str, int]) -> str:
    """Return the files of a release with their sizes, in columns; KB are 10³ bytes."""
    width = max(map(len, sizes_bytes), default=0)
    return "\n".join(f"  {name.ljust(width)}  {size / 1e3:>9.1f} KB" for name, size in sizes_bytes.items())


def tags_text(references: Sequence[str]) -> str:
    """Return references, one on a line."""
    return "\n".join(f"  {reference}" for reference in references)
