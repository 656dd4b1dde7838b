"""The registry that a site runs, started from its own plan: who may read and write, TLS, users, refused changes."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from harbor_satellite.cli.audit import audit
from harbor_satellite.demo import images
from harbor_satellite.edge.registry_service import refresh_plan, registry_problem
from harbor_satellite.edge.site import local_registry, with_local_registry
from harbor_satellite.errors import InvalidInputError, RemoteError
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.htpasswd import set_password
from harbor_satellite.registry.zot import verify_config
from harbor_satellite.satellite.applied import Applied
from harbor_satellite.satellite.store import SatelliteStore
from harbor_satellite.settings import SatelliteSettings
from harbor_satellite.state.desired import LocalTag
from tests.fakes.services import PlannedServices
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPOSITORY = "acme/app"
KINDS = [pytest.param("zot", marks=pytest.mark.zot), "embedded"]


def site(folder: Path, kind: str, **values: Any) -> SatelliteSettings:
    if kind == "zot" and shutil.which("zot") is None:
        pytest.skip("NOT TESTED: there is no program 'zot' on PATH")
    given = {"registry_kind": kind, "registry_listen": f"127.0.0.1:{free_port()}"} | values
    return SatelliteSettings(data_dir=folder, _env_file=None, **given)


def serving(registry: HttpRegistry) -> HttpRegistry:
    """Wait until it answers."""
    until = time.monotonic() + 60
    while True:
        try:
            registry.repository_list()
        except RemoteError as error:
            if error.status is not None or not error.retryable or time.monotonic() > until:
                return registry
            time.sleep(0.05)
        else:
            return registry


def push(registry: HttpRegistry, tag: str = "v1") -> str:
    image = images.push_image(registry, REPOSITORY, images.AMD64, [images.layer("one", 1000)])
    images.tag_image(registry, REPOSITORY, tag, image)
    return str(image.digest)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("NOT TESTED: there is no program 'openssl' on PATH")
    return make_pair(tmp_path, "IP:127.0.0.1")


def make_pair(folder: Path, names: str) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=test", "-addext", f"subjectAltName={names}"]
    command = ["openssl", "req", *kind, *name, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def running(tmp_path: Path, kind: str) -> Iterator[SatelliteSettings]:
    settings = site(tmp_path / "site", kind)
    refresh_plan(settings)
    with PlannedServices(settings.data_dir):
        yield with_local_registry(settings)


def test_local_registry_anybody_reads_and_one_user_writes(running: SatelliteSettings) -> None:
    own = serving(local_registry(running))
    digest = push(own)
    anybody = HttpRegistry(running.local_registry_url)
    wrong = HttpRegistry(
        running.local_registry_url, credentials=Credentials("satellite", SecretStr("not-the-password"))
    )

    assert str(anybody.manifest_get(REPOSITORY, "v1").digest) == digest
    with pytest.raises(RemoteError) as of_anybody:
        push(anybody, "v2")
    with pytest.raises(RemoteError) as of_wrong:
        wrong.manifest_get(REPOSITORY, "v1")

    assert (of_anybody.value.status, of_wrong.value.status) == (401, 401)


def test_local_registry_users_change_without_a_restart(running: SatelliteSettings) -> None:
    digest = push(serving(local_registry(running)))
    htpasswd = running.data_dir / "registry" / "htpasswd"
    technician = HttpRegistry(running.local_registry_url, credentials=Credentials("technician", SecretStr("made-up")))

    set_password(htpasswd, "technician", "made-up", is_random=True)

    until = time.monotonic() + 10
    while not (found := _tried(technician)) and time.monotonic() < until:
        time.sleep(0.05)
    assert found == digest
    with pytest.raises(RemoteError) as error:
        push(technician, "v2")
    assert error.value.status == 403
    assert str(local_registry(running).manifest_get(REPOSITORY, "v1").digest) == digest


def _tried(registry: HttpRegistry) -> str:
    try:
        return str(registry.manifest_get(REPOSITORY, "v1").digest)
    except RemoteError:
        return ""


def test_local_registry_for_users_only_lets_nobody_else_read(tmp_path: Path, kind: str) -> None:
    settings = site(tmp_path / "site", kind, registry_anonymous_read=False)
    refresh_plan(settings)
    with PlannedServices(settings.data_dir):
        own = with_local_registry(settings)
        digest = push(serving(local_registry(own)))

        with pytest.raises(RemoteError) as error:
            HttpRegistry(own.local_registry_url).manifest_get(REPOSITORY, "v1")

        assert error.value.status == 401
        assert str(local_registry(own).manifest_get(REPOSITORY, "v1").digest) == digest


def test_local_registry_with_tls_is_believed_by_the_site_alone(
    tmp_path: Path, kind: str, pair: tuple[Path, Path]
) -> None:
    certificate, key = pair
    settings = site(tmp_path / "site", kind, registry_tls_certificate=certificate, registry_tls_key=key)
    refresh_plan(settings)
    own = with_local_registry(settings)
    with PlannedServices(settings.data_dir), local_registry(own) as believing:
        digest = push(serving(believing))

        assert own.local_registry_url.startswith("https://127.0.0.1:")
        assert str(believing.manifest_get(REPOSITORY, "v1").digest) == digest
        with HttpRegistry(own.local_registry_url) as other, pytest.raises(RemoteError, match="not trusted"):
            other.manifest_get(REPOSITORY, "v1")


def test_local_registry_certificate_of_another_name_is_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    certificate, key = make_pair(tmp_path, "DNS:shop.example")
    settings = site(tmp_path / "site", "embedded", registry_tls_certificate=certificate, registry_tls_key=key)

    with pytest.raises(InvalidInputError, match="would not believe its own registry's certificate"):
        refresh_plan(settings)


def test_local_registry_new_certificate_restarts_it(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    settings = site(tmp_path / "site", "embedded", registry_tls_certificate=certificate, registry_tls_key=key)
    before = refresh_plan(settings).services[0]

    make_pair(tmp_path, "IP:127.0.0.1")

    assert refresh_plan(settings).services[0].revision != before.revision


@pytest.mark.zot
def test_zot_verify_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    settings = site(tmp_path / "site", "zot")
    refresh_plan(settings)
    config = settings.data_dir / "registry" / "zot-registry.json"
    wrong = tmp_path / "wrong.json"
    wrong.write_text(config.read_text().replace('"gcDelay"', '"gcDelays"'))

    verify_config("zot", config)
    with pytest.raises(InvalidInputError, match="gcdelays"):
        verify_config("zot", wrong)


@pytest.mark.zot
def test_zot_config_that_does_not_verify_is_not_applied(tmp_path: Path) -> None:
    settings = site(tmp_path / "site", "zot")
    before = refresh_plan(settings)
    config = settings.data_dir / "registry" / "zot-registry.json"
    applied = config.read_text()
    picky = tmp_path / "zot"
    picky.write_text('#!/bin/sh\necho \'{"level":"error","message":"no such thing","error":"as retention"}\'\nexit 1\n')
    picky.chmod(0o700)

    changed = {"registry_retention_seconds": 10**6, "zot": str(picky)}
    after = refresh_plan(settings.model_copy(update=changed))

    assert after == before
    assert config.read_text() == applied
    assert "no such thing: as retention" in registry_problem(settings.data_dir)
    assert not list(config.parent.glob("candidate*"))


@pytest.mark.zot
def test_zot_without_the_sync_extension_cannot_fetch_on_demand(tmp_path: Path) -> None:
    minimal = tmp_path / "zot"
    minimal.write_text('#!/bin/sh\necho \'{"message":"version","binary-type":"-metrics-search"}\'\n')
    minimal.chmod(0o700)
    settings = site(tmp_path / "site", "zot", zot=str(minimal), on_demand_registries=("https://registry.example",))

    with pytest.raises(InvalidInputError, match="without the sync extension"):
        refresh_plan(settings)


def test_commands_of_a_site_find_the_registry_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = site(tmp_path / "site", "embedded", registry_anonymous_read=False)
    refresh_plan(settings)
    monkeypatch.setenv("HARBOR_SATELLITE_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("HARBOR_SATELLITE_REGISTRY_LISTEN", "127.0.0.1:1")  # the agent has not heard of this one yet
    with PlannedServices(settings.data_dir):
        digest = push(serving(local_registry(with_local_registry(settings))))
        name = LocalTag(REPOSITORY, "v1")
        applied = Applied(owned={name: frozenset({Digest.parse(digest)})}, wanted={name: Digest.parse(digest)})
        SatelliteStore(settings.data_dir).save_applied(applied)

        audit(no_heal=True, output="json")

    report = json.loads(capsys.readouterr().out)
    assert report["findings"] == []
    assert report["manifests_read"] == 1
