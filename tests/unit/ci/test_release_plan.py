from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ci.errors import UsageError
from ci.options import parse
from ci.release_plan import files_text, notes_text, plan_release
from tests.unit.ci.checkouts import git, make_checkout

if TYPE_CHECKING:
    from pathlib import Path

    from ci.release_plan import Plan

CHANGELOG = "# Changelog\n\n## Unreleased\n\n- Next.\n\n## [1.2.3] - 2026-11-23\n\n- All.\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "harbor_satellite").mkdir()
    (tmp_path / "harbor_satellite/__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return tmp_path


def planned(source: Path, *arguments: str, tag: str = "v1.2.3") -> Plan:
    options = parse(["release", "--registry", "ghcr.io/acme", "--tag", tag, *arguments])
    return plan_release(options, source, "0" * 40, {})


def test_plan_release_dry_run_needs_no_tag_in_git(source: Path) -> None:
    plan = planned(source, "--dry-run", "--platform", "linux/amd64")

    assert plan.tags == ("1.2.3", "1.2", "1", "latest")
    assert plan.notes == "- All."


def test_plan_release_of_an_old_line_is_not_latest(source: Path) -> None:
    assert planned(source, "--dry-run").is_latest

    make_checkout(source)
    git(source, "tag", "v1.3.0")

    assert not planned(source, "--dry-run").is_latest


def test_plan_release_without_git_is_refused(source: Path) -> None:
    options = parse(["release", "--registry", "ghcr.io/acme", "--tag", "v1.2.3", "--dry-run"])

    with pytest.raises(UsageError, match="is no git checkout"):
        plan_release(options, source, "", {})


def test_plan_release_dry_run_shows_what_is_unreleased(source: Path) -> None:
    (source / "CHANGELOG.md").write_text(CHANGELOG.replace("[1.2.3]", "[1.2.2]"))

    assert planned(source, "--dry-run").notes == "- Next."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "not at the tag v1.2.3: check it out"),
        (("--platform", "linux/amd64"), "a release has all platforms"),
        (("--no-smoke",), "a release has all platforms, each run once"),
        (("--dry-run", "--image", "satellite"), "a release has all images"),
    ],
    ids=["tag-elsewhere", "one-platform", "not-run", "one-image"],
)
def test_plan_release_unfinished_is_refused(source: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(source, *arguments)


def test_plan_release_other_version_is_refused(source: Path) -> None:
    with pytest.raises(UsageError, match=r"v1\.2\.4 is of 1\.2\.4, but the package says it is 1\.2\.3"):
        planned(source, "--dry-run", tag="v1.2.4")


def test_notes_text_names_what_was_published(source: Path) -> None:
    text = notes_text(planned(source, "--dry-run"), {"satellite": "ghcr.io/acme/satellite@sha256:1"})

    assert text.startswith("- All.\n")
    assert "| satellite | `ghcr.io/acme/satellite@sha256:1` |" in text


def test_files_text_sizes_stand_in_a_column() -> None:
    assert files_text({"a": 1234, "longer": 5}).splitlines() == ["  a             1.2 KB", "  longer        0.0 KB"]
