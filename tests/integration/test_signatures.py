"""Signatures by the real cosign at real registries: made at the centre, checked at the site by digest, offline."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import uvicorn
from prefect.logging import disable_run_logger
from pydantic import SecretStr

from harbor_satellite.demo import images
from harbor_satellite.errors import SignatureError
from harbor_satellite.ground_control.database import make_engine, make_session_factory, migrate
from harbor_satellite.ground_control.groups import groups
from harbor_satellite.ground_control.satellites import satellites
from harbor_satellite.ground_control.satellites.sources import OciSource
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.copy import Copier, publish_tags
from harbor_satellite.registry.cosign import Cosign, RegistryAccess
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.resolve import cosign_tags, describe
from harbor_satellite.registry.server import create_registry_app
from harbor_satellite.settings import GroundControlSettings
from harbor_satellite.state.artifact import StateEntry
from tasks.centre import Centre
from tasks.groups import _publish
from tasks.satellites import list_satellites, publish_satellite_states
from tests.fixtures_registry import run_cncf, run_embedded, run_zot
from tests.ground_control.postgres import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harbor_satellite.ground_control.database import SessionFactory
    from harbor_satellite.oci.descriptor import Descriptor
    from harbor_satellite.oci.digest import Digest
    from tests.fixtures_registry import RunningRegistry

pytestmark = [pytest.mark.slow, pytest.mark.go_tool]

RUN: Final = {"cncf": run_cncf, "zot": run_zot, "embedded": run_embedded}
REPOSITORY: Final = "acme/app"
PASSWORD: Final = SecretStr("made-up-for-a-key")
OFFLINE: Final = ("--use-signing-config=false", "--tlog-upload=false", "--allow-http-registry")
OLDER: Final = "--new-bundle-format=false"
PROJECT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Signer:
    """An operator with cosign and a key pair."""

    folder: Path
    program: str

    @property
    def public(self) -> str:
        return (self.folder / "cosign.pub").read_text()

    @property
    def private(self) -> Path:
        return self.folder / "cosign.key"

    def run(self, *arguments: str) -> None:
        environment = {"HOME": str(self.folder), "COSIGN_PASSWORD": PASSWORD.get_secret_value()}
        command = [self.program, *arguments]
        done = subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    def sign(self, registry: HttpRegistry, digest: Digest, *options: str) -> None:
        self.run("sign", "--yes", "--key", "cosign.key", *OFFLINE, *options, f"{registry.name}/{REPOSITORY}@{digest}")


def make_signer(folder: Path) -> Signer:
    program = shutil.which("cosign")
    if program is None:
        pytest.skip("NOT TESTED: there is no program 'cosign' on PATH")
    folder.mkdir()
    signer = Signer(folder, program)
    signer.run("generate-key-pair")
    return signer


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return make_signer(tmp_path / "signer")


@pytest.fixture
def other(tmp_path: Path) -> Signer:
    return make_signer(tmp_path / "other")


PAIRS = [
    pytest.param((source, target), id=f"{source}-to-{target}")
    for source, target in (("cncf", "zot"), ("zot", "embedded"), ("embedded", "cncf"))
]


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[HttpRegistry, HttpRegistry]]:
    with ExitStack() as stack:
        running = [
            stack.enter_context(RUN[kind](tmp_path / f"{name}-{kind}"))
            for name, kind in zip(("source", "target"), request.param, strict=True)
        ]
        yield tuple(stack.enter_context(HttpRegistry(each.url)) for each in running)


def push_index(registry: HttpRegistry) -> Descriptor:
    shared = images.layer("shared", 5000)
    children = [
        images.push_image(registry, REPOSITORY, platform, [shared, images.layer(str(platform), 5000)])
        for platform in (images.AMD64, images.ARM64)
    ]
    return images.push_index(registry, REPOSITORY, "v1", children)


def check(registry: HttpRegistry, digest: Digest, *keys: str) -> None:
    Cosign().verify(RegistryAccess(f"http://{registry.name}"), REPOSITORY, digest, keys)


def stage(pair: tuple[HttpRegistry, HttpRegistry], digest: Digest) -> tuple[str, ...]:
    """Bring an artifact by digest as a site does, and return the tags of older cosign that belong to it."""
    source, target = pair
    entry, closure = describe(source, StateEntry(REPOSITORY, (), digest))
    Copier(source, target).stage(REPOSITORY, digest, entry.referrers)
    return cosign_tags(source, REPOSITORY, [closure])


def publish_older_signatures(pair: tuple[HttpRegistry, HttpRegistry], tags: tuple[str, ...]) -> None:
    source, target = pair
    for tag in tags:
        found = source.manifest_head(REPOSITORY, tag)
        assert found
        Copier(source, target).stage(REPOSITORY, found.digest, ())
        publish_tags(target, REPOSITORY, found.digest, (tag,))


@pytest.mark.parametrize("options", [(), ("--recursive",)], ids=["root", "recursive"])
def test_verify_bundle_staged_by_digest_needs_no_tag(
    pair: tuple[HttpRegistry, HttpRegistry], signer: Signer, other: Signer, options: tuple[str, ...]
) -> None:
    index = push_index(pair[0])
    signer.sign(pair[0], index.digest, *options)

    stage(pair, index.digest)

    check(pair[1], index.digest, other.public, signer.public)
    assert "v1" not in pair[1].tag_list(REPOSITORY)
    with pytest.raises(SignatureError, match="not by a key of the policy"):
        check(pair[1], index.digest, other.public)


@pytest.mark.parametrize("options", [(OLDER,), (OLDER, "--recursive")], ids=["root", "recursive"])
def test_verify_older_signature_is_found_once_its_own_tag_is_there(
    pair: tuple[HttpRegistry, HttpRegistry], signer: Signer, other: Signer, options: tuple[str, ...]
) -> None:
    index = push_index(pair[0])
    signer.sign(pair[0], index.digest, *options)
    tags = stage(pair, index.digest)
    with pytest.raises(SignatureError, match="no signature found"):
        check(pair[1], index.digest, signer.public)

    publish_older_signatures(pair, tags)

    check(pair[1], index.digest, signer.public)
    assert "v1" not in pair[1].tag_list(REPOSITORY)
    with pytest.raises(SignatureError, match="not by a key of the policy"):
        check(pair[1], index.digest, other.public)


def test_verify_unsigned_is_refused(any_registry: RunningRegistry, signer: Signer) -> None:
    with HttpRegistry(any_registry.url) as registry:
        index = push_index(registry)

        with pytest.raises(SignatureError, match="no signature found"):
            check(registry, index.digest, signer.public)


def test_verify_attestation_alone_is_no_signature(
    embedded_registry: RunningRegistry, signer: Signer, tmp_path: Path
) -> None:
    (tmp_path / "scan.json").write_text('{"result": "do not ship"}')
    with HttpRegistry(embedded_registry.url) as registry:
        index = push_index(registry)
        reference = f"{registry.name}/{REPOSITORY}@{index.digest}"
        scan = ("--predicate", str(tmp_path / "scan.json"), "--type", "custom")
        signer.run("attest", "--yes", "--key", "cosign.key", *OFFLINE, *scan, reference)

        with pytest.raises(SignatureError, match="no signature"):
            check(registry, index.digest, signer.public)

        signer.sign(registry, index.digest)
        check(registry, index.digest, signer.public)


def test_verify_older_signature_beside_a_strangers_bundle(
    embedded_registry: RunningRegistry, signer: Signer, other: Signer
) -> None:
    with HttpRegistry(embedded_registry.url) as registry:
        index = push_index(registry)
        other.sign(registry, index.digest)
        signer.sign(registry, index.digest, OLDER)

        check(registry, index.digest, signer.public)
        check(registry, index.digest, other.public)


def test_verify_signature_of_another_image_does_not_count(embedded_registry: RunningRegistry, signer: Signer) -> None:
    with HttpRegistry(embedded_registry.url) as registry:
        signed, plain = push_index(registry), images.push_artifact(registry, REPOSITORY, "chart")[0]
        signer.sign(registry, signed.digest, OLDER)
        moved = f"{plain.digest.algorithm}-{plain.digest.hex}.sig"
        tag = f"{signed.digest.algorithm}-{signed.digest.hex}.sig"
        images.tag_image(registry, REPOSITORY, moved, registry.manifest_head(REPOSITORY, tag))  # type: ignore[arg-type]

        with pytest.raises(SignatureError):
            check(registry, plain.digest, signer.public)


def test_verify_unreachable_registry_may_be_tried_again(signer: Signer, tmp_path: Path) -> None:
    with run_embedded(tmp_path / "gone") as gone, HttpRegistry(gone.url) as registry:
        index = push_index(registry)

    with pytest.raises(SignatureError, match="could not be checked") as caught:
        check(registry, index.digest, signer.public)

    assert caught.value.retryable


@pytest.mark.parametrize("kind", RUN)
def test_sign_and_verify_with_a_password(tmp_path: Path, signer: Signer, kind: str) -> None:
    with RUN[kind](tmp_path / kind, has_password=True) as running:
        credentials = Credentials(running.username, SecretStr(running.password))
        access = RegistryAccess(running.url, credentials)
        with HttpRegistry(running.url, credentials=credentials) as registry:
            index = push_index(registry)
        cosign = Cosign()

        cosign.sign(access, REPOSITORY, index.digest, key=signer.private, password=PASSWORD)

        cosign.verify(access, REPOSITORY, index.digest, (cosign.public_key(signer.private, PASSWORD),))
        with pytest.raises(SignatureError):
            cosign.sign(RegistryAccess(running.url), REPOSITORY, index.digest, key=signer.private, password=PASSWORD)


@pytest.fixture
def tls_registry(tmp_path: Path) -> Iterator[RegistryAccess]:
    """A registry behind a certificate of its own making."""
    if shutil.which("openssl") is None:
        pytest.skip("NOT TESTED: there is no program 'openssl' on PATH")
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.pem"
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = ["openssl", "req", *kind, *names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    with LayoutRegistry(tmp_path / "tls") as layout:
        app = create_registry_app(layout, None, allow_anonymous_writes=True)
        config = uvicorn.Config(app, port=0, log_level="error", ssl_keyfile=key, ssl_certfile=certificate)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        wait_for(lambda: server.started or not thread.is_alive(), "uvicorn")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield RegistryAccess(f"https://127.0.0.1:{port}", ca=certificate)
        server.should_exit = True
        thread.join(10)


def test_sign_and_verify_over_tls(tls_registry: RegistryAccess, signer: Signer) -> None:
    with HttpRegistry(tls_registry.url, verify=str(tls_registry.ca)) as registry:
        index = push_index(registry)
    cosign = Cosign()

    cosign.sign(tls_registry, REPOSITORY, index.digest, key=signer.private, password=PASSWORD)

    cosign.verify(tls_registry, REPOSITORY, index.digest, (signer.public,))
    with pytest.raises(SignatureError, match="could not be checked"):
        cosign.verify(RegistryAccess(tls_registry.url), REPOSITORY, index.digest, (signer.public,))


def test_sign_with_a_wrong_password_is_refused(embedded_registry: RunningRegistry, signer: Signer) -> None:
    with HttpRegistry(embedded_registry.url) as registry:
        index = push_index(registry)
        access = RegistryAccess(embedded_registry.url)

        with pytest.raises(SignatureError, match="could not be signed") as caught:
            Cosign().sign(access, REPOSITORY, index.digest, key=signer.private, password=SecretStr("another-secret"))

        assert "another-secret" not in str(caught.value)
        assert registry.referrer_list(REPOSITORY, index.digest) == ()


def test_verify_asks_no_network_but_the_registry(signer: Signer, tmp_path: Path) -> None:
    """In a network namespace of its own, where every packet for elsewhere is counted by the kernel."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: no network namespaces here (unshare -rn)")
    script = PROJECT / "tests" / "integration" / "isolated_signatures.py"
    command = [unshare, "-rn", sys.executable, str(script), str(tmp_path), str(signer.folder)]
    environment = dict(os.environ) | {"PYTHONPATH": str(PROJECT)}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["sign:0", "verify:0", "control:strays"]


GROUP_STATE: Final = "satellite/group-state/shops/state"
SATELLITE_STATE: Final = "satellite/satellite-state/shop-1/state"


@dataclass
class CentralSite:
    """A centre over a real registry, whose key comes and goes."""

    registry: HttpRegistry
    database: str
    sessions: SessionFactory

    def publish(self, signer: Signer | None = None, password: SecretStr = PASSWORD) -> None:
        """Do what the flow does."""
        settings = GroundControlSettings(
            database_url=SecretStr(self.database),
            source_kind="oci",
            source_url=f"http://{self.registry.name}",
            signing_key=signer.private if signer else None,
            signing_key_password=password,
        )
        centre = Centre(settings, self.sessions, OciSource())
        _publish(centre, "shops")
        with disable_run_logger():
            publish_satellite_states.fn(centre, list_satellites.fn(centre), is_thorough=True)
        assert centre.problems == []

    def latest(self, repository: str) -> Digest | None:
        found = self.registry.manifest_head(repository, "latest")
        return found.digest if found else None

    def check(self, repository: str, signer: Signer) -> None:
        digest = self.latest(repository)
        assert digest
        Cosign().verify(RegistryAccess(f"http://{self.registry.name}"), repository, digest, (signer.public,))


@pytest.fixture
def central_site(any_registry: RunningRegistry, tmp_path: Path) -> Iterator[CentralSite]:
    database = f"sqlite:///{tmp_path / 'ground-control.sqlite'}"
    migrate(database)
    engine = make_engine(database)
    factory = make_session_factory(engine)
    now = datetime.now(UTC)
    with HttpRegistry(any_registry.url) as registry, factory.begin() as session:
        push_index(registry)
        entries = [groups.group_entry(REPOSITORY, ["v1"], "")]
        groups.sync_group(session, "shops", registry=any_registry.url, entries=entries, now=now)
        satellites.register_satellite(
            session,
            OciSource(),
            name="shop-1",
            group_names=["shops"],
            config_name="",
            schedule=None,
            token_ttl=timedelta(hours=1),
            now=now,
        )
    with HttpRegistry(any_registry.url) as registry:
        yield CentralSite(registry, database, factory)
    engine.dispose()


def test_publish_signs_the_states_that_sites_are_sent_to(central_site: CentralSite, signer: Signer) -> None:
    central_site.publish(signer)

    central_site.check(GROUP_STATE, signer)
    central_site.check(SATELLITE_STATE, signer)


def test_publish_signs_what_was_published_before_there_was_a_key(
    central_site: CentralSite, signer: Signer, other: Signer
) -> None:
    central_site.publish()
    before = [central_site.latest(repository) for repository in (GROUP_STATE, SATELLITE_STATE)]
    with pytest.raises(SignatureError):
        central_site.check(GROUP_STATE, signer)

    for key in (signer, other, other):
        central_site.publish(key)

    for key in (signer, other):
        central_site.check(GROUP_STATE, key)
        central_site.check(SATELLITE_STATE, key)
    assert [central_site.latest(repository) for repository in (GROUP_STATE, SATELLITE_STATE)] == before
    digest = before[0]
    assert digest
    assert len(central_site.registry.referrer_list(GROUP_STATE, digest)) == 2


def test_publish_with_a_key_that_cannot_be_used_publishes_nothing(central_site: CentralSite, signer: Signer) -> None:
    with pytest.raises(SignatureError, match="cannot be used"):
        central_site.publish(signer, SecretStr("not the password"))

    assert central_site.latest(GROUP_STATE) is None
    central_site.publish(signer)
    central_site.check(GROUP_STATE, signer)
