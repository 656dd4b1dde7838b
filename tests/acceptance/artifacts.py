"""Artifacts as a registry's users push them, and the comparison of what arrived with what was pushed.

Manifests are written with unusual white space: whoever reads one and writes it anew changes its digest.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from harbor_satellite.demo.images import AMD64, ARM64, Blob, blob, layer, push_image, tag_image
from harbor_satellite.oci import media_types
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import ManifestContent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from harbor_satellite.registry.api import Registry

LAYER_BYTES = 20_000
PLATFORMS = (
    {"os": "linux", "architecture": "amd64"},
    {"os": "linux", "architecture": "arm64", "variant": "v8"},
    {"os": "linux", "architecture": "arm", "variant": "v7"},
    {"os": "linux", "architecture": "s390x"},
)
SIGNATURE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def push_simple_image(registry: Registry, reference: str, content: str, size: int = LAYER_BYTES) -> str:
    """Push an image of one platform; the same content, the same digest."""
    repository, _, tag = reference.partition(":")
    image = push_image(registry, repository, AMD64, [layer(content, size)])
    tag_image(registry, repository, tag, image)
    return str(image.digest)


def push_large_image(registry: Registry, reference: str, *sizes: int) -> str:
    """Push an image with layers of so many random bytes each, quickly; the same reference and sizes, the same bytes."""
    contents = [random.Random(f"{reference} {size}").randbytes(size) for size in sizes]  # noqa: S311 - no secrets
    config = blob(media_types.OCI_CONFIG, b'{"architecture": "amd64", "os": "linux"}')
    layers = [blob(media_types.OCI_LAYER_GZIP, content) for content in contents]
    return str(_push_image(registry, reference, media_types.OCI_MANIFEST, config, layers, is_tagged=True)["digest"])


def push_oci_index(registry: Registry, reference: str, content: str) -> str:
    children = [
        descriptor | {"platform": platform}
        for platform in PLATFORMS
        for descriptor in [_push_platform(registry, reference, f"{content}-{platform['architecture']}", platform)]
    ]
    return str(_push(registry, reference, media_types.OCI_INDEX, {"manifests": children})["digest"])


def push_docker_list(registry: Registry, reference: str, content: str) -> str:
    children = []
    for platform in (AMD64, ARM64):
        packed = layer(f"{content}-{platform.architecture}", LAYER_BYTES).content
        config = blob(media_types.DOCKER_CONFIG, json.dumps({"os": "linux", "x": str(platform)}).encode())
        image = _push_image(
            registry, reference, media_types.DOCKER_MANIFEST, config, [blob(media_types.DOCKER_LAYER_GZIP, packed)]
        )
        children.append(image | {"platform": {"os": platform.os, "architecture": platform.architecture}})
    return str(_push(registry, reference, media_types.DOCKER_INDEX, {"manifests": children})["digest"])


def push_docker_image(registry: Registry, reference: str, content: str) -> str:
    config = blob(media_types.DOCKER_CONFIG, b'{"architecture": "amd64", "os": "linux"}')
    layers = [blob(media_types.DOCKER_LAYER_GZIP, layer(content, LAYER_BYTES).content)]
    image = _push_image(registry, reference, media_types.DOCKER_MANIFEST, config, layers, is_tagged=True)
    return str(image["digest"])


def push_oci_image(registry: Registry, reference: str, content: str) -> str:
    config = blob(media_types.OCI_CONFIG, b'{"architecture": "amd64", "os": "linux"}')
    layers = [layer(content, LAYER_BYTES), layer("common", LAYER_BYTES)]
    image = _push_image(registry, reference, media_types.OCI_MANIFEST, config, layers, is_tagged=True)
    return str(image["digest"])


def push_oras_artifact(registry: Registry, reference: str, content: str) -> str:
    """Push files as ``oras push`` does: an artifact type, annotations, no image at all."""
    files = [blob("application/vnd.example.rules+yaml", content.encode() * 100), blob("text/plain", b"read me")]
    extra = {"artifactType": "application/vnd.example.rules.v1", "annotations": {"org.example.site": "ü"}}
    empty = blob(media_types.OCI_EMPTY, b"{}")
    artifact = _push_image(registry, reference, media_types.OCI_MANIFEST, empty, files, extra=extra, is_tagged=True)
    return str(artifact["digest"])


def push_signature(registry: Registry, reference: str, digest: str) -> str:
    """Push a referrer of what the reference names."""
    repository = reference.partition(":")[0]
    signed = registry.manifest_get(repository, digest)
    subject = {"mediaType": signed.media_type, "digest": digest, "size": len(signed.raw)}
    extra = {"artifactType": SIGNATURE_TYPE, "subject": subject}
    bundle = blob(SIGNATURE_TYPE, json.dumps({"signs": digest}).encode())
    empty = blob(media_types.OCI_EMPTY, b"{}")
    return str(_push_image(registry, reference, media_types.OCI_MANIFEST, empty, [bundle], extra=extra)["digest"])


def assert_arrived_identical(central: Registry, local: Registry, repository: str, digest: str) -> int:
    """Compare a manifest and all that it names, byte by byte; return how many manifests and blobs that was."""
    wanted, arrived = central.manifest_get(repository, digest), local.manifest_get(repository, digest)
    assert arrived == wanted, f"{repository}@{digest} arrived with other bytes or another media type"
    document = json.loads(wanted.raw)
    compared = 1
    for child in document.get("manifests", ()):
        compared += assert_arrived_identical(central, local, repository, child["digest"])
    for part in (*([document["config"]] if "config" in document else ()), *document.get("layers", ())):
        content = read_blob(local, repository, part["digest"])
        assert content == read_blob(central, repository, part["digest"])
        assert (len(content), str(Digest.of(content))) == (part["size"], part["digest"])
        compared += 1
    return compared


def read_blob(registry: Registry, repository: str, digest: str) -> bytes:
    with registry.blob_get(repository, Digest.parse(digest)) as chunks:
        return b"".join(chunks)


def digest_at(registry: Registry, reference: str) -> str | None:
    """Return what a registry says a tag names."""
    repository, _, tag = reference.partition(":")
    found = registry.manifest_head(repository, tag)
    return str(found.digest) if found else None


def layers_of(registry: Registry, reference: str) -> list[str]:
    """Return the digests of an image's layers."""
    repository, _, tag = reference.partition(":")
    return [item["digest"] for item in json.loads(registry.manifest_get(repository, tag).raw)["layers"]]


def size_of(registry: Registry, repository: str, digest: str) -> int:
    """Return the bytes of all blobs and manifests below a digest, each once; 0 if it is not there."""
    sizes: dict[str, int] = {}

    def collect(each: str) -> None:
        if registry.manifest_head(repository, each) is None:
            return
        raw = registry.manifest_get(repository, each).raw
        sizes[each] = len(raw)
        document = json.loads(raw)
        for child in document.get("manifests", ()):
            collect(child["digest"])
        parts = (*([document["config"]] if "config" in document else ()), *document.get("layers", ()))
        sizes.update({part["digest"]: part["size"] for part in parts})

    collect(digest)
    return sum(sizes.values())


def blob_files(root: Path, digest: str) -> list[Path]:
    """Find a blob's bytes on the disk of CNCF distribution (a folder with ``data``) or of an OCI image layout."""
    found = [path / "data" if path.is_dir() else path for path in root.rglob(digest.partition(":")[2])]
    files = [path for path in found if path.is_file() and path.stat().st_size]
    assert files, f"there is no {digest} below {root}"
    return files


def change_blob(root: Path, digest: str, change: Callable[[bytes], bytes]) -> None:
    """Damage a blob on a registry's disk, or put it right."""
    for path in blob_files(root, digest):
        path.chmod(0o600)
        path.write_bytes(change(path.read_bytes()))


def _push_platform(registry: Registry, reference: str, content: str, platform: Mapping[str, str]) -> dict[str, Any]:
    config = blob(media_types.OCI_CONFIG, json.dumps(platform).encode())
    layers = [layer("common", LAYER_BYTES), layer(content, LAYER_BYTES)]
    return _push_image(registry, reference, media_types.OCI_MANIFEST, config, layers)


def _push_image(
    registry: Registry,
    reference: str,
    media_type: str,
    config: Blob,
    layers: Sequence[Blob],
    *,
    extra: Mapping[str, Any] | None = None,
    is_tagged: bool = False,
) -> dict[str, Any]:
    repository = reference.partition(":")[0]
    for item in (config, *layers):
        registry.blob_put(repository, item.descriptor, [item.content])
    body = {"config": _descriptor(config), "layers": [_descriptor(item) for item in layers], **(extra or {})}
    return _push(registry, reference if is_tagged else repository, media_type, body)


def _push(registry: Registry, reference: str, media_type: str, body: Mapping[str, Any]) -> dict[str, Any]:
    repository, _, tag = reference.partition(":")
    document = {"schemaVersion": 2, "mediaType": media_type, **body}
    content = ManifestContent(media_type, json.dumps(document, indent=3, ensure_ascii=False).encode() + b"\n")
    registry.manifest_put(repository, tag or str(content.digest), content)
    return {"mediaType": media_type, "digest": str(content.digest), "size": len(content.raw)}


def _descriptor(item: Blob) -> dict[str, Any]:
    described = item.descriptor
    return {"mediaType": described.media_type, "digest": str(described.digest), "size": described.size}
