"""States in each of their forms, pulled from a layout on disk; pushed to registries on loopback."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from harbor_satellite.demo.images import Blob, blob, push_manifest
from harbor_satellite.errors import (
    DigestMismatchError,
    HarborSatelliteError,
    MalformedStateError,
    RemoteError,
    SizeLimitError,
)
from harbor_satellite.oci import media_types
from harbor_satellite.oci.descriptor import Descriptor, descriptor_json
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.auth import Credentials
from harbor_satellite.registry.client import HttpRegistry
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.state_pull import pull_state
from harbor_satellite.registry.state_store import StatePusher, state_digest, state_manifest
from harbor_satellite.state.artifact import STATE_MAX_BYTES
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_wire import FakeReply
from tests.fixtures_registry import PASSWORD, USERNAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fixtures_registry import RunningRegistry

STATE = "satellite/group-state/stores/state"
RAW = b'{"group":"stores","registry":"","artifacts":[]}'
SECRET = "made-up-secret"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LayoutRegistry]:
    with LayoutRegistry(tmp_path / "registry", "harbor.test") as opened:
        yield opened


def tar(raw: bytes, name: str = "artifacts.json", **pax: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(raw)
        entry.pax_headers = pax
        archive.addfile(entry, io.BytesIO(raw))
    return buffer.getvalue()


def put_docker_image(registry: LayoutRegistry, *layers: Blob) -> Digest:
    """Push what the original pushes."""
    config = blob(media_types.DOCKER_CONFIG, b"{}")
    for item in (config, *layers):
        registry.blob_put(STATE, item.descriptor, [item.content])
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.DOCKER_MANIFEST,
        "config": descriptor_json(config.descriptor),
        "layers": [descriptor_json(item.descriptor) for item in layers],
    }
    content = ManifestContent(media_types.DOCKER_MANIFEST, json.dumps(document).encode())
    registry.manifest_put(STATE, "latest", content)
    return content.digest


def docker_layer(content: bytes) -> Blob:
    return blob(media_types.DOCKER_LAYER_GZIP, content)


def put_ours(registry: LayoutRegistry, raw: bytes) -> Digest:
    manifest, blobs = state_manifest(raw)
    for part, packed in zip([manifest["config"], manifest["layers"][0]], blobs, strict=True):
        registry.blob_put(STATE, Descriptor("", Digest.parse(part["digest"]), part["size"]), [packed])
    content = ManifestContent(media_types.OCI_MANIFEST, json.dumps(manifest).encode())
    registry.manifest_put(STATE, "latest", content)
    return content.digest


def test_pull_state_ours(registry: LayoutRegistry) -> None:
    digest = put_ours(registry, RAW)

    pulled = pull_state(registry, STATE, "latest")

    assert (pulled.raw, pulled.digest) == (RAW, digest)
    assert digest == state_digest(RAW)


def test_state_manifest_is_an_image_as_the_original_reads_it() -> None:
    manifest, (config, packed) = state_manifest(RAW)

    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        members = {item.name: archive.extractfile(item) for item in archive}
        assert {name: file.read() for name, file in members.items() if file} == {"artifacts.json": RAW}
    assert manifest["mediaType"] == media_types.OCI_MANIFEST
    assert json.loads(config)["rootfs"]["diff_ids"] == [str(Digest.of(gzip.decompress(packed)))]


def test_state_manifest_same_json_gives_same_bytes() -> None:
    assert state_manifest(RAW) == state_manifest(bytes(RAW))


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(tar(RAW)),
        gzip.compress(tar(RAW, "./artifacts.json")),
        gzip.compress(tar(RAW, "/artifacts.json")),
        tar(RAW),
    ],
    ids=["as the original", "dot in front", "slash in front", "not packed"],
)
def test_pull_state_of_the_original(registry: LayoutRegistry, content: bytes) -> None:
    digest = put_docker_image(registry, docker_layer(content))

    pulled = pull_state(registry, STATE, "latest")

    assert (pulled.raw, pulled.digest) == (RAW, digest)


def test_pull_state_oras_artifact_of_bare_json(registry: LayoutRegistry) -> None:
    pushed = push_manifest(registry, STATE, blob(media_types.OCI_EMPTY, b"{}"), [blob("application/vnd.x+json", RAW)])

    assert pull_state(registry, STATE, str(pushed.digest)).raw == RAW


@pytest.mark.parametrize("count", [0, 2])
def test_pull_state_other_number_of_layers_is_refused(registry: LayoutRegistry, count: int) -> None:
    put_docker_image(registry, *[docker_layer(gzip.compress(tar(RAW + b" " * n))) for n in range(count)])

    with pytest.raises(MalformedStateError, match=f"{count} layers instead of one"):
        pull_state(registry, STATE, "latest")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"\x1f\x8bgarbage",
        gzip.compress(b"garbage"),
        gzip.compress(tar(RAW))[:-20],
        gzip.compress(tar(RAW, "other.json")),
        gzip.compress(tar(RAW, "../artifacts.json.d/x")),
        gzip.compress(tar(RAW)[:540]),
    ],
    ids=["empty", "garbage", "garbled gzip", "no tar", "gzip cut", "other file", "path", "tar cut"],
)
def test_pull_state_layer_without_state_is_refused(registry: LayoutRegistry, content: bytes) -> None:
    put_docker_image(registry, docker_layer(content))

    with pytest.raises(MalformedStateError, match="is no state"):
        pull_state(registry, STATE, "latest")


@pytest.mark.parametrize(
    "levels",
    [
        pytest.param(1, id="packed once"),
        pytest.param(2, id="packed twice"),
    ],
)
def test_pull_state_zip_bomb_is_refused(registry: LayoutRegistry, levels: int) -> None:
    content = tar(bytes(64 * 1024 * 1024))
    for _ in range(levels):
        content = gzip.compress(content)
    put_docker_image(registry, docker_layer(content))

    with pytest.raises((SizeLimitError, MalformedStateError)):
        pull_state(registry, STATE, "latest")


def test_pull_state_bomb_behind_xz_is_not_unpacked(registry: LayoutRegistry) -> None:
    put_docker_image(registry, docker_layer(lzma.compress(tar(bytes(64 * 1024 * 1024), "big") + tar(RAW))))

    with pytest.raises(MalformedStateError, match="does not unpack"):
        pull_state(registry, STATE, "latest")


def chained_long_names(count: int) -> bytes:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = b"L", 10
    return (header.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")) * count


@pytest.mark.parametrize(
    "content",
    [tar(RAW, **{"GNU.sparse.map": "x,y"}), chained_long_names(3000)],
    ids=["sparse map of no numbers", "headers that nest"],
)
def test_pull_state_hostile_tar_leaks_nothing_else(registry: LayoutRegistry, content: bytes) -> None:
    put_docker_image(registry, docker_layer(gzip.compress(content)))

    with pytest.raises(HarborSatelliteError):
        pull_state(registry, STATE, "latest")


def test_pull_state_layer_declared_too_large_is_not_asked_for() -> None:
    fake = FakeRegistry()
    part = Descriptor("application/json", Digest.of(b"x"), STATE_MAX_BYTES * 2)
    fake.add_manifest(STATE, json.dumps({"layers": [descriptor_json(part)]}).encode(), "latest")

    with fake.serving() as url, HttpRegistry(url) as source, pytest.raises(SizeLimitError, match="has a layer of"):
        pull_state(source, STATE, "latest")

    assert fake.seen("GET .*/blobs/.*") == []


@pytest.mark.parametrize("content", [b"other" * 10, RAW + b" ", RAW[:-1]], ids=["other", "longer", "shorter"])
def test_pull_state_layer_with_other_bytes_is_refused(content: bytes) -> None:
    fake = FakeRegistry()
    fake.add_blob(STATE, content, digest=Digest.of(RAW))
    part = Descriptor("application/json", Digest.of(RAW), len(RAW))
    fake.add_manifest(STATE, json.dumps({"layers": [descriptor_json(part)]}).encode(), "latest")

    with (
        fake.serving() as url,
        HttpRegistry(url) as source,
        pytest.raises((DigestMismatchError, SizeLimitError, RemoteError)),
    ):
        pull_state(source, STATE, "latest")


def test_pull_state_missing_is_not_found(registry: LayoutRegistry) -> None:
    with pytest.raises(RemoteError) as raised:
        pull_state(registry, STATE, "latest")

    assert raised.value.status == 404


def pusher(url: str, username: str = "robot$edge", secret: str = SECRET) -> StatePusher:
    credentials = Credentials(username, SecretStr(secret)) if username else None
    return StatePusher(url.removeprefix("http://"), plain_http=True, credentials=credentials)


@pytest.mark.parametrize(
    "auth",
    [
        pytest.param("", id="open"),
        "basic",
        pytest.param("bearer"),
    ],
)
def test_push_state_then_pull_by_each_way_in(auth: str) -> None:
    fake = FakeRegistry(auth=auth)

    with fake.serving() as url:
        digest = pusher(url).push(STATE, ("1", "latest"), RAW)
        with HttpRegistry(url, credentials=Credentials("robot$edge", SecretStr(SECRET))) as source:
            pulled = [pull_state(source, STATE, reference) for reference in ("1", "latest", str(digest))]

    assert {(item.raw, item.digest) for item in pulled} == {(RAW, digest)}


def test_push_state_twice_gives_same_digest() -> None:
    fake = FakeRegistry()

    with fake.serving() as url:
        digests = {pusher(url).push(STATE, ("latest",), RAW) for _ in range(2)}

    assert digests == {state_digest(RAW)}
    assert set(fake.manifests[STATE]) == {str(state_digest(RAW))}


def test_push_state_moves_latest_last() -> None:
    fake = FakeRegistry()

    with fake.serving() as url:
        pusher(url).push(STATE, ("7", "latest"), RAW)

    assert [one.path.rpartition("/")[2] for one in fake.seen("PUT .*/manifests/.*")] == ["7", "latest"]


def test_push_state_to_embedded_registry_with_password(embedded_registry_with_password: RunningRegistry) -> None:
    url = embedded_registry_with_password.url

    digest = pusher(url, USERNAME, PASSWORD).push(STATE, ("latest",), RAW)

    with HttpRegistry(url) as source:
        assert pull_state(source, STATE, "latest").digest == digest


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_push_state_wrong_secret_is_an_error_without_it(auth: str) -> None:
    fake = FakeRegistry(auth=auth)

    with fake.serving() as url, pytest.raises(RemoteError) as raised:
        pusher(url, secret="another-made-up-one").push(STATE, ("latest",), RAW)

    assert not raised.value.retryable
    assert "another-made-up-one" not in str(raised.value)
    assert STATE not in fake.manifests


@pytest.mark.parametrize(
    ("step", "status"),
    [
        ("PUT .*/manifests/.*", 500),
        ("PUT .*/manifests/.*", 503),
        pytest.param("PUT .*/manifests/.*", 429),
        pytest.param("POST .*/blobs/uploads/", 429),
        pytest.param("POST .*/blobs/uploads/", 503),
    ],
)
def test_push_state_refused_for_now_is_retryable(step: str, status: int) -> None:
    fake = FakeRegistry()
    fake.misbehave(step, FakeReply(status), times=10)

    with fake.serving() as url, pytest.raises(RemoteError) as raised:
        pusher(url).push(STATE, ("latest",), RAW)

    assert raised.value.retryable
    assert "latest" not in fake.tags.get(STATE, {})


def test_push_state_refused_for_good_is_not_retryable() -> None:
    fake = FakeRegistry()
    fake.misbehave("PUT .*/manifests/.*", FakeReply(403), times=10)

    with fake.serving() as url, pytest.raises(RemoteError) as raised:
        pusher(url).push(STATE, ("latest",), RAW)

    assert not raised.value.retryable


def test_push_state_nobody_there_is_retryable() -> None:
    with FakeRegistry().serving() as url:
        gone = url

    with pytest.raises(RemoteError) as raised:
        pusher(gone).push(STATE, ("latest",), RAW)

    assert raised.value.retryable
