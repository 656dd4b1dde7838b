"""The HTTP client against real registries: CNCF distribution, Zot and our own."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from harbor_satellite.errors import DigestMismatchError, RemoteError
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor, descriptor_json, index_bytes
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import CHUNK_BYTES, ManifestContent
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures_registry import RunningRegistry

REPOSITORY = "acme/app"
EMPTY = b"{}"


@pytest.fixture
def client(any_registry: RunningRegistry) -> Iterator[HttpRegistry]:
    with HttpRegistry(any_registry.url) as registry:
        yield registry


def push_blob(registry: HttpRegistry, content: bytes, media_type: str = media_types.OCI_LAYER_GZIP) -> Descriptor:
    descriptor = Descriptor(media_type, Digest.of(content), len(content))
    chunks = [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]
    registry.blob_put(REPOSITORY, descriptor, chunks)
    return descriptor


def push_image(
    registry: HttpRegistry,
    reference: str = "",
    *,
    media_type: str = media_types.OCI_MANIFEST,
    subject: Descriptor | None = None,
    content: bytes = b"a layer",
) -> Descriptor:
    is_docker = media_type == media_types.DOCKER_MANIFEST
    config_type = media_types.DOCKER_CONFIG if is_docker else media_types.OCI_CONFIG
    layer_type = media_types.DOCKER_LAYER_GZIP if is_docker else media_types.OCI_LAYER_GZIP
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor_json(push_blob(registry, b'{"architecture":"amd64","os":"linux"}', config_type)),
        "layers": [descriptor_json(push_blob(registry, content, layer_type))],
    }
    if subject:
        document |= {"artifactType": "application/vnd.example.signature", "subject": descriptor_json(subject)}
    raw = json.dumps(document).encode()
    digest = Digest.of(raw)
    registry.manifest_put(REPOSITORY, reference or str(digest), ManifestContent(media_type, raw))
    return Descriptor(media_type, digest, len(raw))


def read(registry: HttpRegistry, digest: Digest, offset: int = 0) -> tuple[int, bytes]:
    with registry.blob_get(REPOSITORY, digest, offset) as stream:
        return stream.offset, b"".join(stream)


@pytest.mark.parametrize("size", [0, 1, 300_000, 3 * CHUNK_BYTES + 7], ids=["empty", "byte", "small", "chunks"])
def test_blob_put_any_size_comes_back(client: HttpRegistry, size: int) -> None:
    content = bytes(index % 251 for index in range(size))

    pushed = push_blob(client, content)

    assert client.blob_head(REPOSITORY, pushed.digest) == size
    assert read(client, pushed.digest) == (0, content)


def test_blob_put_wrong_bytes_keeps_nothing(client: HttpRegistry) -> None:
    descriptor = Descriptor(media_types.OCI_LAYER_GZIP, Digest.of(b"right"), 5)

    with pytest.raises(DigestMismatchError):
        client.blob_put(REPOSITORY, descriptor, [b"wrong"])

    assert client.blob_head(REPOSITORY, descriptor.digest) is None


@pytest.mark.parametrize("offset", [1, 700_000, 999_999, 1_000_000], ids=["second", "middle", "last", "end"])
def test_blob_get_from_offset_gives_the_rest(client: HttpRegistry, offset: int) -> None:
    content = bytes(index % 239 for index in range(1_000_000))
    pushed = push_blob(client, content)

    start, rest = read(client, pushed.digest, offset)

    assert start == offset
    assert rest == content[offset:]


def test_blob_get_unknown_is_404(client: HttpRegistry) -> None:
    push_image(client, "1")

    with pytest.raises(RemoteError, match="refused with status 404: BLOB_UNKNOWN") as caught:
        read(client, Digest.of(b"nobody has this"))

    assert caught.value.status == 404
    assert not caught.value.retryable


def test_blob_mount_other_repository_has_it(client: HttpRegistry) -> None:
    image = push_image(client, "1")
    layer = Digest.of(b"a layer")

    mounted = client.blob_mount("acme/other", layer, REPOSITORY)

    assert mounted
    assert client.blob_head("acme/other", layer) == len(b"a layer")
    assert client.manifest_head(REPOSITORY, "1") == image


def test_blob_mount_unknown_is_false(client: HttpRegistry) -> None:
    push_image(client, "1")

    assert not client.blob_mount("acme/other", Digest.of(b"nobody has this"), REPOSITORY)


def test_blob_delete_twice_second_is_false(client: HttpRegistry) -> None:
    pushed = push_blob(client, b"unreferenced")

    assert client.blob_delete(REPOSITORY, pushed.digest)
    assert not client.blob_delete(REPOSITORY, pushed.digest)


@pytest.mark.parametrize("media_type", sorted(media_types.IMAGES))
def test_manifest_put_image_keeps_bytes_and_kind(client: HttpRegistry, media_type: str) -> None:
    pushed = push_image(client, "1", media_type=media_type)

    by_tag = client.manifest_get(REPOSITORY, "1")
    by_digest = client.manifest_get(REPOSITORY, str(pushed.digest))

    assert by_tag == by_digest
    assert (by_tag.media_type, by_tag.digest) == (media_type, pushed.digest)
    assert client.manifest_head(REPOSITORY, "1") == pushed


@pytest.mark.parametrize("media_type", sorted(media_types.INDEXES))
def test_manifest_put_index_keeps_bytes_and_kind(client: HttpRegistry, media_type: str) -> None:
    kind = media_types.OCI_MANIFEST if media_type == media_types.OCI_INDEX else media_types.DOCKER_MANIFEST
    children = [push_image(client, media_type=kind, content=name) for name in (b"one", b"two")]
    raw = index_bytes(children).replace(media_types.OCI_INDEX.encode(), media_type.encode())

    client.manifest_put(REPOSITORY, "multi", ManifestContent(media_type, raw))

    assert client.manifest_get(REPOSITORY, "multi") == ManifestContent(media_type, raw)


def test_manifest_get_unknown_is_404(client: HttpRegistry) -> None:
    push_image(client, "1")

    with pytest.raises(RemoteError, match=f"{REPOSITORY}:2: refused with status 404: MANIFEST_UNKNOWN"):
        client.manifest_get(REPOSITORY, "2")

    assert client.manifest_head(REPOSITORY, "2") is None
    assert client.manifest_head("acme/unknown", "2") is None


def test_manifest_delete_twice_second_is_false(client: HttpRegistry) -> None:
    pushed = push_image(client, "1")

    assert client.manifest_delete(REPOSITORY, str(pushed.digest))
    assert not client.manifest_delete(REPOSITORY, str(pushed.digest))
    assert client.manifest_head(REPOSITORY, "1") is None


def test_manifest_delete_tag_leaves_the_other(client: HttpRegistry) -> None:
    pushed = push_image(client, "1")
    push_image(client, "2")

    assert client.manifest_delete(REPOSITORY, "1")
    assert client.manifest_head(REPOSITORY, "1") is None
    assert client.manifest_head(REPOSITORY, "2") == pushed


def test_referrer_list_two_pushed_at_once_has_both(client: HttpRegistry) -> None:
    subject = push_image(client, "1")

    with ThreadPoolExecutor(4) as pool:
        pushed = list(pool.map(lambda name: push_image(client, subject=subject, content=name), [b"sbom", b"signature"]))
    listed = client.referrer_list(REPOSITORY, subject.digest)

    assert {one.digest for one in listed} == {one.digest for one in pushed}
    assert {one.artifact_type for one in listed} == {"application/vnd.example.signature"}


def test_referrer_list_nothing_there_is_empty(client: HttpRegistry) -> None:
    subject = push_image(client, "1")

    assert client.referrer_list(REPOSITORY, subject.digest) == ()
    assert client.referrer_list("acme/unknown", subject.digest) == ()


def test_tag_list_pages_are_followed(client: HttpRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harbor_satellite.registry.client.PAGE_SIZE", 3)
    push_image(client, "0")
    content = client.manifest_get(REPOSITORY, "0")
    for tag in range(1, 10):
        client.manifest_put(REPOSITORY, str(tag), content)
    before = client.counters.requests

    tags = client.tag_list(REPOSITORY)

    assert tags == tuple(str(tag) for tag in range(10))
    assert client.counters.requests - before >= 4
    assert client.tag_list("acme/unknown") == ()


def test_repository_list_names_what_was_pushed(client: HttpRegistry) -> None:
    push_image(client, "1")

    assert client.repository_list() == (REPOSITORY,)


def test_many_threads_share_one_client(client: HttpRegistry) -> None:
    contents = [bytes([number]) * 200_000 for number in range(40)]

    with ThreadPoolExecutor(8) as pool:
        pushed = list(pool.map(lambda content: push_blob(client, content), contents))
        pulled = list(pool.map(lambda one: read(client, one.digest)[1], pushed))

    assert pulled == contents


@pytest.mark.parametrize(
    "fixture",
    [
        "cncf_registry_with_password",
        pytest.param("zot_registry_with_password", marks=pytest.mark.zot),
        "embedded_registry_with_password",
    ],
)
def test_registry_with_password(request: pytest.FixtureRequest, fixture: str) -> None:
    running: RunningRegistry = request.getfixturevalue(fixture)
    right = Credentials(running.username, SecretStr(running.password))
    wrong = Credentials(running.username, SecretStr("wrong"))

    with HttpRegistry(running.url, credentials=right) as client:
        pushed = push_image(client, "1")
        assert client.manifest_head(REPOSITORY, "1") == pushed
    for credentials in (wrong, None):
        with HttpRegistry(running.url, credentials=credentials) as client, pytest.raises(RemoteError) as caught:
            push_image(client, "2")
        assert (caught.value.status, caught.value.retryable) == (401, False)
