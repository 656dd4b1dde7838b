from __future__ import annotations

import pytest
from packaging.version import Version

from ci.errors import UsageError
from ci.versions import notes, parse_tag, releases, tags_to_publish

CHANGELOG = """# Changelog

## [Unreleased]

### Added
- Next.

## [1.2.0] - 2026-11-01

### Fixed
- A thing.

## 1.1.0 - 2026-10-01
- First.

## [1.0.0]

[1.2.0]: https://example.com/compare
"""


@pytest.mark.parametrize(
    ("tag", "semver", "pep440"),
    [
        ("v1.2.3", "1.2.3", "1.2.3"),
        ("refs/tags/v0.1.0", "0.1.0", "0.1.0"),
        ("v1.2.3-rc.1", "1.2.3-rc.1", "1.2.3rc1"),
        ("v1.2.3-alpha.10", "1.2.3-alpha.10", "1.2.3a10"),
    ],
)
def test_parse_tag_release_has_both_spellings(tag: str, semver: str, pep440: str) -> None:
    release = parse_tag(tag)

    assert (release.semver, release.pep440) == (semver, pep440)
    assert str(Version(release.pep440)) == pep440


@pytest.mark.parametrize("tag", ["1.2.3", "v1.2", "v1.2.3rc1", "v01.2.3", "v1.2.3-rc", "v1.2.3+x", "main", ""])
def test_parse_tag_other_is_refused(tag: str) -> None:
    with pytest.raises(UsageError, match="is no release's tag"):
        parse_tag(tag)


def test_releases_tags_are_ordered_as_python_orders_them() -> None:
    tags = ["v1.2.3", "v1.10.0", "nightly", "v1.2.3-rc.2", "v1.2.3-rc.10", "v1.2.3-beta.11", "v1.2.3-alpha.1"]

    found = [release.pep440 for release in releases(tags)]

    assert found == sorted(found, key=Version)
    assert len(found) == len(tags) - 1


@pytest.mark.parametrize(
    ("tag", "others", "expected"),
    [
        ("v1.2.3", [], ("1.2.3", "1.2", "1", "latest")),
        ("v1.2.3", ["v1.2.2", "v1.2.3", "v2.0.0-rc.1"], ("1.2.3", "1.2", "1", "latest")),
        ("v1.2.3-rc.1", [], ("1.2.3-rc.1",)),
        ("v1.2.4", ["v1.3.0"], ("1.2.4", "1.2")),
        ("v1.2.4", ["v2.0.0"], ("1.2.4", "1.2", "1")),
        ("v1.2.4", ["v1.2.5"], ("1.2.4",)),
    ],
    ids=["first", "newest", "pre-release", "older-minor", "older-major", "older-patch"],
)
def test_tags_to_publish_only_newest_moves_tags(tag: str, others: list[str], expected: tuple[str, ...]) -> None:
    assert tags_to_publish(parse_tag(tag), releases(others)) == expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.2.0", "### Fixed\n- A thing."), ("1.1.0", "- First.")],
    ids=["brackets", "plain"],
)
def test_notes_version_is_cut_out(version: str, expected: str) -> None:
    assert notes(CHANGELOG, version) == expected


@pytest.mark.parametrize("version", ["1.3.0", "1.0.0", "1.2"], ids=["missing", "empty", "part-of-one"])
def test_notes_without_section_is_refused(version: str) -> None:
    with pytest.raises(UsageError, match=rf"nothing under '## \[{version}\]'"):
        notes(CHANGELOG, version)


def test_notes_dry_run_shows_unreleased() -> None:
    assert notes(CHANGELOG, "1.3.0", may_be_unreleased=True) == "### Added\n- Next."
