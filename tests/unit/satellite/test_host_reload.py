"""Telling systemd and asking Docker, with programs of the same names that do as a test says."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from harbor_satellite.errors import HostError
from harbor_satellite.host_config.rendered import Reload
from harbor_satellite.satellite.host_reload import reload_runtime
from harbor_satellite.satellite.host_tree import HostTree, Owner

CONTAINERD = Reload("containerd.service", "restart")
DOCKER = Reload("docker.service", "reload")
MIRROR = "http://127.0.0.1:8585"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/told\n{script}\n')
    path.chmod(0o755)


def told(folder: Path) -> list[str]:
    return (folder / "told").read_text().splitlines()


def test_reload_unit_that_systemd_runs(programs: Path) -> None:
    program(programs, "systemctl", "exit 0")

    assert reload_runtime(CONTAINERD) == "containerd.service: restart done"
    assert told(programs) == [
        "is-active --quiet containerd.service",
        "restart containerd.service",
        "is-active --quiet containerd.service",
    ]


def test_reload_unit_that_systemd_does_not_run_is_left_to_the_operator(programs: Path) -> None:
    program(programs, "systemctl", "exit 3")

    assert "restart containerd yourself" in reload_runtime(CONTAINERD)
    assert told(programs) == ["is-active --quiet containerd.service"]


def test_reload_without_systemd_is_left_to_the_operator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "reload docker yourself" in reload_runtime(DOCKER)


def test_reload_that_fails_says_why(programs: Path) -> None:
    program(programs, "systemctl", 'case $1 in restart) echo "Job failed." >&2; exit 1;; esac')

    with pytest.raises(HostError, match=r"exit 1: Job failed\."):
        reload_runtime(CONTAINERD)


def test_reload_unit_that_is_down_afterwards_has_failed(programs: Path) -> None:
    program(
        programs, "systemctl", f"case $1 in restart) touch {programs}/down; exit 0;; esac; [ ! -e {programs}/down ]"
    )

    with pytest.raises(HostError, match="is down after its restart"):
        reload_runtime(CONTAINERD)


@pytest.mark.parametrize(
    ("answer", "is_taken"), [(f'["{MIRROR}/"]', True), ("[]", False), ("null", False), ("", False)]
)
def test_reload_docker_must_have_taken_its_mirrors(programs: Path, answer: str, is_taken: bool) -> None:  # noqa: FBT001
    program(programs, "systemctl", "exit 0")
    program(programs, "docker", f"echo '{answer}'")

    if is_taken:
        assert reload_runtime(DOCKER, (MIRROR,), 0) == "docker.service: reload done"
    else:
        with pytest.raises(HostError, match="did not take its mirrors"):
            reload_runtime(DOCKER, (MIRROR,), 0)


def test_write_over_a_mount_point_keeps_the_file_and_changes_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = tmp_path / "etc/hosts"
    hosts.parent.mkdir()
    hosts.write_text("127.0.0.1 localhost and much more\n")
    number = hosts.stat().st_ino

    def busy(*_: Any) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")  # what rename says of a mount point

    monkeypatch.setattr(Path, "replace", busy)

    HostTree(tmp_path).write("/etc/hosts", b"127.0.0.1 a\n", Owner(0o644, -1, -1))

    assert (hosts.read_text(), hosts.stat().st_ino) == ("127.0.0.1 a\n", number)
    assert list(hosts.parent.iterdir()) == [hosts]
