"""Sets of images made from nothing, and the state that Ground Control would write for them."""

from __future__ import annotations

import io
import json
import random
import tarfile
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from harbor_satellite.demo.images import Blob, blob
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor, descriptor_json, index_bytes, parse_manifest
from harbor_satellite.oci.platform import Platform
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.state.artifact import StateArtifact, StateEntry, state_artifact_json
from harbor_satellite.state.names import group_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.client import HttpRegistry

MIB: Final = 1024 * 1024
SIX_PLATFORMS: Final = tuple(
    Platform("linux", architecture) for architecture in ("386", "amd64", "arm64", "ppc64le", "riscv64", "s390x")
)
TWO_PLATFORMS: Final = (Platform("linux", "amd64"), Platform("linux", "arm64"))
_UNEVEN: Final = (0.4, 0.7, 1.0, 1.3, 1.6)
"""Layers differ in size; these factors average to one."""


@dataclass(frozen=True, slots=True)
class Image:
    """One tagged image at the source."""

    repository: str
    tag: str
    digest: Digest
    size: int
    """bytes of its closure, each blob once"""
    media_type: str
    platforms: tuple[Platform, ...] = ()

    def entry(self) -> StateEntry:
        """Return what a state says of it."""
        return StateEntry(
            repository=self.repository,
            tags=(self.tag,),
            digest=self.digest,
            size=self.size,
            media_type=self.media_type,
            platforms=self.platforms,
            referrers=(),
        )


@dataclass
class Corpus:
    """Images pushed to one source, and how many bytes they are."""

    source: HttpRegistry
    images: list[Image] = field(default_factory=list)
    sizes: dict[Digest, int] = field(default_factory=dict)
    """bytes of every blob and manifest"""
    _homes: dict[Digest, str] = field(default_factory=dict)

    @property
    def unique_bytes(self) -> int:
        """Bytes that must cross to an empty site: each blob and manifest once."""
        return sum(self.sizes.values())

    @property
    def counted_bytes(self) -> int:
        """Bytes if every image came alone."""
        return sum(image.size for image in self.images)

    def push(
        self, repository: str, parts: Sequence[tuple[Platform, Sequence[Blob]]], *, is_index: bool = True
    ) -> Image:
        """Push one image: for each platform its layers; several platforms make an index."""
        children = [self._push_platform(repository, platform, layers) for platform, layers in parts]
        if is_index:
            root = ManifestContent(media_types.OCI_INDEX, index_bytes(children))
        else:
            root = self.source.manifest_get(repository, str(children[0].digest))
        self.source.manifest_put(repository, "v1", root)
        self.sizes[root.digest] = len(root.raw)
        digests = {root.digest, *(digest for child in children for digest in self._closure(repository, child))}
        image = Image(
            repository=repository,
            tag="v1",
            digest=root.digest,
            size=sum(self.sizes[digest] for digest in digests),
            media_type=root.media_type,
            platforms=tuple(platform for platform, _ in parts) if is_index else (),
        )
        self.images.append(image)
        return image

    def state_json(self, url: str, images: Iterable[Image] | None = None, generation: int = 1) -> bytes:
        """Write the group's state, naming ``url`` as the source."""
        chosen = self.images if images is None else images
        entries = tuple(sorted((image.entry() for image in chosen), key=lambda entry: entry.repository))
        created_at = datetime.now(UTC)
        return state_artifact_json(StateArtifact(group_name("bench"), url, entries, generation, created_at))

    def _push_platform(self, repository: str, platform: Platform, layers: Sequence[Blob]) -> Descriptor:
        text = {"architecture": platform.architecture, "os": platform.os, "config": {"Labels": {"of": repository}}}
        diff_ids = [str(item.descriptor.digest) for item in layers]  # nobody unpacks these
        config = blob(media_types.OCI_CONFIG, json.dumps({**text, "rootfs": {"diff_ids": diff_ids}}).encode())
        for item in (config, *layers):
            self._push_blob(repository, item)
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": descriptor_json(config.descriptor),
            "layers": [descriptor_json(item.descriptor) for item in layers],
        }
        content = ManifestContent(media_types.OCI_MANIFEST, json.dumps(document).encode())
        self.source.manifest_put(repository, str(content.digest), content)
        self.sizes[content.digest] = len(content.raw)
        return Descriptor(content.media_type, content.digest, len(content.raw), platform)

    def _push_blob(self, repository: str, item: Blob) -> None:
        digest = item.descriptor.digest
        home = self._homes.setdefault(digest, repository)
        if home == repository or not self.source.blob_mount(repository, digest, home):
            self.source.blob_put(repository, item.descriptor, [item.content])
        self.sizes[digest] = item.descriptor.size

    def _closure(self, repository: str, child: Descriptor) -> set[Digest]:
        content = self.source.manifest_get(repository, str(child.digest))
        return {child.digest, *(item.digest for item in parse_manifest(content.raw, content.media_type, "").blobs)}


def layer(name: str, size: int) -> Blob:
    """Make a tar layer of random bytes in gzip's format, stored: the same name, the same bytes, made fast."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as files:
        entry = tarfile.TarInfo(f"bench/{name}")
        entry.size = size
        files.addfile(entry, io.BytesIO(random.Random(name).randbytes(size)))  # noqa: S311  (content, no secret)
    packer = zlib.compressobj(0, wbits=31)
    return blob(media_types.OCI_LAYER_GZIP, packer.compress(archive.getvalue()) + packer.flush())


def fill_lan(source: HttpRegistry, scale: float) -> Corpus:
    """Push 20 images of two platforms: 280 layers, 480 MiB of them unique, 1.2 GiB if each image came alone."""
    corpus = Corpus(source)
    for family in range(4):
        shared = {
            platform: [_uneven(f"base-{family}-{platform}-{number}", number, 2.34 * scale) for number in range(10)]
            for platform in TWO_PLATFORMS
        }
        for member in range(5):
            repository = f"bench/family{family}/image{member}"
            parts = [
                (platform, [*shared[platform], *_own(f"{repository}-{platform}", 5, 1.465 * scale)])
                for platform in TWO_PLATFORMS
            ]
            corpus.push(repository, parts)
    return corpus


def fill_tiny(source: HttpRegistry, count: int) -> Corpus:
    """Push images of one small layer each; no two share a blob, so they may be pushed side by side."""
    corpus = Corpus(source)

    def push(number: int) -> None:
        parts = [(TWO_PLATFORMS[0], [layer(f"tiny-{number}", 1024)])]
        corpus.push(f"bench/tiny{number:05}", parts, is_index=False)

    with ThreadPoolExecutor(8) as pool:
        deque(pool.map(push, range(count)), maxlen=0)
    corpus.images.sort(key=lambda image: image.repository)
    return corpus


def fill_wan(source: HttpRegistry, scale: float) -> Corpus:
    """Push 20 images of one platform that share nothing: 183 MiB."""
    corpus = Corpus(source)
    for number in range(20):
        parts = [(TWO_PLATFORMS[0], _own(f"wan-{number}", 5, 1.83 * scale))]
        corpus.push(f"bench/wan{number:02}", parts, is_index=False)
    return corpus


def fill_platforms(source: HttpRegistry, scale: float) -> Corpus:
    """Push one image of six platforms, 4 MiB each."""
    corpus = Corpus(source)
    parts = [(platform, _own(f"six-{platform}", 2, 2.0 * scale)) for platform in SIX_PLATFORMS]
    corpus.push("bench/six", parts)
    return corpus


def _own(name: str, count: int, mib: float) -> list[Blob]:
    return [_uneven(f"{name}-{number}", number, mib) for number in range(count)]


def _uneven(name: str, number: int, mib: float) -> Blob:
    return layer(name, int(mib * MIB * _UNEVEN[number % len(_UNEVEN)]))
