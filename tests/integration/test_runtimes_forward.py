"""The forwarder for Docker, as the supervisor starts it: bytes both ways, TLS, silence, and ports it cannot have."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.edge.registry_process import forward_of
from harbor_satellite.edge.registry_service import make_services
from harbor_satellite.edge.restarts import CONFIGURATION_ERROR
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.settings import SatelliteSettings
from tests.fakes.runtimes import push_small
from tests.fixtures_registry import RunningRegistry, run_embedded
from tests.integration.test_local_registry import make_pair
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVILEGED_PORT = 81


def argv(port: int, url: str, ca: str = "") -> tuple[str, ...]:
    """Return the command line of the plan, at a port that a test may have."""
    return tuple(str(port) if word == "80" else word for word in forward_of(url, ca).argv)


@contextmanager
def forwarding(url: str, ca: str = "") -> Iterator[tuple[int, subprocess.Popen[str]]]:
    port = free_port()
    environment = {**os.environ, "HARBOR_SATELLITE_LOG_LEVEL": "INFO"}
    command = argv(port, url, ca)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "forwarding" in process.stderr.readline()
        try:
            yield port, process
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with run_embedded(tmp_path_factory.mktemp("local")) as running:
        yield running


def test_forward_carries_pushes_and_pulls(local: RunningRegistry) -> None:
    with forwarding(local.url) as (port, _):
        push_small(HttpRegistry(f"http://127.0.0.1:{port}"), "acme/app", "forwarded")
        with HttpRegistry(f"http://127.0.0.1:{port}") as through:
            found = through.manifest_get("acme/app", "v1")
        with HttpRegistry(local.url) as direct:
            assert direct.manifest_get("acme/app", "v1") == found


def test_forward_ends_at_once_with_a_connection_open(local: RunningRegistry) -> None:
    with forwarding(local.url) as (port, process), socket.create_connection(("127.0.0.1", port), 5):
        process.terminate()

        assert process.wait(5) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_forward_passes_on_that_one_side_has_ended() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as registry,
        forwarding(f"http://127.0.0.1:{registry.getsockname()[1]}") as (port, _),
        socket.create_connection(("127.0.0.1", port), 5) as client,
    ):
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        registry.settimeout(5)
        served, _ = registry.accept()
        with served:
            asked = b"".join(iter(lambda: served.recv(65536), b""))
            served.sendall(b"answer")
        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert (asked, answer) == (b"question", b"answer")


def test_forward_to_a_registry_that_is_away_drops_the_connection_and_says_so_once() -> None:
    with forwarding(f"http://127.0.0.1:{free_port()}") as (port, process):
        for _ in range(3):
            with pytest.raises(OSError, match=r"reset|closed|disconnected"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5)
        process.terminate()
        assert process.stderr is not None
        said = process.stderr.read()

    assert said.count("registry not reached") == 1
    assert "WARNING forward" in said


def test_forward_speaks_tls_to_a_registry_that_does(tmp_path: Path) -> None:
    certificate, key = make_pair(tmp_path, "IP:127.0.0.1")
    port = free_port()
    source = "from harbor_satellite.cli import main; main()"
    words = ["--root", str(tmp_path / "root"), "--listen", f"127.0.0.1:{port}"]
    words += ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    command = [sys.executable, "-c", source, "edge", "registry", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as registry:
        assert registry.stdout is not None
        assert "listening" in registry.stdout.readline()
        url = f"https://127.0.0.1:{port}"
        with forwarding(url, str(certificate)) as (near, _):
            status = urllib.request.urlopen(f"http://127.0.0.1:{near}/v2/", timeout=5).status
        with forwarding(url) as (near, _), pytest.raises(OSError, match=r"reset|closed|disconnected"):
            urllib.request.urlopen(f"http://127.0.0.1:{near}/v2/", timeout=5)
        registry.terminate()

    assert status == 200


def test_forward_port_that_is_taken_is_a_configuration_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            argv(taken.getsockname()[1], "http://127.0.0.1:1"), check=False, capture_output=True, text=True, timeout=20
        )

    assert done.returncode == CONFIGURATION_ERROR
    assert done.stderr.count("\n") == 1
    assert "another program listens there" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can give its rights away")
def test_forward_port_that_is_not_ours_to_have_is_a_configuration_error() -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= PRIVILEGED_PORT:
        pytest.skip("NOT TESTED: anybody may have low ports here, as in many containers")
    command = ["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service", "--no-new-privs"]
    done = subprocess.run(
        [*command, *argv(PRIVILEGED_PORT, "http://127.0.0.1:1")],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )

    assert done.returncode == CONFIGURATION_ERROR
    assert "CAP_NET_BIND_SERVICE" in done.stderr


@pytest.mark.parametrize(("runtimes", "is_there"), [(("docker", "podman"), True), (("podman",), False)])
def test_plan_has_the_forwarder_for_docker_alone(tmp_path: Path, runtimes: tuple[str, ...], *, is_there: bool) -> None:
    listen = f"127.0.0.1:{free_port()}"
    settings = SatelliteSettings(
        data_dir=tmp_path, _env_file=None, registry_kind="embedded", registry_listen=listen, runtimes=runtimes
    )

    services = make_services(settings).services

    assert ("forward" in [service.name for service in services]) is is_there
    assert not is_there or services[-1].argv[-3:] == ("127.0.0.1", "80", f"http://{listen}")
