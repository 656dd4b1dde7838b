from __future__ import annotations

import io
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from ci.errors import PipelineError
from ci.packages import archive, chart_archive, checksums, ignored

if TYPE_CHECKING:
    from pathlib import Path

CHART = {"values.yaml": b"a: 1\n", "templates/x.yaml": b"b: 2\n", "Chart.yaml": b"name: satellite\n"}


def test_chart_archive_same_content_same_bytes() -> None:
    other_order = dict(reversed(CHART.items()))

    assert chart_archive("satellite", CHART, 1) == chart_archive("satellite", other_order, 1)


def test_chart_archive_holds_files_below_name() -> None:
    with tarfile.open(fileobj=io.BytesIO(chart_archive("satellite", CHART, 7))) as tar:
        members = {member.name: (tar.extractfile(member), member.mtime) for member in tar}

    assert list(members) == ["satellite/Chart.yaml", "satellite/templates/x.yaml", "satellite/values.yaml"]
    assert {mtime for _, mtime in members.values()} == {7}


def test_chart_archive_without_chart_is_refused() -> None:
    with pytest.raises(PipelineError, match=r"the chart satellite has no Chart\.yaml"):
        chart_archive("satellite", {"values.yaml": b""}, 1)


def test_archive_scripts_may_be_executed() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive({"a.sh": b"#!/bin/sh\n", "a.txt": b"#"}, 1))) as tar:
        assert {member.name: member.mode for member in tar} == {"a.sh": 0o755, "a.txt": 0o644}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("ci/small.yaml", True),
        ("a/ci/small.yaml", True),
        ("templates/ci", False),
        ("notes.tmp", True),
        ("values.yaml", False),
    ],
)
def test_ignored_patterns_of_helmignore(path: str, *, expected: bool) -> None:
    assert ignored(path, "# comment\n.git/\n*.tmp\n\nci/\n") is expected


def test_checksums_are_read_by_sha256sum(tmp_path: Path) -> None:
    files = {"b.txt": b"two", "a.txt": b"one"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "SHA256SUMS").write_text(checksums(files))

    done = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "a.txt: OK\nb.txt: OK\n")
