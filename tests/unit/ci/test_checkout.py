from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ci.builder import not_in_sdist, not_in_wheel
from ci.checkout import (
    commit_of,
    git_tags,
    is_changed,
    package_version,
    read_build,
    remote_url,
    tracked_texts,
    untracked_patterns,
)
from ci.checks import not_checked
from ci.context import Mirrors
from ci.errors import UsageError
from ci.publication import staging_tag
from tests.unit.ci.checkouts import git, make_checkout, make_source

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(make_source(tmp_path))


def test_read_build_checkout_names_commit_and_its_time(checkout: Path) -> None:
    build = read_build(checkout, "", Mirrors(), {})

    assert (build.version, build.epoch) == ("1.2.3", 1700000000)
    assert build.commit == git(checkout, "rev-parse", "HEAD")
    assert build.source.is_absolute()


def test_read_build_version_given_comes_first(checkout: Path) -> None:
    assert read_build(checkout, "2.0.0", Mirrors(), {}).version == "2.0.0"


def test_read_build_without_git_has_no_commit(tmp_path: Path) -> None:
    build = read_build(make_source(tmp_path), "", Mirrors(), {})

    assert (build.version, build.commit, build.epoch) == ("1.2.3", "", 315_532_800)


def test_package_version_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no checkout of this project"):
        package_version(tmp_path)


def test_commit_of_tag_is_the_commit_not_the_tag_object(checkout: Path) -> None:
    git(checkout, "tag", "--annotate", "--message", "x", "v1.2.3")

    assert commit_of(checkout, "v1.2.3") == git(checkout, "rev-parse", "HEAD")
    assert git_tags(checkout) == ("v1.2.3",)
    assert not commit_of(checkout, "v9.9.9")


def test_remote_url_none_is_empty(checkout: Path) -> None:
    assert not remote_url(checkout)


def test_staging_tag_names_the_commit(checkout: Path) -> None:
    build = read_build(checkout, "", Mirrors(), {})

    assert staging_tag(build, is_changed=is_changed(checkout)) == f"sha-{build.commit[:12]}"


def test_staging_tag_changed_checkout_is_refused(checkout: Path) -> None:
    (checkout / "new.txt").write_text("x")

    with pytest.raises(UsageError, match="commit the changes, then publish"):
        staging_tag(read_build(checkout, "", Mirrors(), {}), is_changed=is_changed(checkout))


def test_staging_tag_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no git checkout"):
        staging_tag(read_build(make_source(tmp_path), "", Mirrors(), {}), is_changed=False)


@pytest.fixture
def tried(tmp_path: Path) -> Path:
    """A checkout whose compose files were tried out, and that has something new."""
    source = make_source(tmp_path)
    (source / "deployments/compose").mkdir(parents=True)
    (source / "deployments/compose/site.yaml").write_text("services: {}\n")
    (source / ".gitignore").write_text("/deployments/compose/secrets/\n/deployments/compose/.env\n*.key\n")
    make_checkout(source)
    (source / ".git/info/exclude").write_text("/harbor_satellite/my-*.txt\n")
    (source / "deployments/compose/secrets").mkdir()
    for path in ("deployments/compose/secrets/x", "deployments/compose/.env", "harbor_satellite/my-[own].txt"):
        (source / path).write_text("made-up-secret")
    (source / "new").mkdir()
    for name in ("module.py", "private.key"):
        (source / "new" / name).write_text("x")
    return source


def test_tracked_texts_ignored_secret_is_left_where_it_is(tried: Path) -> None:
    texts = tracked_texts(tried, "deployments/compose", "deployments/helm")

    assert texts == {"deployments/compose/site.yaml": "services: {}\n"}


def test_tracked_texts_file_that_is_gone_is_named(tried: Path) -> None:
    (tried / "deployments/compose/site.yaml").unlink()

    with pytest.raises(UsageError, match=r"a file that git keeps cannot be read: .*site\.yaml"):
        tracked_texts(tried, "deployments/compose")


IGNORED = {
    "deployments/compose/secrets",
    "deployments/compose/.env",
    r"harbor_satellite/my-\[own\].txt",
    "new/private.key",
}


def test_untracked_patterns_ignored_are_told_from_new(tried: Path) -> None:
    assert set(untracked_patterns(tried, is_ignored_only=True)) == IGNORED
    assert set(untracked_patterns(tried, is_ignored_only=False)) == {*IGNORED, "new"}


def test_untracked_patterns_without_git_are_none(tmp_path: Path) -> None:
    assert untracked_patterns(make_source(tmp_path), is_ignored_only=False) == ()


def test_uploads_leave_out_what_git_ignores(tried: Path) -> None:
    for excluded in (not_in_wheel(tried), not_in_sdist(tried), not_checked(tried)):
        assert set(excluded) >= IGNORED
    assert "new" in not_in_sdist(tried)
    assert "new" not in not_checked(tried)
