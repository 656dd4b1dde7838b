"""Copying between any two real registries: every kind of content arrives with the digest it had."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.demo import images
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor, descriptor_json
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.copy import Copier, is_complete, publish_tags
from tests.fixtures_registry import run_cncf, run_embedded, run_zot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fixtures_registry import RunningRegistry

RUN = {"cncf": run_cncf, "zot": run_zot, "embedded": run_embedded}
PAIRS = [
    pytest.param(
        (source, target),
        id=f"{source}-to-{target}",
        marks=[pytest.mark.zot] if "zot" in (source, target) else [pytest.mark.go_tool],
    )
    for source in RUN
    for target in RUN
]
REPOSITORY = "acme/app"


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[HttpRegistry, HttpRegistry]]:
    source, target = request.param
    with ExitStack() as stack:
        running = [
            stack.enter_context(RUN[kind](tmp_path / f"{name}-{kind}"))
            for name, kind in (("source", source), ("target", target))
        ]
        yield tuple(stack.enter_context(HttpRegistry(each.url)) for each in running)


def push_docker_image(registry: HttpRegistry) -> Descriptor:
    layer = images.blob(media_types.DOCKER_LAYER_GZIP, images.layer("docker", 5000).content)
    config = images.blob(media_types.DOCKER_CONFIG, b'{"architecture":"amd64","os":"linux"}')
    for item in (config, layer):
        registry.blob_put(REPOSITORY, item.descriptor, [item.content])
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.DOCKER_MANIFEST,
        "config": descriptor_json(config.descriptor),
        "layers": [descriptor_json(layer.descriptor)],
    }
    # Odd white space: whoever re-serialises the manifest changes its digest.
    content = ManifestContent(media_types.DOCKER_MANIFEST, json.dumps(document, indent=3).encode() + b"\n")
    registry.manifest_put(REPOSITORY, str(content.digest), content)
    return Descriptor(content.media_type, content.digest, len(content.raw))


def push_index(registry: HttpRegistry) -> Descriptor:
    shared = images.layer("shared", 50_000)
    children = [
        images.push_image(registry, REPOSITORY, platform, [shared, images.layer(str(platform), 5000)])
        for platform in (images.AMD64, images.ARM64)
    ]
    return images.push_index(registry, REPOSITORY, "v1", children)


def copy(pair: tuple[HttpRegistry, HttpRegistry], artifact: Descriptor) -> None:
    source, target = pair
    Copier(source, target).stage(REPOSITORY, artifact.digest, None)
    publish_tags(target, REPOSITORY, artifact.digest, ("v1",))


def raw(registry: HttpRegistry, reference: str) -> bytes:
    return registry.manifest_get(REPOSITORY, reference).raw


def test_copy_index_arrives_byte_identical_with_every_platform(pair: tuple[HttpRegistry, HttpRegistry]) -> None:
    index = push_index(pair[0])

    copy(pair, index)

    assert raw(pair[1], "v1") == raw(pair[0], str(index.digest))
    assert is_complete(pair[1], REPOSITORY, index.digest)


def test_copy_docker_image_keeps_its_bytes(pair: tuple[HttpRegistry, HttpRegistry]) -> None:
    image = push_docker_image(pair[0])

    copy(pair, image)

    assert raw(pair[1], "v1") == raw(pair[0], str(image.digest))
    assert is_complete(pair[1], REPOSITORY, image.digest)


def test_copy_artifact_brings_its_referrers_and_theirs(pair: tuple[HttpRegistry, HttpRegistry]) -> None:
    source, target = pair
    artifact, sbom = images.push_artifact(source, REPOSITORY, "v1")
    empty = images.blob(media_types.OCI_EMPTY, b"{}")
    signature = images.push_manifest(
        source, REPOSITORY, empty, [empty], artifact_type="application/vnd.example.signature", subject=sbom
    )

    copy(pair, artifact)

    assert raw(target, "v1") == raw(source, str(artifact.digest))
    assert [item.digest for item in target.referrer_list(REPOSITORY, artifact.digest)] == [sbom.digest]
    assert [item.digest for item in target.referrer_list(REPOSITORY, sbom.digest)] == [signature.digest]
    assert is_complete(target, REPOSITORY, sbom.digest)


@pytest.mark.slow
def test_copy_cosign_signature_verifies_at_the_target(pair: tuple[HttpRegistry, HttpRegistry], tmp_path: Path) -> None:
    cosign = shutil.which("cosign")
    if cosign is None:
        pytest.skip("cosign is not on PATH")
    source, target = pair
    index = push_index(source)
    environment = {**os.environ, "COSIGN_PASSWORD": "", "HOME": str(tmp_path)}

    def run(*arguments: str) -> None:
        done = subprocess.run([cosign, *arguments], env=environment, cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    run("generate-key-pair")
    offline = ("--use-signing-config=false", "--tlog-upload=false", "--allow-http-registry", "--recursive")
    run("sign", "--yes", "--key", "cosign.key", *offline, f"{source.name}/{REPOSITORY}@{index.digest}")
    copy(pair, index)

    options = ("--key", "cosign.pub", "--insecure-ignore-tlog=true", "--allow-http-registry")
    run("verify", *options, f"{target.name}/{REPOSITORY}@{index.digest}")
    assert Digest.of(raw(target, "v1")) == index.digest


def test_copy_one_platform_keeps_the_index_digest(pair: tuple[HttpRegistry, HttpRegistry]) -> None:
    source, target = pair
    index = push_index(source)

    Copier(source, target, platforms=(images.AMD64,)).stage(REPOSITORY, index.digest, None)
    publish_tags(target, REPOSITORY, index.digest, ("v1",))

    assert raw(target, "v1") == raw(source, str(index.digest))
    assert is_complete(target, REPOSITORY, index.digest, (images.AMD64,))


def test_copy_one_platform_where_no_sparse_index_is_taken_brings_every_platform(
    cncf_registry: RunningRegistry, embedded_registry: RunningRegistry
) -> None:
    with HttpRegistry(embedded_registry.url) as source, HttpRegistry(cncf_registry.url) as target:
        index = push_index(source)

        Copier(source, target, platforms=(images.AMD64,)).stage(REPOSITORY, index.digest, None)

        assert is_complete(target, REPOSITORY, index.digest)


def test_copy_one_platform_leaves_the_layers_of_the_others(embedded_registry: RunningRegistry, tmp_path: Path) -> None:
    with (
        run_embedded(tmp_path / "site") as site,
        HttpRegistry(embedded_registry.url) as source,
        HttpRegistry(site.url) as target,
    ):
        index = push_index(source)

        Copier(source, target, platforms=(images.AMD64,)).stage(REPOSITORY, index.digest, None)

        assert not is_complete(target, REPOSITORY, index.digest, (images.ARM64,))
