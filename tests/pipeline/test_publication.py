"""Publishing by a real engine to a real registry: signed before it is tagged, no secret anywhere, a wrong key ends it.

The engine is the one that _EXPERIMENTAL_DAGGER_RUNNER_HOST names; PIPELINE_TEST_REGISTRY (`HOST:PORT`) is a registry
without TLS that it, its containers and this process reach, and that it knows to be without TLS.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import dagger
import httpx
import pytest
from dagger import dag

from ci.building import Built
from ci.chart_artifact import push_chart
from ci.context import Build
from ci.credentials import Secret
from ci.engine import engine
from ci.errors import PipelineError
from ci.packages import chart_archive
from ci.provenance import Origin
from ci.publication import Signing, push_signed, set_tags
from ci.references import Reference
from ci.signing import Cosign, Trust, verification_steps
from ci.toolbox import Toolbox, digest_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from ci.publication import Publication

_Result = TypeVar("_Result")

PROJECT = Path(__file__).resolve().parents[2]
REGISTRY = os.environ.get("PIPELINE_TEST_REGISTRY", "")
ENGINE = os.environ.get("_EXPERIMENTAL_DAGGER_RUNNER_HOST", "")
PASSWORD = f"made-up-{uuid.uuid4().hex}"
PLATFORMS = ("linux/amd64", "linux/riscv64")
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not ENGINE, reason="NOT TESTED: _EXPERIMENTAL_DAGGER_RUNNER_HOST names no engine"),
    pytest.mark.skipif(not REGISTRY, reason="NOT TESTED: PIPELINE_TEST_REGISTRY names no registry"),
]


@dataclass(frozen=True)
class KeyPair:
    private: str
    public: str

    @property
    def signing(self) -> Signing:
        return self.trusting(self.public)

    def trusting(self, public: str) -> Signing:
        """Sign with this key, verify with that one."""
        cosign = Cosign(Trust(public_key=public), "/cosign", frozenset({REGISTRY}))
        return Signing(cosign, {"COSIGN_PRIVATE_KEY": Secret(self.private), "COSIGN_PASSWORD": Secret(PASSWORD)})


@dataclass(frozen=True)
class Place:
    """A repository that nobody else uses."""

    reference: Reference
    folder: Path
    """For what is pushed there."""

    @property
    def url(self) -> str:
        return f"http://{REGISTRY}/v2/{self.reference.repository}"

    def tags(self) -> set[str]:
        """Tags that a person made; those that stand for referrers are left out."""
        found = httpx.get(f"{self.url}/tags/list", timeout=30).raise_for_status().json()["tags"]
        return {tag for tag in found if not tag.startswith("sha256-")}

    def manifest(self, reference: str) -> tuple[str, bytes]:
        headers = {"Accept": f"{INDEX}, {MANIFEST}"}
        answer = httpx.get(f"{self.url}/manifests/{reference}", headers=headers, timeout=30).raise_for_status()
        return answer.headers["Docker-Content-Digest"], answer.content

    def everything(self) -> Iterator[bytes]:
        """All manifests, configs, layers (unpacked) and attestations that are in the repository."""
        listed = httpx.get(f"{self.url}/tags/list", timeout=30).raise_for_status().json()["tags"]
        waiting, seen = list(listed), set()
        while waiting:
            reference = waiting.pop()
            _, content = self.manifest(reference)
            yield content
            body = json.loads(content)
            waiting += [child["digest"] for child in body.get("manifests", []) if child["digest"] not in seen]
            seen |= {child["digest"] for child in body.get("manifests", [])}
            for blob in (*([body["config"]] if "config" in body else []), *body.get("layers", [])):
                data = httpx.get(f"{self.url}/blobs/{blob['digest']}", timeout=30).raise_for_status().content
                yield from _unpacked(data) if ".tar" in blob["mediaType"] else [data]


def _unpacked(layer: bytes) -> Iterator[bytes]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            yield member.name.encode() + (file.read() if file else b"")


def connected(work: Callable[[], Awaitable[_Result]], log: Path) -> _Result:
    """Return what the work gives, done by the engine; its log is written to the file."""

    async def inside() -> _Result:
        with log.open("a", encoding="utf-8") as file:
            async with engine(file, os.environ):
                return await work()

    return anyio.run(inside)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(Reference(REGISTRY, f"test/{uuid.uuid4().hex[:12]}/satellite"), tmp_path)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyPair, KeyPair]:
    """Two pairs, made by cosign in the engine: ours, and a stranger's."""

    async def make() -> KeyPair:
        made = (
            Toolbox({})
            .container("cosign")
            .with_env_variable("WHICH", uuid.uuid4().hex)
            .with_env_variable("COSIGN_PASSWORD", PASSWORD)
            .with_exec(["generate-key-pair"], use_entrypoint=True)
        )
        return KeyPair(
            await made.file("/work/cosign.key").contents(),
            await made.file("/work/cosign.pub").contents(),
        )

    async def both() -> tuple[KeyPair, KeyPair]:
        return await make(), await make()

    return connected(both, tmp_path_factory.mktemp("keys") / "log")


def small_image(folder: Path, version: str = "1.2.3") -> Built:
    """An image with one Debian package and nothing that could run, for two platforms."""
    parts, blobs, children = {}, {}, []
    for platform in PLATFORMS:
        child, own = platform_image(platform, version)
        blobs |= own
        children.append({**child, "platform": dict(zip(("os", "architecture"), platform.split("/"), strict=True))})
        parts[platform] = archive_file(folder, child, own)
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).encode()
    whole = archive_file(folder, described(INDEX, index), blobs | {digest_of(index): index})
    return Built("satellite", whole, parts, dict.fromkeys(PLATFORMS, 1.0))


def platform_image(platform: str, version: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """An image's descriptor, and its blobs by digest."""
    package = "Package: hello\nVersion: 1.0\nArchitecture: all\nStatus: install ok installed\nMaintainer: A <a@b.org>\n"
    layer = packed({"var/lib/dpkg/status": f"{package}Description: {platform}\n".encode()})
    system, architecture = platform.split("/")
    config = json.dumps(
        {
            "os": system,
            "architecture": architecture,
            "config": {"Labels": {"org.opencontainers.image.version": version}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        }
    ).encode()
    layers = [described("application/vnd.oci.image.layer.v1.tar", layer)]
    about = {"config": described("application/vnd.oci.image.config.v1+json", config), "layers": layers}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, **about}).encode()
    return described(MANIFEST, manifest), {digest_of(blob): blob for blob in (layer, config, manifest)}


def described(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(blob), "size": len(blob)}


def archive_file(folder: Path, entry: dict[str, Any], blobs: Mapping[str, bytes]) -> dagger.File:
    """An OCI archive with one entry, called `satellite`, in the engine."""
    named = {**entry, "annotations": {"org.opencontainers.image.ref.name": "satellite"}}
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}).encode(),
        **{f"blobs/{digest.replace(':', '/')}": blob for digest, blob in blobs.items()},
    }
    file = folder / f"{uuid.uuid4().hex}.tar"
    file.write_bytes(packed(files))
    return dag.host().file(str(file))


def packed(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in sorted({str(folder) for file in files for folder in Path(file).parents if folder.name}):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


async def published(place: Place, signing: Signing, built: Built | None = None) -> Publication:
    toolbox = Toolbox({}, plain_http=frozenset({REGISTRY}))
    made = await push_signed(
        toolbox,
        Build(PROJECT, "1.2.3", "0" * 40, 0),
        built or small_image(place.folder),
        where=place.reference.tagged("sha-000000000000"),
        signing=signing,
        origin=Origin(),
        started=datetime.now(UTC),
        version_tag="1.2.3",
    )
    await set_tags(toolbox, [(made.published.index, ("1.2.3", "1.2"))])
    return made


def test_publish_tags_name_the_digest_that_was_signed(place: Place, keys: tuple[KeyPair, KeyPair], log: Path) -> None:
    async def work() -> Publication:
        made = await published(place, keys[0].signing)
        toolbox = Toolbox({}, plain_http=frozenset({REGISTRY}))
        # Once more, by who has the public key alone.
        cosign = keys[0].signing.cosign
        await toolbox.run_cosign(cosign, verification_steps(cosign, made.published))
        return made

    made = connected(work, log)

    digest = made.published.index.digest
    assert place.tags() == {"sha-000000000000", "1.2.3", "1.2"}
    assert {place.manifest(tag)[0] for tag in place.tags()} == {digest}
    assert [row.platform for row in made.rows] == list(PLATFORMS)
    children = json.loads(place.manifest(digest)[1])["manifests"]
    assert [row.digest for row in made.rows] == [child["digest"] for child in children]
    assert set(made.published.sboms) == set(PLATFORMS)


def test_publish_no_secret_in_image_attestations_or_log(place: Place, keys: tuple[KeyPair, KeyPair], log: Path) -> None:
    connected(lambda: published(place, keys[0].signing), log)

    secrets = [PASSWORD.encode(), *(line.encode() for line in keys[0].private.splitlines() if len(line) > 40)]
    everything = [log.read_bytes(), *place.everything()]
    assert len(everything) > 10
    assert len(secrets) > 5
    assert not [secret for secret in secrets for content in everything if secret in content]


def test_publish_other_public_key_fails_and_sets_no_tag(place: Place, keys: tuple[KeyPair, KeyPair], log: Path) -> None:
    ours, stranger = keys

    with pytest.raises(PipelineError, match=r"cosign verify .* failed"):
        connected(lambda: published(place, ours.trusting(stranger.public)), log)

    assert place.tags() == {"sha-000000000000"}


def test_publish_signature_lost_is_made_again(place: Place, keys: tuple[KeyPair, KeyPair], log: Path) -> None:
    """Dagger keeps what a command line gave; a signature that the registry lost would not come back."""

    async def work() -> None:
        built = small_image(place.folder)
        first = await published(place, keys[0].signing, built)
        digest = first.published.index.digest
        kept = [digest, *(reference.digest for reference in first.published.platforms.values())]
        for subject in kept:
            forget_referrers(place, subject)
        assert not referrers(place, digest)
        second = await published(place, keys[0].signing, built)
        assert second.published.index.digest == digest

    connected(work, log)


def test_publish_version_that_is_there_is_never_replaced(
    place: Place, keys: tuple[KeyPair, KeyPair], log: Path
) -> None:
    first = connected(lambda: published(place, keys[0].signing), log)

    with pytest.raises(PipelineError, match=r"1\.2\.3 was published before, as sha256:"):
        connected(lambda: published(place, keys[0].signing, small_image(place.folder, "1.2.3 once more")), log)

    assert {place.manifest(tag)[0] for tag in ("1.2.3", "1.2")} == {first.published.index.digest}


def test_publish_chart_is_signed_before_it_is_tagged(place: Place, keys: tuple[KeyPair, KeyPair], log: Path) -> None:
    packed = chart_archive("satellite", {"Chart.yaml": b"name: satellite\nversion: 1.2.3\n"}, 0)

    async def work() -> list[Reference]:
        # Through the host, as a release does: the archive is no text.
        archive = log.parent / "satellite-1.2.3.tgz"
        archive.write_bytes(packed)
        toolbox = Toolbox({}, plain_http=frozenset({REGISTRY}))
        signing = keys[0].signing
        pushed = [
            await push_chart(toolbox, archive, "{}", where=place.reference, epoch=0, signing=signing) for _ in range(2)
        ]
        await set_tags(toolbox, [(pushed[-1], ("1.2.3",))])
        return pushed

    first, second = connected(work, log)

    assert first == second
    assert place.manifest("1.2.3")[0] == first.digest
    layer = json.loads(place.manifest("1.2.3")[1])["layers"][0]
    assert layer["mediaType"] == "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
    assert httpx.get(f"{place.url}/blobs/{layer['digest']}", timeout=30).content == packed


def test_command_line_verifies_and_lists_what_was_published(
    place: Place, keys: tuple[KeyPair, KeyPair], log: Path, tmp_path: Path
) -> None:
    ours, stranger = keys
    made = connected(lambda: published(place, ours.signing), log)
    (tmp_path / "ours.pub").write_text(ours.public)
    (tmp_path / "stranger.pub").write_text(stranger.public)
    common = ("--quiet", "--insecure-registry", REGISTRY, "--public-key")
    index = str(made.published.index)

    good = run_ci("verify", index, *common, str(tmp_path / "ours.pub"), "--attestations")
    bad = run_ci("verify", index, *common, str(tmp_path / "stranger.pub"))
    listed = run_ci("sbom", index, *common, str(tmp_path / "ours.pub"), "--output", str(tmp_path / "out"))

    assert (good.returncode, good.stdout.strip()) == (
        0,
        f"verified, signatures, SBOMs and provenance of the index and 2 platforms: {index}",
    )
    assert bad.returncode == 1
    assert "ci: cosign verify" in bad.stderr
    assert listed.returncode == 0
    documents = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").iterdir())]
    assert [document["name"] for document in documents] == ["satellite-linux-amd64", "satellite-linux-riscv64"]
    assert all("hello" in {package["name"] for package in document["packages"]} for document in documents)


def forget_referrers(place: Place, digest: str) -> None:
    for referrer in referrers(place, digest):
        httpx.delete(f"{place.url}/manifests/{referrer}", timeout=30).raise_for_status()


def run_ci(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ci", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


def referrers(place: Place, digest: str) -> list[str]:
    """Return the digests of what refers to a manifest, by the API or by the tag that stands for it."""
    answer = httpx.get(f"{place.url}/referrers/{digest}", timeout=30)
    if answer.status_code == 404:
        headers = {"Accept": INDEX}
        answer = httpx.get(f"{place.url}/manifests/{digest.replace(':', '-')}", headers=headers, timeout=30)
        if answer.status_code == 404:
            return []
    manifests = answer.raise_for_status().json()["manifests"]
    tag = httpx.head(f"{place.url}/manifests/{digest.replace(':', '-')}", headers={"Accept": INDEX}, timeout=30)
    listed = [tag.headers["Docker-Content-Digest"]] if tag.status_code == 200 else []
    return [*(each["digest"] for each in manifests), *listed]
