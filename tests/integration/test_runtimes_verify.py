"""``edge runtime verify`` with real runtimes, and pulls where the local registry wants TLS or a user."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from harbor_satellite.cli.runtime import app
from harbor_satellite.edge.registry_service import refresh_plan
from harbor_satellite.edge.site import local_registry, with_local_registry
from harbor_satellite.errors import InvalidInputError, RemoteError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.htpasswd import set_password
from harbor_satellite.satellite.applied import Applied
from harbor_satellite.satellite.runtime_sample import TAG_PREFIX
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from harbor_satellite.state.desired import LocalTag
from tests.fakes.runtimes import PROGRAMS, Containerd, Ctr, Podman, PullError, make_host, push_small, verify
from tests.fakes.services import PlannedServices
from tests.fixtures_registry import run_embedded
from tests.integration.test_local_registry import make_pair
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fixtures_registry import RunningRegistry

KINDS = [Containerd, Podman]
PODMAN_IMAGES = ["podman", "images", "--all", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with run_embedded(tmp_path_factory.mktemp("local")) as running:
        push_small(HttpRegistry(running.url), "acme/app", "small")
        yield running


@pytest.fixture(params=KINDS, ids=["containerd", "podman"])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Containerd | Podman:
    kind: type[Containerd | Podman] = request.param
    return kind(make_host(tmp_path / "host", PROGRAMS[kind]))


def tags(url: str) -> tuple[str, ...]:
    with HttpRegistry(url) as registry:
        return registry.tag_list("acme/app")


def images_of(runtime: Containerd | Podman) -> str:
    program = ["ctr", "-n", "k8s.io", "images", "ls"] if isinstance(runtime, Containerd) else PODMAN_IMAGES
    return runtime.host.run(*program).stdout


def test_verify_pulls_by_each_name_and_leaves_nothing_behind(
    runtime: Containerd | Podman, local: RunningRegistry
) -> None:
    runtime.host.edge("apply", "--runtime", runtime.name, "--target", local.url)
    with runtime.running():
        runtime.pull("satellite.zot/acme/app:v1")  # the same image, by a name that is to stay
        before = images_of(runtime)

        code, pulls = verify(runtime.host, local.url, "--image", "acme/app:v1")

        assert (code, [pull["problem"] for pull in pulls]) == (0, ["", ""])
        assert [pull["image"].partition("/")[0] for pull in pulls] == ["satellite.zot", "docker.io"]
        assert {pull["through"] for pull in pulls} == {"the local registry"}
        assert images_of(runtime) == before
        assert "acme/app" in before
    assert tags(local.url) == ("v1",)
    assert not list((runtime.host.root / "var/tmp").glob("harbor-satellite*"))


@pytest.mark.slow
def test_verify_runtime_that_does_not_come_to_the_local_registry_fails_with_its_reason(
    runtime: Containerd | Podman, local: RunningRegistry
) -> None:
    runtime.host.edge("apply", "--runtime", runtime.name, "--target", f"http://127.0.0.1:{free_port()}")
    with runtime.running():
        code, pulls = verify(runtime.host, local.url, "--image", "acme/app:v1", "--runtime", runtime.name)

    assert code == 1
    assert [pull["is_ok"] for pull in pulls] == [False, False]
    assert all("satellite-verify" in pull["problem"] or "refused" in pull["problem"] for pull in pulls), pulls
    assert tags(local.url) == ("v1",)


@pytest.mark.slow
def test_verify_containerd_without_crictl_uses_ctr(local: RunningRegistry, tmp_path: Path) -> None:
    runtime = Ctr(make_host(tmp_path / "host", "ctr"))
    (runtime.host.root / "bin/crictl").unlink(missing_ok=True)
    runtime.host.edge("apply", "--runtime", "containerd", "--target", local.url)
    with runtime.running():
        code, pulls = verify(runtime.host, local.url, "--image", "acme/app:v1")
        namespaces = runtime.host.run("ctr", "namespaces", "ls", "-q").stdout

    assert (code, [pull["problem"] for pull in pulls]) == (0, ["", ""])
    assert "crictl" in pulls[0]["note"]
    assert "verify" not in namespaces


def test_verify_without_the_runtimes_program_is_not_tried(local: RunningRegistry, tmp_path: Path) -> None:
    host = make_host(tmp_path / "host", "podman")

    code, pulls = verify(host, local.url, "--image", "acme/app:v1", "--runtime", "crio", "--runtime", "containerd")

    assert code == 2
    assert [pull["is_tried"] for pull in pulls] == [False] * 4


def test_verify_takes_the_smallest_image_that_was_replicated(
    local: RunningRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {size: LocalTag(f"acme/of-{size}", "v1") for size in (10, 200, 3000)}
    for size in (200, 3000):  # the smallest is not there any more
        push_small(HttpRegistry(local.url), names[size].repository, str(size))
    digest = Digest.of(b"as it was")
    record = Applied(wanted=dict.fromkeys(names.values(), digest), sizes={name: size for size, name in names.items()})
    SatelliteStore(tmp_path / "sync" / local.host.replace(":", "_")).save_applied(record)
    monkeypatch.setenv("HARBOR_SATELLITE_ENV_FILE", "")
    monkeypatch.setenv("PATH", str(tmp_path))

    options = ["--data-dir", str(tmp_path), "--target", local.url, "--runtime", "crio"]
    done = CliRunner().invoke(app, ["verify", *options])

    assert done.exit_code == 2, done.output
    lines = done.output.splitlines()
    assert [line.partition(TAG_PREFIX)[0] for line in lines] == [
        "crio: satellite.zot/acme/of-200:",
        "crio: docker.io/acme/of-200:",
    ]
    assert all("not tried: there is no program crictl" in line for line in lines)


def test_verify_of_a_host_that_is_seen_from_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARBOR_SATELLITE_ENV_FILE", "")
    monkeypatch.setenv("HARBOR_SATELLITE_HOST_ROOT", "/host")

    done = CliRunner().invoke(app, ["verify", "--data-dir", str(tmp_path), "--target", "http://127.0.0.1:1"])

    assert isinstance(done.exception, InvalidInputError)
    assert "on the host itself" in str(done.exception)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[SatelliteSettings]:
    """A site's own registry, with TLS by an authority of its own, and pulls for users only."""
    certificate, key = make_pair(tmp_path, "IP:127.0.0.1")
    settings = SatelliteSettings(
        data_dir=tmp_path / "site",
        _env_file=None,
        registry_kind="embedded",
        registry_listen=f"127.0.0.1:{free_port()}",
        registry_tls_certificate=certificate,
        registry_tls_key=key,
        local_registry_ca=certificate,
        registry_anonymous_read=False,
    )
    refresh_plan(settings)
    set_password(settings.data_dir / "registry/htpasswd", "shop", "made-up")
    with PlannedServices(settings.data_dir):
        yield with_local_registry(settings)


def pushed(settings: SatelliteSettings) -> str:
    until = time.monotonic() + 30
    while True:
        try:
            return push_small(local_registry(settings), "acme/app", "guarded")
        except RemoteError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def test_pull_over_tls_wants_the_user_that_the_runtime_was_given(
    runtime: Containerd | Podman, guarded: SatelliteSettings
) -> None:
    digest = pushed(guarded)
    host, url = runtime.host, guarded.local_registry_url
    basic = base64.b64encode(b"shop:made-up").decode()
    said = host.edge(
        "apply",
        "--runtime",
        runtime.name,
        "--target",
        url,
        LOCAL_REGISTRY_CA=str(guarded.local_registry_ca),
        REGISTRY_ANONYMOUS_READ="false",
    )
    with runtime.running():
        with pytest.raises(PullError) as refused:
            runtime.pull("satellite.zot/acme/app:v1")
        if isinstance(runtime, Containerd):
            hosts = host.root / "etc/containerd/certs.d/satellite.zot/hosts.toml"
            hosts.write_text(f'{hosts.read_text()}\n[host."{url}".header]\n  authorization = "Basic {basic}"\n')
        else:
            auths = {"auths": {url.partition("//")[2]: {"auth": basic}}}
            host.put("run/containers/0/auth.json", json.dumps(auths))
        found = runtime.pull("satellite.zot/acme/app:v1")

    assert "wants a user" in said
    assert "x509" not in str(refused.value)
    assert found == digest
