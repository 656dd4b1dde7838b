"""The pipeline's command lines, run by the real cosign at a registry without the referrers API and at one with it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from ci.provenance import Origin, predicate
from ci.references import Reference
from ci.signing import PROVENANCE, SPDX, Cosign, Published, Trust, signing_steps, verification_steps
from tests.fixtures_registry import run_cncf, run_zot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.fixtures_registry import RunningRegistry

pytestmark = [pytest.mark.slow, pytest.mark.go_tool]

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
PLATFORMS = ("amd64", "arm64")


@dataclass(frozen=True)
class Signer:
    """Who has the private key, and cosign."""

    folder: Path
    program: str

    @property
    def trust(self) -> Trust:
        return Trust(public_key=(self.folder / "cosign.pub").read_text())

    def run(self, argv: Sequence[str], *, has_key: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(self.folder), "PATH": os.environ["PATH"]}
        if has_key:
            environment |= {
                "COSIGN_PRIVATE_KEY": (self.folder / "cosign.key").read_text(),
                "COSIGN_PASSWORD": "made-up",
            }
        command = [self.program, *argv]
        return subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True, check=False)

    def cosign(self, registry: RunningRegistry) -> Cosign:
        cosign = Cosign(self.trust, str(self.folder), frozenset({registry.host}))
        for name, text in cosign.files().items():
            (self.folder / name).write_text(text)
        return cosign


def make_signer(folder: Path) -> Signer:
    program = shutil.which("cosign")
    if program is None:
        pytest.skip("NOT TESTED: there is no program 'cosign' on PATH")
    folder.mkdir()
    signer = Signer(folder, program)
    environment = {"HOME": str(folder), "COSIGN_PASSWORD": "made-up"}
    subprocess.run([program, "generate-key-pair"], env=environment, cwd=folder, capture_output=True, check=True)
    return signer


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return make_signer(tmp_path / "signer")


@pytest.fixture(params=["cncf", pytest.param("zot", marks=pytest.mark.zot)])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningRegistry]:
    with {"cncf": run_cncf, "zot": run_zot}[request.param](tmp_path / "registry") as running:
        yield running


def push(registry: RunningRegistry, signer: Signer) -> Published:
    """Push an index of two platforms; return it with an SBOM for each and its provenance."""
    name = f"{registry.url}/v2/acme/app"
    with httpx.Client(timeout=10) as client:

        def put_blob(content: bytes) -> str:
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            place = client.post(f"{name}/blobs/uploads/").raise_for_status().headers["location"]
            url = httpx.URL(registry.url).join(place).copy_merge_params({"digest": digest})
            client.put(url, content=content, headers={"Content-Type": "application/octet-stream"}).raise_for_status()
            return digest

        def put_manifest(body: dict[str, object]) -> tuple[str, int]:
            content = json.dumps(body).encode()
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            headers = {"Content-Type": str(body["mediaType"])}
            client.put(f"{name}/manifests/{digest}", content=content, headers=headers).raise_for_status()
            return digest, len(content)

        children = []
        for architecture in PLATFORMS:
            config = json.dumps({"architecture": architecture, "os": "linux"}).encode()
            described = {"mediaType": CONFIG, "digest": put_blob(config), "size": len(config)}
            digest, size = put_manifest(
                {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []},
            )
            platform = {"architecture": architecture, "os": "linux"}
            children.append({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform})
        digest, _ = put_manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": children})
    index = Reference(registry.host, "acme/app").at(digest)
    sboms = {}
    for architecture in PLATFORMS:
        sboms[architecture] = str(signer.folder / f"{architecture}.spdx.json")
        Path(sboms[architecture]).write_text(json.dumps({"spdxVersion": "SPDX-2.3", "name": architecture}))
    (signer.folder / "provenance.json").write_text(json.dumps(provenance()))
    platforms = {name: index.at(str(child["digest"])) for name, child in zip(PLATFORMS, children, strict=True)}
    return Published(index, platforms, sboms, str(signer.folder / "provenance.json"))


def provenance() -> dict[str, object]:
    moment = datetime(2026, 11, 23, tzinfo=UTC)
    return predicate(
        Origin(),
        image="satellite",
        version="1.2.3",
        commit="0" * 40,
        epoch=0,
        platforms=PLATFORMS,
        files={"constraints-edge.txt": b"a==1\n"},
        tools={"cosign": "gcr.io/cosign:v3@sha256:" + "a" * 64},
        started=moment,
        finished=moment,
    )


def test_steps_published_image_is_signed_attested_and_verified(registry: RunningRegistry, signer: Signer) -> None:
    cosign = signer.cosign(registry)
    image = push(registry, signer)

    for argv in signing_steps(cosign, image):
        done = signer.run(argv)
        assert done.returncode == 0, done.stderr
        assert "TUF" not in done.stderr
    for argv in verification_steps(cosign, image):
        done = signer.run(argv, has_key=False)
        assert done.returncode == 0, done.stderr

    # A signature and the provenance on the index; the SBOM too on each platform.
    counts = [len(referrers(registry, subject.digest)) for subject in (image.index, *image.platforms.values())]
    assert counts == [2, 3, 3]


def test_verify_other_key_fails(registry: RunningRegistry, signer: Signer, tmp_path: Path) -> None:
    image = push(registry, signer)
    for argv in signing_steps(signer.cosign(registry), image):
        assert signer.run(argv).returncode == 0
    stranger = make_signer(tmp_path / "stranger")

    codes = [stranger.run(argv).returncode for argv in verification_steps(stranger.cosign(registry), image)]

    assert all(codes)


@pytest.mark.parametrize("kind", [SPDX, PROVENANCE])
def test_verify_attestation_missing_fails(registry: RunningRegistry, signer: Signer, kind: str) -> None:
    cosign = signer.cosign(registry)
    image = push(registry, signer)
    assert signer.run(cosign.sign(image.index)).returncode == 0

    done = signer.run(cosign.verify_attestation(image.platforms["amd64"], kind))

    assert done.returncode != 0
    assert "none of the attestations matched the predicate type" in done.stderr


def test_verify_unsigned_image_fails(registry: RunningRegistry, signer: Signer) -> None:
    image = push(registry, signer)

    done = signer.run(signer.cosign(registry).verify(image.index))

    assert done.returncode != 0
    assert "no signatures found" in done.stderr


def test_sign_blob_changed_file_fails(cncf_registry: RunningRegistry, signer: Signer) -> None:
    cosign = signer.cosign(cncf_registry)
    sums, bundle = signer.folder / "SHA256SUMS", str(signer.folder / "SHA256SUMS.sigstore.json")
    sums.write_text("00  file\n")

    assert signer.run(cosign.sign_blob(str(sums), bundle)).returncode == 0
    assert signer.run(cosign.verify_blob(str(sums), bundle), has_key=False).returncode == 0
    sums.write_text("01  file\n")
    assert signer.run(cosign.verify_blob(str(sums), bundle), has_key=False).returncode != 0


def test_keyless_command_lines_are_understood(cncf_registry: RunningRegistry, signer: Signer) -> None:
    keyless = Trust(identity="a@example.com", issuer="https://i", trusted_root='{"mediaType":"application/x"}')
    cosign = Cosign(keyless, str(signer.folder), frozenset({cncf_registry.host}))
    image = push(cncf_registry, signer)
    (signer.folder / "trusted-root.json").write_text(keyless.trusted_root)

    verified = signer.run(cosign.verify(image.index), has_key=False)

    # It comes as far as reading whom to trust: no flag is unknown or missing.
    assert verified.returncode != 0
    assert "unsupported TrustedRoot media type" in verified.stderr


def referrers(registry: RunningRegistry, digest: str) -> list[object]:
    """Return what refers to a manifest, by the API or by the tag that stands for it where there is none."""
    name = f"{registry.url}/v2/acme/app"
    answer = httpx.get(f"{name}/referrers/{digest}", headers={"Accept": INDEX}, timeout=10)
    if answer.status_code == 404:
        tag = digest.replace(":", "-")
        answer = httpx.get(f"{name}/manifests/{tag}", headers={"Accept": INDEX}, timeout=10)
    found: list[object] = answer.raise_for_status().json()["manifests"]
    return found
