from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.errors import SizeLimitError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor, descriptor_json, index_bytes, parse_manifest
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.closure import MANIFEST_LIMIT, FoundManifest, Walker

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Store:
    """Manifests in memory, and who refers to whom."""

    def __init__(self) -> None:
        self.found: dict[Digest, FoundManifest] = {}
        self.referrers: dict[Digest, tuple[Descriptor, ...]] = {}
        self.reads: list[Digest] = []

    def add(self, kind: str, raw: bytes, platform: Platform | None = None) -> Descriptor:
        content = ManifestContent(kind, raw)
        self.found[content.digest] = FoundManifest(content.digest, content, parse_manifest(raw, kind, "it"))
        return Descriptor(kind, content.digest, len(raw), platform)

    def image(self, *blobs: bytes, platform: Platform | None = None, **more: object) -> Descriptor:
        layers = [{"mediaType": "x", "digest": str(Digest.of(part)), "size": len(part)} for part in blobs]
        return self.add(media_types.OCI_MANIFEST, json.dumps({"layers": layers, **more}).encode(), platform)

    def index(self, children: Iterable[Descriptor], platform: Platform | None = None) -> Descriptor:
        return self.add(media_types.OCI_INDEX, index_bytes(children), platform)

    def read(self, digest: Digest) -> FoundManifest:
        self.reads.append(digest)
        return self.found[digest]

    def walker(self, *platforms: Platform) -> Walker:
        return Walker(self.read, lambda digest: self.referrers.get(digest, ()), platforms)

    def refer(self, subject: Descriptor, kind: str = "") -> Descriptor:
        referrer = self.image(b"signature", subject=descriptor_json(subject), artifactType=kind)
        self.referrers[subject.digest] = (*self.referrers.get(subject.digest, ()), referrer)
        return referrer


def before(order: Mapping[Digest, int], *digests: Digest) -> bool:
    places = [order[digest] for digest in digests]
    return places == sorted(places)


@pytest.fixture
def store() -> Store:
    return Store()


def test_walk_children_come_before_their_index_and_subjects_before_referrers(store: Store) -> None:
    child = store.image(b"a")
    inner = store.index([child])
    root = store.index([inner])
    sbom = store.refer(child)
    signature = store.refer(sbom)

    closure = store.walker().walk(root.digest, None)

    order = {item.digest: place for place, item in enumerate(closure.manifests)}
    assert before(order, child.digest, inner.digest, root.digest)
    assert before(order, child.digest, sbom.digest, signature.digest)
    assert closure.referrers == tuple(sorted([sbom.digest, signature.digest]))


def test_walk_shared_child_is_read_once(store: Store) -> None:
    child = store.image(b"a")
    root = store.index([store.index([child], Platform("linux", "arm")), store.index([child]), child, child])

    store.walker().walk(root.digest, ())

    assert store.reads.count(child.digest) == 1


def test_walk_referrers_that_refer_to_each_other_end(store: Store) -> None:
    root = store.image(b"a")
    sbom = store.refer(root)
    store.referrers[sbom.digest] = (sbom, root)

    closure = store.walker().walk(root.digest, None)

    assert closure.referrers == (sbom.digest,)


def test_walk_known_referrers_asks_nobody(store: Store) -> None:
    root = store.image(b"a")
    known, _unknown = store.refer(root), store.refer(root, "other")

    closure = store.walker().walk(root.digest, (known.digest,))

    assert [item.digest for item in closure.manifests] == [root.digest, known.digest]


def test_walk_platforms_leaves_other_children_unread(store: Store) -> None:
    arm, amd = (store.image(name.encode(), platform=Platform("linux", name)) for name in ("arm", "amd64"))
    root = store.index([arm, amd])

    closure = store.walker(Platform("linux", "amd64")).walk(root.digest, ())

    assert [item.digest for item in closure.manifests] == [amd.digest, root.digest]


def test_closure_size_counts_each_blob_and_manifest_once(store: Store) -> None:
    first, second = store.image(b"shared", b"one"), store.image(b"shared", b"three")
    root = store.index([first, second])

    closure = store.walker().walk(root.digest, ())

    assert closure.size == len(b"shared" + b"one" + b"three") + first.size + second.size + root.size
    assert len(closure.blobs) == 3


def test_walk_too_wide_is_refused(store: Store) -> None:
    children = [store.image(b"%d" % number) for number in range(MANIFEST_LIMIT + 1)]
    root = store.index(children)

    with pytest.raises(SizeLimitError, match=f"more than {MANIFEST_LIMIT} manifests"):
        store.walker().walk(root.digest, ())


def test_walk_too_deep_is_refused(store: Store) -> None:
    root = store.image(b"a")
    for _ in range(1500):
        root = store.index([root])

    with pytest.raises(SizeLimitError):
        store.walker().walk(root.digest, ())


def test_walk_too_many_bytes_of_manifests_is_refused(store: Store) -> None:
    filling = "x" * 3_000_000
    children = [store.image(b"a", annotations={"number": str(number), "filling": filling}) for number in range(40)]
    root = store.index(children)

    with pytest.raises(SizeLimitError):
        store.walker().walk(root.digest, ())
