"""What the pipeline reads in an image index and in manifests: platforms, digests, sizes. Pure."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from ci.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

_INDEX_TYPES: Final = frozenset(
    {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
)
_CONFIG_TYPES: Final = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)


@dataclass(frozen=True)
class Child:
    """A platform's manifest, as an index names it."""

    platform: str
    """`linux/amd64`, or with a variant `linux/arm/v7`."""
    digest: str


def children(index: bytes, where: str) -> tuple[Child, ...]:
    """Return the platforms' manifests of an index; what is no platform's (an attestation of BuildKit's) is left out.

    Args:
        index: the manifest as the registry gave it.
        where: its reference, for the error.

    Raises:
        PipelineError: it is no index, or malformed.
    """
    body = _object(index, where)
    manifests = body.get("manifests")
    if not isinstance(manifests, list):
        raise PipelineError(f"{where} is no image index: it has no manifests")
    try:
        found = [Child(_platform(each["platform"]), str(each["digest"])) for each in manifests if "platform" in each]
    except (KeyError, TypeError) as error:
        raise PipelineError(f"{where} is a malformed image index: {error!r}") from error
    return tuple(child for child in found if "unknown" not in child.platform)


def is_index(manifest: bytes, where: str) -> bool:
    """Return whether a manifest names others, rather than layers.

    Raises:
        PipelineError: it is not JSON.
    """
    body = _object(manifest, where)
    return body.get("mediaType") in _INDEX_TYPES or "manifests" in body


def is_image(manifest: bytes, where: str) -> bool:
    """Return whether a manifest is of a platform's image, rather than of an artifact such as a chart.

    Raises:
        PipelineError: it is not JSON.
    """
    config = _object(manifest, where).get("config")
    return isinstance(config, dict) and config.get("mediaType") in _CONFIG_TYPES


def only_child(config: bytes, digest: str, where: str) -> Child:
    """Return the platform of an image that is no index.

    Args:
        config: the image's.
        digest: of its manifest.
        where: its reference, for the error.

    Raises:
        PipelineError: it is no image's config.
    """
    try:
        return Child(_platform(_object(config, where)), digest)
    except KeyError as error:
        raise PipelineError(f"{where} is no image: its config has no {error}") from error


def size_bytes(manifest: bytes, where: str) -> int:
    """Return what a pull of a platform's image transfers: its manifest, config and layers.

    Raises:
        PipelineError: it is no image's manifest.
    """
    body = _object(manifest, where)
    try:
        config, layers = cast("Mapping[str, int]", body["config"]), cast("list[Mapping[str, int]]", body["layers"])
        return len(manifest) + config["size"] + sum(layer["size"] for layer in layers)
    except (KeyError, TypeError) as error:
        raise PipelineError(f"{where} is no image's manifest: {error!r}") from error


@dataclass(frozen=True)
class Archive:
    """What an OCI archive holds."""

    digest: str
    """Of the index."""
    children: tuple[Child, ...]
    sizes_bytes: Mapping[str, int]
    """Platform → what a pull transfers."""


def read_archive(file: BinaryIO, where: str) -> Archive:
    """Return digests and sizes of the one image in an OCI archive (a tar of an image layout).

    Raises:
        PipelineError: it is no such archive.
    """
    try:
        with tarfile.open(fileobj=file) as archive:

            def read(name: str) -> bytes:
                content = archive.extractfile(name)
                return b"" if content is None else content.read()

            def blob(digest: str) -> bytes:
                return read(f"blobs/{digest.replace(':', '/')}")

            def config(manifest: bytes) -> bytes:
                return blob(cast("Mapping[str, str]", _object(manifest, where)["config"])["digest"])

            (entry,) = cast("list[Mapping[str, str]]", _object(read("index.json"), where)["manifests"])
            digest = entry["digest"]
            content = blob(digest)
            is_one = not is_index(content, where)
            found = (only_child(config(content), digest, where),) if is_one else children(content, where)
            sizes = {child.platform: size_bytes(blob(child.digest), where) for child in found}
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise PipelineError(f"{where} is no OCI archive with one image: {error!r}") from error
    return Archive(digest, found, sizes)


def _platform(value: Mapping[str, object]) -> str:
    parts = [str(value["os"]), str(value["architecture"]), *([str(value["variant"])] if value.get("variant") else [])]
    # Of ARM's 64 bits there is one variant, and it is not told.
    return "/".join(parts).removesuffix("/v8") if value["architecture"] == "arm64" else "/".join(parts)


def _object(content: bytes, where: str) -> dict[str, object]:
    try:
        body = json.loads(content)
    except ValueError as error:
        raise PipelineError(f"{where} is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise PipelineError(f"{where} is no JSON object")
    return body
