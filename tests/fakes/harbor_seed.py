"""Putting images into the fake Harbor without HTTP, as if they had been pushed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from harbor_satellite.oci import media_types

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fakes.harbor import FakeHarbor


def push(
    fake: FakeHarbor, repository: str, tag: str = "", *, platforms: Sequence[str] = ("linux/amd64",), content: str = ""
) -> str:
    """Push an image, for several platforms an index, and tell of it as of any push.

    Args:
        fake: in memory, not in front of a real registry.
        repository: with its project; the project is made (private) if it is not there.
        tag: empty for none.
        platforms: one makes an image, several an index with a child for each.
        content: what tells this image from others; empty: repository and tag.

    Returns:
        The digest.
    """
    fake.accounts.projects.setdefault(repository.partition("/")[0], False)
    seed = content or f"{repository}:{tag}"
    images = [_image(fake, repository, platform, seed) for platform in platforms]
    if len(images) == 1:
        raw, config = images[0]
        return _put(fake, repository, raw, media_types.OCI_MANIFEST, config, tag=tag)
    children = []
    for platform, (raw, config) in zip(platforms, images, strict=True):
        digest = _put(fake, repository, raw, media_types.OCI_MANIFEST, config, tag="")
        described = {"mediaType": media_types.OCI_MANIFEST, "digest": digest, "size": len(raw)}
        children.append(described | {"platform": _platform(platform)})
    index = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": children}).encode()
    return _put(fake, repository, index, media_types.OCI_INDEX, {}, tag=tag)


def _image(fake: FakeHarbor, repository: str, platform: str, seed: str) -> tuple[bytes, dict[str, Any]]:
    layer = f"{seed} for {platform}".encode()
    config: dict[str, Any] = {**_platform(platform), "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]}}
    parts = [
        fake.backend.memory.add_blob(repository, body, kind)
        for body, kind in (
            (json.dumps(config).encode(), media_types.OCI_CONFIG),
            (layer, media_types.OCI_LAYER_GZIP),
        )
    ]
    described = [{"mediaType": one.media_type, "digest": str(one.digest), "size": one.size} for one in parts]
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": described[0],
        "layers": described[1:],
    }
    return json.dumps(manifest).encode(), config


def _put(fake: FakeHarbor, repository: str, raw: bytes, media_type: str, config: dict[str, Any], *, tag: str) -> str:
    fake.backend.memory.add_manifest(repository, raw, tag, media_type)
    return fake.note_push(repository, raw, media_type, config, tag).digest


def _platform(text: str) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
