"""Real Docker on what ``edge runtime apply`` wrote, with the forwarder that answers for ``satellite.zot``."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.edge.registry_process import forward_of
from harbor_satellite.registry.client import HttpRegistry
from tests.fakes.runtimes import make_host, push_small, verify
from tests.fixtures_registry import RunningRegistry, run_embedded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.runtimes import RuntimeHost

pytestmark = pytest.mark.slow
DAEMON = (
    *("dockerd", "--data-root=/var/lib/docker", "--exec-root=/run/docker", "--pidfile=/run/docker.pid"),
    *("--storage-driver=vfs", "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"),
)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[RunningRegistry]:
    with run_embedded(tmp_path / "local") as running:
        yield running


@pytest.fixture
def host(tmp_path: Path, local: RunningRegistry) -> Iterator[RuntimeHost]:
    """A host with Docker, its forwarder, and nobody else at port 80; Docker Hub is nowhere."""
    made = make_host(tmp_path / "host", "dockerd")
    if shutil.which("docker") is None:
        pytest.skip("NOT TESTED: there is no program 'docker' on PATH")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 80)) == 0:
            pytest.skip("NOT TESTED: port 80 of this machine is taken")
    made.put("etc/hosts", "127.0.0.1 localhost\n")
    with subprocess.Popen(forward_of(local.url, "").argv) as forwarder:
        yield made
        forwarder.terminate()


def images_of(host: RuntimeHost) -> list[str]:
    listed = host.run("docker", "images", "--all", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout
    return sorted(listed.splitlines())


def test_docker_pulls_both_names_verifies_and_forgets(host: RuntimeHost, local: RunningRegistry) -> None:
    digest = push_small(HttpRegistry(local.url), "acme/app", "for docker")
    before = host.files()
    host.edge("apply", "--runtime", "docker", "--target", local.url)

    with host.daemon(*DAEMON, is_up=("docker", "version")):
        pulled = [host.run("docker", "pull", f"{name}/acme/app:v1") for name in ("satellite.zot", "docker.io")]
        known = images_of(host)
        code, pulls = verify(host, local.url, "--image", "acme/app:v1")
        after = images_of(host)
    host.edge("undo")

    assert [done.returncode for done in pulled] == [0, 0], pulled
    assert [line.split()[1] for line in known] == [digest.removeprefix("sha256:")[:12]] * 2
    assert (code, [pull["problem"] for pull in pulls]) == (0, ["", ""])
    assert after == known
    assert {path: text for path, text in host.files().items() if "/docker/key.json" not in path} == before
