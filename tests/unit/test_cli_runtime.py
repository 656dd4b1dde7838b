from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from harbor_satellite.cli.runtime import app
from harbor_satellite.edge.runtimes import WISH_FILE, read_outcomes
from harbor_satellite.satellite.host import Host
from harbor_satellite.satellite.runtime_wish import RuntimeWish, wish_bytes
from tests.unit.satellite.hosts import DAEMON, DROP_IN, MIRRORS, put, seen

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HARBOR_SATELLITE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HARBOR_SATELLITE_ENV_FILE", "")
    monkeypatch.setenv("HARBOR_SATELLITE_HOST_ROOT", str(tmp_path / "root"))
    put(tmp_path / "root", "usr/bin/podman", "")
    put(tmp_path / "root", DAEMON, '{\n  "debug": true\n}\n')
    return tmp_path / "root"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    return result.exit_code, result.output


def run_json(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*arguments, "--output", "json")[1])["runtimes"]
    return found


def test_plan_of_all_that_is_here_shows_a_diff_and_writes_nothing(root: Path) -> None:
    before = seen(root)

    code, output = run("plan")

    assert (code, seen(root)) == (0, before)
    assert '+  "registry-mirrors": ["http://127.0.0.1:8585"]' in output
    assert "podman: 1 files to change" in output


def test_plan_after_apply_is_no_change(root: Path) -> None:
    run("apply")

    code, output = run("plan")

    assert (code, output.count("no change"), "to change" in output) == (0, 2, False)
    assert [one["changes"] for one in run_json("plan")] == [[], []]


def test_apply_and_undo_by_name(root: Path, tmp_path: Path) -> None:
    before = seen(root)

    applied = run_json("apply", "--runtime", "docker", "--registry", "quay.io", "--target", "http://127.0.0.1:5000")
    known = set(read_outcomes(tmp_path / "data"))
    code, output = run("undo")

    assert [change["change"] for change in applied[0]["changes"]] == ["create", "change"]
    assert any("quay.io cannot" in note for note in applied[0]["notes"])
    assert (known, set(read_outcomes(tmp_path / "data"))) == ({"docker"}, set())
    assert (code, seen(root)) == (0, before)
    assert "changed /etc/docker/daemon.json" in output


def test_apply_by_hand_of_what_the_site_wants_is_the_sites_to_undo(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_RUNTIMES", "podman")

    run("apply")
    run("apply", "--runtime", "docker")

    assert Host(root).configured() == {"podman": "site", "docker": "hand"}


def test_undo_dry_run_only_shows(root: Path) -> None:
    run("apply")
    applied = seen(root)

    code, output = run("undo", "--dry-run", "--runtime", "podman")

    assert (code, seen(root)) == (0, applied)
    assert "+++ /dev/null" in output


def test_apply_one_that_refuses_fails_and_the_others_are_done(root: Path) -> None:
    put(root, DAEMON, "{")

    code, output = run("apply")

    assert code == 1
    assert "is not JSON" in output
    assert (root / DROP_IN).exists()


def test_apply_from_a_file_of_the_agent(root: Path, tmp_path: Path) -> None:
    wish = tmp_path / "data" / WISH_FILE
    wish.write_bytes(wish_bytes(RuntimeWish(("podman",), MIRRORS)))
    wish.chmod(0o600)

    code, output = run("apply", "--from", str(wish), "--root", str(root))

    assert (code, output) == (0, "podman: applied\n")
    assert read_outcomes(tmp_path / "data")["podman"].files


def test_undo_of_nothing_says_so(root: Path) -> None:
    assert run("undo") == (0, "no runtime is configured\n")
