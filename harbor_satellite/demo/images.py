"""A few true OCI images for the demo, made from nothing and pushed like anybody's."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor, descriptor_json, index_bytes
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform
from harbor_satellite.registry.api import ManifestContent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harbor_satellite.registry.api import Registry

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
_SBOM_TYPE = "application/vnd.example.sbom.v1+json"


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes with their descriptor."""

    descriptor: Descriptor
    content: bytes


def blob(media_type: str, content: bytes) -> Blob:
    """Describe bytes."""
    return Blob(Descriptor(media_type, Digest.of(content), len(content)), content)


def layer(name: str, size: int) -> Blob:
    """Make a gzipped tar layer with one file of ``size`` bytes that do not compress; the same name, the same bytes."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as files:
        entry = tarfile.TarInfo(f"demo/{name}")
        entry.size = size
        files.addfile(entry, io.BytesIO(random.Random(name).randbytes(size)))  # noqa: S311  (content, no secret)
    return blob(media_types.OCI_LAYER_GZIP, gzip.compress(archive.getvalue(), 1, mtime=0))


def push_image(target: Registry, repository: str, platform: Platform, layers: Sequence[Blob]) -> Descriptor:
    """Push an image of one platform by digest, and return its descriptor."""
    config = {
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(_diff_id(item)) for item in layers]},
    }
    packed = blob(media_types.OCI_CONFIG, json.dumps(config).encode())
    return push_manifest(target, repository, packed, layers, platform=platform)


def push_manifest(
    target: Registry,
    repository: str,
    config: Blob,
    layers: Sequence[Blob],
    *,
    platform: Platform | None = None,
    artifact_type: str = "",
    subject: Descriptor | None = None,
) -> Descriptor:
    """Push blobs and then the manifest that names them, by digest."""
    for item in (config, *layers):
        if target.blob_head(repository, item.descriptor.digest) is None:
            target.blob_put(repository, item.descriptor, [item.content])
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        **({"artifactType": artifact_type} if artifact_type else {}),
        "config": descriptor_json(config.descriptor),
        "layers": [descriptor_json(item.descriptor) for item in layers],
        **({"subject": descriptor_json(subject)} if subject else {}),
    }
    content = ManifestContent(media_types.OCI_MANIFEST, json.dumps(document).encode())
    target.manifest_put(repository, str(content.digest), content)
    return Descriptor(content.media_type, content.digest, len(content.raw), platform, artifact_type)


def push_index(target: Registry, repository: str, tag: str, children: Sequence[Descriptor]) -> Descriptor:
    """Push an image index under a tag, and return its descriptor."""
    content = ManifestContent(media_types.OCI_INDEX, index_bytes(children))
    target.manifest_put(repository, tag, content)
    return Descriptor(content.media_type, content.digest, len(content.raw))


def tag_image(target: Registry, repository: str, tag: str, image: Descriptor) -> None:
    """Point a tag at a manifest that is there."""
    target.manifest_put(repository, tag, target.manifest_get(repository, str(image.digest)))


def push_artifact(target: Registry, repository: str, tag: str) -> tuple[Descriptor, Descriptor]:
    """Push an OCI artifact that is no image, and an SBOM that refers to it; return both descriptors."""
    empty = blob(media_types.OCI_EMPTY, b"{}")
    chart = blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", layer("chart", 20_000).content)
    artifact = push_manifest(
        target, repository, empty, [chart], artifact_type="application/vnd.cncf.helm.config.v1+json"
    )
    tag_image(target, repository, tag, artifact)
    sbom = blob(_SBOM_TYPE, b'{"packages":["demo"]}')
    return artifact, push_manifest(target, repository, empty, [sbom], artifact_type=_SBOM_TYPE, subject=artifact)


def _diff_id(item: Blob) -> Digest:
    return Digest.of(gzip.decompress(item.content))
