"""Copying between two layouts on disk, and from a registry that misbehaves."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, BinaryIO

import pytest

from harbor_satellite.demo.images import (
    AMD64,
    ARM64,
    Blob,
    blob,
    layer,
    push_artifact,
    push_image,
    push_index,
    push_manifest,
    tag_image,
)
from harbor_satellite.errors import (
    DigestMismatchError,
    HarborSatelliteError,
    InvalidInputError,
    MalformedStateError,
    RemoteError,
    StorageError,
    UntrustedDataError,
)
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor, descriptor_json
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.platform import Platform
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.copy import Copier, KnownBlobs, is_complete, publish_tags
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.partials import PartialFolder
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_wire import FakeReply

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


APP = "acme/app"


class Recording(LayoutRegistry):
    """A layout that remembers what was read from it and mounted in it."""

    def __init__(self, root: Path, name: str) -> None:
        super().__init__(root, name)
        self.read: Counter[Digest] = Counter()
        self.mounted: list[tuple[str, str]] = []

    def blob_open(self, repository: str, digest: Digest) -> BinaryIO:
        self.read[digest] += 1
        return super().blob_open(repository, digest)

    def blob_mount(self, repository: str, digest: Digest, from_repository: str = "") -> bool:
        self.mounted.append((from_repository, repository))
        return super().blob_mount(repository, digest, from_repository)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Recording]:
    with Recording(tmp_path / "source", "source.test") as registry:
        yield registry


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Recording]:
    with Recording(tmp_path / "target", "target.test") as registry:
        yield registry


@pytest.fixture
def fake() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def fake_source(fake: FakeRegistry) -> Iterator[HttpRegistry]:
    with fake.serving() as url, HttpRegistry(url) as registry:
        yield registry


def put(registry: LayoutRegistry, document: dict[str, object], *, tag: str = "", repository: str = APP) -> Descriptor:
    kind = str(document["mediaType"])
    content = ManifestContent(kind, json.dumps(document, indent=3).encode())
    registry.manifest_put(repository, tag or str(content.digest), content)
    return Descriptor(kind, content.digest, len(content.raw))


def fake_image(fake: FakeRegistry, *layers: Descriptor, config: Descriptor | None = None) -> Digest:
    config = config or fake.add_blob(APP, b"{}", media_types.OCI_CONFIG)
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor_json(config),
        "layers": [descriptor_json(item) for item in layers],
    }
    return fake.add_manifest(APP, json.dumps(document).encode(), "v1").digest


def same(source: LayoutRegistry, target: LayoutRegistry, digest: Digest) -> bool:
    return source.manifest_get(APP, str(digest)) == target.manifest_get(APP, str(digest))


def test_stage_index_brings_every_platform_byte_by_byte(source: Recording, target: Recording) -> None:
    children = [push_image(source, APP, platform, [layer(str(platform), 2000)]) for platform in (AMD64, ARM64)]
    index = push_index(source, APP, "v1", children)

    result = Copier(source, target).stage(APP, index.digest, None)

    assert all(same(source, target, item.digest) for item in (index, *children))
    assert is_complete(target, APP, index.digest)
    assert (result.manifests_copied, result.blobs_copied) == (3, 4)
    assert target.tag_list(APP) == ()


def test_stage_docker_schema_2_is_not_converted(source: Recording, target: Recording) -> None:
    config, packed = blob(media_types.DOCKER_CONFIG, b"{}"), blob(media_types.DOCKER_LAYER_GZIP, b"layer")
    for item in (config, packed):
        source.blob_put(APP, item.descriptor, [item.content])
    image = put(
        source,
        {
            "schemaVersion": 2,
            "mediaType": media_types.DOCKER_MANIFEST,
            "config": descriptor_json(config.descriptor),
            "layers": [descriptor_json(packed.descriptor)],
        },
    )
    child = descriptor_json(image) | {"platform": {"os": "linux", "architecture": "amd64"}}
    index = put(source, {"schemaVersion": 2, "mediaType": media_types.DOCKER_INDEX, "manifests": [child]})

    Copier(source, target).stage(APP, index.digest, None)

    assert same(source, target, index.digest)
    assert same(source, target, image.digest)


def test_stage_artifact_brings_its_referrer(source: Recording, target: Recording) -> None:
    artifact, sbom = push_artifact(source, APP, "v1")

    Copier(source, target).stage(APP, artifact.digest, None)

    assert same(source, target, artifact.digest)
    assert [item.digest for item in target.referrer_list(APP, artifact.digest)] == [sbom.digest]


def test_stage_brings_referrers_of_children_and_of_referrers(source: Recording, target: Recording) -> None:
    child = push_image(source, APP, AMD64, [layer("a", 2000)])
    index = push_index(source, APP, "v1", [child])
    empty = blob(media_types.OCI_EMPTY, b"{}")
    sbom = push_manifest(source, APP, empty, [blob("text/sbom", b"sbom")], artifact_type="text/sbom", subject=child)
    signature = push_manifest(source, APP, empty, [blob("text/sig", b"sig")], artifact_type="text/sig", subject=sbom)

    Copier(source, target).stage(APP, index.digest, None)

    assert [item.digest for item in target.referrer_list(APP, child.digest)] == [sbom.digest]
    assert [item.digest for item in target.referrer_list(APP, sbom.digest)] == [signature.digest]


def test_stage_known_referrers_brings_just_those(source: Recording, target: Recording) -> None:
    artifact, sbom = push_artifact(source, APP, "v1")

    Copier(source, target).stage(APP, artifact.digest, ())

    assert target.manifest_head(APP, str(sbom.digest)) is None


def test_stage_shared_layer_crosses_once(source: Recording, target: Recording) -> None:
    shared = layer("shared", 5000)
    images = [(repository, push_image(source, repository, AMD64, [shared])) for repository in (APP, "acme/other")]
    copier = Copier(source, target)

    results = [copier.stage(repository, image.digest, None) for repository, image in images]

    assert source.read[shared.descriptor.digest] == 1
    assert (results[1].blobs_copied, results[1].blobs_mounted) == (0, 2)


def test_stage_shared_layer_at_the_same_time_crosses_once(source: Recording, target: Recording) -> None:
    shared = layer("shared", 200_000)
    repositories = [f"acme/app{number}" for number in range(6)]
    images = [push_image(source, repository, AMD64, [shared]) for repository in repositories]
    copier = Copier(source, target)
    threads = [
        threading.Thread(target=copier.stage, args=(repository, image.digest, None))
        for repository, image in zip(repositories, images, strict=True)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert source.read[shared.descriptor.digest] == 1
    assert all(target.blob_head(repository, shared.descriptor.digest) for repository in repositories)


def test_stage_blob_known_from_before_is_mounted(source: Recording, target: Recording) -> None:
    shared = layer("shared", 5000)
    old = push_image(target, "acme/old", AMD64, [shared])
    image = push_image(source, APP, AMD64, [shared])
    known = KnownBlobs(lambda: {shared.descriptor.digest: "acme/old"})

    Copier(source, target, known).stage(APP, image.digest, None)

    assert old.digest == image.digest
    assert source.read[shared.descriptor.digest] == 0


def test_stage_mount_refused_copies_after_all(source: Recording, target: Recording) -> None:
    image = push_image(source, APP, AMD64, [item := layer("a", 2000)])
    known = KnownBlobs(lambda: {item.descriptor.digest: "acme/gone"})

    result = Copier(source, target, known).stage(APP, image.digest, None)

    assert ("acme/gone", APP) in target.mounted
    assert result.blobs_mounted == 0
    assert is_complete(target, APP, image.digest)


def test_stage_again_reads_nothing_from_source(source: Recording, target: Recording) -> None:
    image = push_image(source, APP, AMD64, [layer("a", 2000)])
    Copier(source, target).stage(APP, image.digest, None)
    source.read.clear()
    seen: list[int] = []

    result = Copier(source, target, on_bytes=seen.append).stage(APP, image.digest, ())

    assert (source.read, seen) == (Counter(), [])
    assert (result.bytes_copied, result.blobs_copied, result.manifests_copied) == (0, 0, 0)


def test_stage_counts_every_byte_from_source(source: Recording, target: Recording) -> None:
    image = push_image(source, APP, AMD64, [layer("a", 2000), layer("b", 3000)])
    seen: list[int] = []

    result = Copier(source, target, on_bytes=seen.append).stage(APP, image.digest, None)

    assert sum(seen) == result.bytes_copied > 5000


def test_stage_after_loss_of_one_blob_heals_it(source: Recording, target: Recording) -> None:
    image = push_image(source, APP, AMD64, [lost := layer("a", 2000), layer("b", 2000)])
    Copier(source, target).stage(APP, image.digest, None)
    path = target.root / APP / "blobs/sha256" / lost.descriptor.digest.hex
    path.unlink()

    result = Copier(source, target).stage(APP, image.digest, None)

    assert result.blobs_copied == 1
    assert is_complete(target, APP, image.digest)


def test_stage_manifest_damaged_at_target_is_taken_from_source(source: Recording, target: Recording) -> None:
    image = push_image(source, APP, AMD64, [layer("a", 2000)])
    Copier(source, target).stage(APP, image.digest, None)
    path = target.root / APP / "blobs/sha256" / image.digest.hex
    path.write_bytes(path.read_bytes().replace(b"amd", b"xyz").replace(b"schemaVersion", b"schemaversion"))

    Copier(source, target).stage(APP, image.digest, None)

    assert same(source, target, image.digest)


@pytest.mark.parametrize(
    ("wish", "kept"),
    [("linux/amd64", [True, False]), ("linux/arm64", [False, True])],
)
def test_stage_platform_filter_keeps_digest_of_index(
    tmp_path: Path, source: Recording, wish: str, kept: list[bool]
) -> None:
    children = [push_image(source, APP, platform, [layer(str(platform), 2000)]) for platform in (AMD64, ARM64)]
    index = push_index(source, APP, "v1", children)

    with LayoutRegistry(tmp_path / "sparse", requires_content=False) as target:
        Copier(source, target, platforms=(Platform.parse(wish),)).stage(APP, index.digest, None)

        assert [target.manifest_head(APP, str(child.digest)) is not None for child in children] == kept
        assert same(source, target, index.digest)


def test_stage_platform_that_no_child_is_for_is_refused(source: Recording, target: Recording) -> None:
    index = push_index(source, APP, "v1", [push_image(source, APP, AMD64, [layer("amd", 2000)])])

    with pytest.raises(InvalidInputError, match="has nothing for linux/s390x; it has linux/amd64"):
        Copier(source, target, platforms=(Platform.parse("linux/s390x"),)).stage(APP, index.digest, None)

    assert target.manifest_head(APP, str(index.digest)) is None


def test_stage_platform_filter_into_embedded_registry(source: Recording, target: Recording) -> None:
    children = [push_image(source, APP, platform, [layer(str(platform), 2000)]) for platform in (AMD64, ARM64)]
    index = push_index(source, APP, "v1", children)

    Copier(source, target, platforms=(AMD64,)).stage(APP, index.digest, None)

    assert same(source, target, index.digest)


def test_stage_platform_filter_blob_missing_at_source_brings_no_other_platform(
    source: Recording, target: Recording
) -> None:
    lost, other = layer("amd64", 2000), layer("arm64", 2000)
    children = [
        push_image(source, APP, AMD64, [lost]),
        push_image(source, APP, ARM64, [other]),
    ]
    index = push_index(source, APP, "v1", children)
    (source.root / APP / "blobs/sha256" / lost.descriptor.digest.hex).unlink()

    with pytest.raises(HarborSatelliteError):
        Copier(source, target, platforms=(AMD64,)).stage(APP, index.digest, ())

    assert source.read[other.descriptor.digest] == 0


def test_stage_platform_filter_brings_children_without_platform(source: Recording, target: Recording) -> None:
    child = push_image(source, APP, AMD64, [layer("a", 2000)])
    bare = Descriptor(child.media_type, child.digest, child.size)
    index = push_index(source, APP, "v1", [bare])

    Copier(source, target, platforms=(ARM64,)).stage(APP, index.digest, None)

    assert is_complete(target, APP, index.digest)


def test_stage_manifest_with_wrong_bytes_is_refused(
    fake: FakeRegistry, fake_source: HttpRegistry, target: Recording
) -> None:
    digest = fake_image(fake)
    kind, raw = fake.manifests[APP][str(digest)]
    fake.manifests[APP][str(digest)] = (kind, raw + b" ")

    with pytest.raises(DigestMismatchError, match=str(digest)):
        Copier(fake_source, target).stage(APP, digest, ())

    assert target.repository_list() == ()


def test_stage_blob_with_wrong_bytes_publishes_nothing(
    fake: FakeRegistry, fake_source: HttpRegistry, target: Recording
) -> None:
    digest = fake_image(fake, bad := fake.add_blob(APP, b"other", digest=Digest.of(b"right")))

    with pytest.raises(DigestMismatchError, match=bad.digest.hex):
        Copier(fake_source, target).stage(APP, digest, ())

    assert target.repository_list() == ()
    assert target.blob_head(APP, bad.digest) is None


@pytest.mark.parametrize("content", [b"short", b"much too long for its descriptor"], ids=["shorter", "longer"])
def test_stage_blob_of_wrong_size_publishes_nothing(
    fake: FakeRegistry, fake_source: HttpRegistry, target: Recording, content: bytes
) -> None:
    right = Digest.of(b"the right content")
    fake.add_blob(APP, content, digest=right)
    digest = fake_image(fake, Descriptor(media_types.OCI_LAYER_GZIP, right, 17))

    with pytest.raises((UntrustedDataError, RemoteError)):
        Copier(fake_source, target).stage(APP, digest, ())

    assert target.repository_list() == ()


def test_stage_blob_missing_publishes_nothing(fake: FakeRegistry, fake_source: HttpRegistry, target: Recording) -> None:
    digest = fake_image(fake, Descriptor(media_types.OCI_LAYER_GZIP, Digest.of(b"gone"), 4))

    with pytest.raises(RemoteError) as raised:
        Copier(fake_source, target).stage(APP, digest, ())

    assert (raised.value.status, raised.value.retryable) == (404, False)
    assert target.repository_list() == ()


@pytest.mark.parametrize(
    ("reply", "is_retryable"),
    [
        (FakeReply(401), False),
        (FakeReply(403), False),
        (FakeReply(429, {"Retry-After": "7"}), True),
        (FakeReply(500), True),
        (FakeReply(503), True),
        (FakeReply(200, body=b"cut in the middle", cut_after=3), True),
    ],
    ids=["401", "403", "429", "500", "503", "cut"],
)
def test_stage_blob_refused_says_whether_to_retry(
    fake: FakeRegistry,
    fake_source: HttpRegistry,
    target: Recording,
    reply: FakeReply,
    is_retryable: bool,  # noqa: FBT001 - a column of the table
) -> None:
    digest = fake_image(fake, part := fake.add_blob(APP, b"cut in the middle"))
    fake.misbehave(rf"GET .*/blobs/{part.digest}", reply, times=20)

    with pytest.raises(HarborSatelliteError) as raised:
        Copier(fake_source, target, sleep=lambda _: None).stage(APP, digest, ())

    assert raised.value.retryable is is_retryable
    assert target.repository_list() == ()


def test_stage_one_blob_fails_others_of_the_image_stay_for_the_next_try(
    fake: FakeRegistry, fake_source: HttpRegistry, target: Recording
) -> None:
    good = [fake.add_blob(APP, b"good %d" % number) for number in range(3)]
    digest = fake_image(fake, *good, bad := fake.add_blob(APP, b"flaky"))
    fake.misbehave(rf"GET .*/blobs/{bad.digest}", FakeReply(503))
    with pytest.raises(RemoteError):
        Copier(fake_source, target).stage(APP, digest, ())
    fake.requests.clear()

    Copier(fake_source, target).stage(APP, digest, ())

    assert {one.path for one in fake.seen("GET .*/blobs/.*")} == {f"/v2/{APP}/blobs/{bad.digest}"}


@pytest.mark.parametrize(
    "kind",
    ["application/vnd.docker.distribution.manifest.v1+prettyjws", "text/html", ""],
    ids=["schema 1", "HTML", "none"],
)
def test_stage_foreign_kind_of_manifest_is_refused(
    fake: FakeRegistry, fake_source: HttpRegistry, target: Recording, kind: str
) -> None:
    digest = fake.add_manifest(APP, b'{"schemaVersion":1}', "v1", kind).digest

    with pytest.raises(MalformedStateError, match=str(digest)):
        Copier(fake_source, target).stage(APP, digest, ())

    assert target.repository_list() == ()


def nondistributable(fake: FakeRegistry, content: bytes) -> Descriptor:
    kind = f"{media_types.NONDISTRIBUTABLE[0]}tar+gzip"
    return Descriptor(kind, Digest.of(content), len(content))


def test_stage_nondistributable_layer_may_be_absent(
    fake: FakeRegistry, fake_source: HttpRegistry, target: Recording
) -> None:
    digest = fake_image(fake, absent := nondistributable(fake, b"windows"), fake.add_blob(APP, b"ours"))

    result = Copier(fake_source, target).stage(APP, digest, ())

    assert result.blobs_copied == 2
    assert target.blob_head(APP, absent.digest) is None
    assert is_complete(target, APP, digest)


def test_stage_nondistributable_layer_that_is_there_is_brought(
    fake: FakeRegistry, fake_source: HttpRegistry, target: Recording
) -> None:
    digest = fake_image(fake, there := nondistributable(fake, b"windows"))
    fake.add_blob(APP, b"windows")

    Copier(fake_source, target).stage(APP, digest, ())

    assert target.blob_head(APP, there.digest) == 7


def test_publish_tags_moves_them_to_what_is_staged(source: Recording, target: Recording) -> None:
    old, new = (push_image(source, APP, AMD64, [layer(name, 2000)]) for name in ("old", "new"))
    copier = Copier(source, target)
    for image in (old, new):
        copier.stage(APP, image.digest, None)
    publish_tags(target, APP, old.digest, ("v1", "latest"))

    publish_tags(target, APP, new.digest, ("latest",))

    named = {tag: target.manifest_get(APP, tag).digest for tag in target.tag_list(APP)}
    assert named == {"v1": old.digest, "latest": new.digest}


def test_publish_tags_nothing_staged_is_refused(target: Recording) -> None:
    with pytest.raises(HarborSatelliteError):
        publish_tags(target, APP, Digest.of(b"nothing"), ("v1",))

    assert target.tag_list(APP) == ()


def pushed(registry: LayoutRegistry) -> tuple[Descriptor, Descriptor, Blob]:
    item = layer("a", 2000)
    child = push_image(registry, APP, AMD64, [item])
    return push_index(registry, APP, "v1", [child]), child, item


@pytest.mark.parametrize("part", ["manifest", "child", "blob"])
def test_is_complete_without_a_part_is_false(target: Recording, part: str) -> None:
    index, child, item = pushed(target)
    lost = {"manifest": index.digest, "child": child.digest, "blob": item.descriptor.digest}[part]
    (target.root / APP / "blobs/sha256" / lost.hex).unlink()

    assert not is_complete(target, APP, index.digest)


def test_is_complete_blob_cut_short_is_false(target: Recording) -> None:
    index, _, item = pushed(target)
    path = target.root / APP / "blobs/sha256" / item.descriptor.digest.hex
    path.write_bytes(item.content[:-1])

    assert not is_complete(target, APP, index.digest)


def test_is_complete_unknown_manifest_is_false(target: Recording) -> None:
    assert not is_complete(target, APP, Digest.of(b"nothing"))


def test_tag_image_then_head_gives_same_digest(target: Recording) -> None:
    image = push_image(target, APP, AMD64, [layer("a", 2000)])

    tag_image(target, APP, "v1", image)

    found = target.manifest_head(APP, "v1")
    assert found is not None
    assert found.digest == image.digest


class NoMounts(Recording):
    """A target that mounts nothing."""

    def blob_mount(self, repository: str, digest: Digest, from_repository: str = "") -> bool:
        self.mounted.append((from_repository, repository))
        return False


@pytest.fixture
def no_mounts(tmp_path: Path) -> Iterator[NoMounts]:
    with NoMounts(tmp_path / "no-mounts", "no-mounts.test") as registry:
        yield registry


def push_pair(source: Recording, shared: Blob) -> list[tuple[str, Digest]]:
    return [(repository, push_image(source, repository, AMD64, [shared]).digest) for repository in (APP, "acme/other")]


def test_stage_blob_seen_on_the_way_is_mounted_though_nobody_knew_it(source: Recording, target: Recording) -> None:
    first, second = push_pair(source, shared := layer("shared", 5000))
    Copier(source, target).stage(*first, ())
    source.read.clear()
    copier = Copier(source, target)

    copier.stage(*first, ())
    result = copier.stage(*second, ())

    assert source.read[shared.descriptor.digest] == 0
    assert result.blobs_mounted == 2


def test_stage_blob_of_a_run_that_did_not_finish_is_mounted(
    tmp_path: Path, source: Recording, target: Recording
) -> None:
    first, second = push_pair(source, shared := layer("shared", 5000))
    Copier(source, target, partials=PartialFolder(tmp_path / "partials")).stage(*first, ())

    result = Copier(source, target, partials=PartialFolder(tmp_path / "partials")).stage(*second, ())

    assert source.read[shared.descriptor.digest] == 1
    assert result.blobs_mounted == 2


def test_stage_arrival_that_is_gone_is_copied_after_all(tmp_path: Path, source: Recording, target: Recording) -> None:
    image = push_image(source, APP, AMD64, [item := layer("a", 2000)])
    partials = PartialFolder(tmp_path / "partials")
    partials.note_arrival(item.descriptor.digest, "acme/gone")

    result = Copier(source, target, partials=partials).stage(APP, image.digest, ())

    assert (result.blobs_copied, result.blobs_mounted) == (2, 0)
    assert is_complete(target, APP, image.digest)


def test_stage_lookup_is_called_once_and_only_for_what_is_missing(source: Recording, target: Recording) -> None:
    first, second = push_pair(source, layer("shared", 5000))
    calls: list[int] = []

    def lookup() -> dict[Digest, str]:
        calls.append(1)
        return {}

    Copier(source, target).stage(*first, ())
    copier = Copier(source, target, KnownBlobs(lookup))
    copier.stage(*first, ())
    assert calls == []
    copier.stage(APP, push_image(source, APP, AMD64, [layer("b", 2000), layer("c", 2000)]).digest, ())
    copier.stage(*second, ())

    assert calls == [1]


def test_stage_where_nothing_is_mounted_takes_the_blob_from_the_site_itself(
    source: Recording, no_mounts: NoMounts
) -> None:
    first, second = push_pair(source, shared := layer("shared", 5000))
    copier = Copier(source, no_mounts)

    for repository, digest in (first, second):
        copier.stage(repository, digest, ())

    assert source.read[shared.descriptor.digest] == 1
    assert is_complete(no_mounts, *second)


def test_stage_blob_damaged_at_the_site_is_not_taken_from_there(source: Recording, no_mounts: NoMounts) -> None:
    first, second = push_pair(source, shared := layer("shared", 5000))
    copier = Copier(source, no_mounts)
    copier.stage(*first, ())
    path = no_mounts.root / APP / "blobs/sha256" / shared.descriptor.digest.hex
    path.write_bytes(b"!" * shared.descriptor.size)

    copier.stage(*second, ())

    assert source.read[shared.descriptor.digest] == 2
    with no_mounts.blob_get("acme/other", shared.descriptor.digest) as stream:
        assert b"".join(stream) == shared.content


def test_stage_slots_limit_the_blobs_of_all_artifacts(tmp_path: Path, source: Recording) -> None:
    images = [push_image(source, f"acme/app{n}", AMD64, [layer(f"{n}{k}", 2000) for k in range(4)]) for n in range(3)]

    class Counting(LayoutRegistry):
        now = most = 0
        guard = threading.Lock()

        def blob_put(self, repository: str, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
            with self.guard:
                self.now += 1
                self.most = max(self.most, self.now)
            time.sleep(0.005)
            super().blob_put(repository, descriptor, chunks)
            with self.guard:
                self.now -= 1

    with Counting(tmp_path / "counting") as target:
        copier = Copier(source, target, slots=threading.Semaphore(2))
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda n: copier.stage(f"acme/app{n}", images[n].digest, ()), range(3)))

        assert target.most == 2


def test_stage_reserves_the_bytes_of_each_blob_while_it_moves(source: Recording, target: Recording) -> None:
    image = push_image(source, APP, AMD64, [item := layer("a", 2000)])
    reserved: list[int] = []
    released: list[int] = []

    @contextmanager
    def reserve(count: int) -> Iterator[None]:
        reserved.append(count)
        yield
        released.append(count)

    copier = Copier(source, target, reserve=reserve)
    copier.stage(APP, image.digest, ())
    copier.stage(APP, image.digest, ())

    assert item.descriptor.size in reserved
    assert len(reserved) == 2
    assert sorted(released) == sorted(reserved)


def test_stage_without_room_reads_no_blob(source: Recording, target: Recording) -> None:
    image = push_image(source, APP, AMD64, [layer("a", 2000)])

    def reserve(count: int) -> AbstractContextManager[None]:
        raise StorageError(f"no room for {count} bytes")

    with pytest.raises(StorageError, match="no room"):
        Copier(source, target, reserve=reserve).stage(APP, image.digest, ())

    assert source.read == Counter()
    assert target.repository_list() == ()


def test_stage_of_a_part_counts_what_crossed(
    tmp_path: Path, fake: FakeRegistry, fake_source: HttpRegistry, target: Recording
) -> None:
    content = bytes(index % 251 for index in range(300_000))
    digest = fake_image(fake, item := fake.add_blob(APP, content))
    partials = PartialFolder(tmp_path / "partials")
    with partials.open(item) as partial:
        partial.append(content[:200_000])

    result = Copier(fake_source, target, partials=partials).stage(APP, digest, ())

    assert result.bytes_copied == fake_source.counters.bytes_read < 102_000
    assert is_complete(target, APP, digest)


def test_stage_every_platform_is_needed_but_not_there_says_so(source: Recording) -> None:
    lost = layer("arm64", 2000)
    children = [push_image(source, APP, AMD64, [layer("amd64", 2000)]), push_image(source, APP, ARM64, [lost])]
    index = push_index(source, APP, "v1", children)
    (source.root / APP / "blobs/sha256" / lost.descriptor.digest.hex).unlink()
    fake = FakeRegistry()
    fake.misbehave(rf"PUT .*/manifests/{index.digest}", FakeReply(400))

    with fake.serving() as url, HttpRegistry(url) as target, pytest.raises(RemoteError) as caught:
        Copier(source, target, platforms=(AMD64,)).stage(APP, index.digest, ())

    assert (caught.value.status, caught.value.retryable) == (404, False)
    message = str(caught.value)
    assert f"{target.name} takes no index without all its children" in message
    assert f"{APP}@{index.digest}" in message
    assert lost.descriptor.digest.hex in message


def test_stage_fresh_image_asks_each_registry_only_what_it_must(fake: FakeRegistry, fake_source: HttpRegistry) -> None:
    digest = fake_image(fake, fake.add_blob(APP, b"layer"))
    site = FakeRegistry()

    with site.serving() as url, HttpRegistry(url) as target:
        Copier(fake_source, target).stage(APP, digest, ())

    assert Counter(request.method for request in fake.requests) == {"GET": 3}
    assert Counter(request.method for request in site.requests) == {"GET": 1, "POST": 2, "PUT": 3}


def test_stage_blob_truncated_at_the_site_is_sent_again(fake: FakeRegistry, fake_source: HttpRegistry) -> None:
    content = b"layer" * 1000
    digest = fake_image(fake, fake.add_blob(APP, content))
    site = FakeRegistry()
    site.blobs[APP] = {str(Digest.of(content)): content[:-1]}

    with site.serving() as url, HttpRegistry(url) as target:
        Copier(fake_source, target).stage(APP, digest, ())

        assert is_complete(target, APP, digest)


def test_stage_blob_that_is_there_is_not_fetched(fake: FakeRegistry, fake_source: HttpRegistry) -> None:
    content = b"layer" * 1000
    digest = fake_image(fake, fake.add_blob(APP, content))
    site = FakeRegistry()
    site.add_blob(APP, content)

    with site.serving() as url, HttpRegistry(url) as target:
        result = Copier(fake_source, target).stage(APP, digest, ())

    assert result.blobs_copied == 1  # its configuration
    assert fake.seen(f"GET .*/blobs/{Digest.of(content)}") == []


def test_publish_tags_content_given_is_not_read_again(fake: FakeRegistry) -> None:
    digest = fake_image(fake, fake.add_blob(APP, b"layer"))

    with fake.serving() as url, HttpRegistry(url) as target:
        content = target.manifest_get(APP, str(digest))
        before = len(fake.requests)
        publish_tags(target, APP, digest, ("1", "2"), content)

        assert target.manifest_head(APP, "2") is not None
    assert [request.method for request in fake.requests[before:]] == ["PUT", "PUT", "HEAD"]
