"""Real containerd (CRI and ctr), Podman and Skopeo on what ``edge runtime apply`` wrote: who serves, and when.

A second registry of the test is what an image's name means, so nothing here needs a way out.
"""

from __future__ import annotations

import socketserver
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.registry.client import HttpRegistry
from tests.fakes.runtimes import PROGRAMS, Containerd, Containerd2, Podman, PullError, Skopeo, make_host, push_small
from tests.fixtures_registry import run_embedded, run_zot
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fixtures_registry import RunningRegistry

SOON_SECONDS = 10.0
"""A dead peer is found out at once; this is for a machine that is busy."""


class Registries:
    """The local registry and the one that names mean, with other content under the same name."""

    def __init__(self, local: RunningRegistry, upstream: RunningRegistry) -> None:
        self.local, self.upstream = local, upstream
        self.of_local = push_small(HttpRegistry(local.url), "acme/app", "local")
        self.of_upstream = push_small(HttpRegistry(upstream.url), "acme/app", "upstream")
        self.only_upstream = push_small(HttpRegistry(upstream.url), "acme/other", "only upstream")


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    folder = tmp_path_factory.mktemp("registries")
    with run_embedded(folder / "local") as local, run_embedded(folder / "upstream") as upstream:
        yield Registries(local, upstream)


Kind = type[Containerd | Podman]


def runtime_id(kind: Kind) -> str:
    return kind.__name__.lower()


OLD = [kind for kind in PROGRAMS if kind is not Containerd2]


@pytest.fixture(params=[*OLD, pytest.param(Containerd2, marks=pytest.mark.slow)], ids=runtime_id)
def any_runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Containerd | Podman:
    kind: Kind = request.param
    return kind(make_host(tmp_path_factory.mktemp("host"), PROGRAMS[kind]))


# The others share their code with these two, and are tried in full where there is time.
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in PROGRAMS if kind not in {Containerd, Podman}]


@pytest.fixture(params=[Containerd, Podman, *SLOW], ids=runtime_id)
def runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Containerd | Podman:
    kind: Kind = request.param
    return kind(make_host(tmp_path_factory.mktemp("host"), PROGRAMS[kind]))


def closed() -> str:
    return f"http://127.0.0.1:{free_port()}"


def apply(runtime: Containerd | Podman, target: str, *options: str) -> None:
    runtime.host.edge("apply", "--runtime", runtime.name, "--target", target, *options)


def test_pull_of_own_and_of_mirrored_name_is_served_locally_and_what_is_missing_by_upstream(
    any_runtime: Containerd | Podman, registries: Registries
) -> None:
    any_runtime.upstream("docker.io", registries.upstream.url)
    apply(any_runtime, registries.local.url)

    with any_runtime.running():
        own = any_runtime.pull("satellite.zot/acme/app:v1")
        mirrored = any_runtime.pull("docker.io/acme/app:v1")
        missing = any_runtime.pull("docker.io/acme/other:v1")

    assert (own, mirrored) == (registries.of_local, registries.of_local)
    assert missing == registries.only_upstream


def test_pull_local_registry_down_is_served_by_upstream(runtime: Containerd | Podman, registries: Registries) -> None:
    runtime.upstream("docker.io", registries.upstream.url)
    apply(runtime, closed())

    with runtime.running():
        started = time.monotonic()
        found = runtime.pull("docker.io/acme/app:v1")
        seconds = time.monotonic() - started

    assert found == registries.of_upstream
    assert seconds < SOON_SECONDS


def test_pull_upstream_down_is_served_locally_and_what_is_missing_fails_soon(
    runtime: Containerd | Podman, registries: Registries
) -> None:
    runtime.upstream("docker.io", closed())
    apply(runtime, registries.local.url)

    with runtime.running():
        started = time.monotonic()
        found = runtime.pull("docker.io/acme/app:v1")
        seconds = time.monotonic() - started
        with pytest.raises(PullError):
            runtime.pull("docker.io/acme/other:v1")

    assert found == registries.of_local
    assert seconds < SOON_SECONDS


@contextmanager
def counting_visits() -> Iterator[tuple[int, list[int]]]:
    """Yield a port at which nobody is served, and a list that grows with each visit."""
    visits: list[int] = []

    class Turned(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            visits.append(1)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Turned) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_address[1], visits
        server.shutdown()


@pytest.mark.parametrize(("option", "is_asked"), [("--fallback", True), ("--no-fallback", False)])
def test_pull_of_what_is_missing_asks_upstream_only_with_fallback(
    runtime: Containerd | Podman, registries: Registries, option: str, *, is_asked: bool
) -> None:
    (runtime.host.root / "etc/hosts").write_text("127.0.0.1 localhost docker.example\n")

    with counting_visits() as (port, visits):
        upstream = f"docker.example:{port}"
        apply(runtime, registries.local.url, "--registry", upstream, option)
        with runtime.running():
            found = runtime.pull(f"{upstream}/acme/app:v1")
            before = len(visits)
            with pytest.raises(PullError):
                runtime.pull(f"{upstream}/acme/missing:v1")

    assert found == registries.of_local
    assert (before, bool(visits)) == (0, is_asked)


def test_undo_gives_pulls_and_files_back(runtime: Containerd | Podman, registries: Registries) -> None:
    runtime.upstream("docker.io", registries.upstream.url)
    if isinstance(runtime, Containerd):  # a host that had mirrors before, and so the key that names their folder
        runtime.has_config_path()
    before = runtime.host.files()
    apply(runtime, registries.local.url)
    applied = runtime.host.files()

    with runtime.running():
        first = runtime.pull("docker.io/acme/app:v1")
        runtime.host.edge("undo")
        second = runtime.pull("docker.io/acme/app:v1")

    assert applied != before
    assert (first, second) == (registries.of_local, registries.of_upstream)
    assert runtime.host.files() == before


@pytest.mark.parametrize("kind", [Podman, Skopeo], ids=["podman", "skopeo"])
def test_pull_of_blocked_name_stays_blocked(kind: type[Podman], registries: Registries, tmp_path: Path) -> None:
    runtime = kind(make_host(tmp_path / "host", PROGRAMS[kind]))
    runtime.host.put("etc/containers/registries.conf", '[[registry]]\nlocation = "docker.io"\nblocked = true\n')
    apply(runtime, registries.local.url)

    with pytest.raises(PullError, match="blocked"):
        runtime.pull("docker.io/acme/app:v1")
    assert runtime.pull("satellite.zot/acme/app:v1") == registries.of_local


@pytest.mark.zot
def test_pull_from_zot(runtime: Containerd | Podman, registries: Registries, tmp_path: Path) -> None:
    runtime.upstream("docker.io", registries.upstream.url)
    with ExitStack() as stack:
        zot = stack.enter_context(run_zot(tmp_path / "zot"))
        digest = push_small(HttpRegistry(zot.url), "acme/app", "in zot")
        apply(runtime, zot.url)
        stack.enter_context(runtime.running())

        found = [runtime.pull(name) for name in ("satellite.zot/acme/app:v1", "docker.io/acme/app:v1")]
        missing = runtime.pull("docker.io/acme/other:v1")

    assert found == [digest, digest]
    assert missing == registries.only_upstream
