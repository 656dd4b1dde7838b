from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from ci.checkout import commit_of, git_tags, is_changed, package_version, read_build, remote_url
from ci.context import Mirrors
from ci.errors import UsageError
from ci.publication import staging_tag

if TYPE_CHECKING:
    from pathlib import Path

TIME = "1700000000 +0000"


def git(folder: Path, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_AUTHOR_DATE": TIME,
        "GIT_COMMITTER_DATE": TIME,
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "user.name",
        "GIT_CONFIG_VALUE_0": "A",
        "GIT_CONFIG_KEY_1": "user.email",
        "GIT_CONFIG_VALUE_1": "a@example.com",
    }
    command = ("git", "-C", str(folder), *arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def make_source(folder: Path) -> Path:
    (folder / "harbor_satellite").mkdir()
    (folder / "harbor_satellite/__init__.py").write_text('"""A."""\n\n__version__ = "1.2.3"\n')
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    source = make_source(tmp_path)
    git(source, "init", "--quiet")
    git(source, "add", ".")
    git(source, "commit", "--quiet", "--message", "first")
    return source


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
