from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest

from ci.errors import PipelineError
from ci.manifests import Child, children, is_image, only_child, read_archive, size_bytes

INDEX = "application/vnd.oci.image.index.v1+json"


def encoded(body: object) -> bytes:
    return json.dumps(body).encode()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def index(*platforms: dict[str, str]) -> bytes:
    manifests = [{"digest": f"sha256:{number}", "platform": each} for number, each in enumerate(platforms)]
    return encoded({"mediaType": INDEX, "manifests": manifests})


def packed(files: dict[str, bytes]) -> io.BytesIO:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    content.seek(0)
    return content


def layout(*blobs: bytes) -> io.BytesIO:
    """An OCI archive of these blobs, whose last one is the image."""
    files = {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in blobs}
    return packed(files | {"index.json": encoded({"manifests": [{"digest": digest(blobs[-1])}]})})


def test_children_index_names_platforms() -> None:
    found = children(
        index(
            {"os": "linux", "architecture": "riscv64"},
            {"os": "linux", "architecture": "arm64", "variant": "v8"},
            {"os": "linux", "architecture": "arm", "variant": "v7"},
            {"os": "unknown", "architecture": "unknown"},
        ),
        "app",
    )

    assert found == (
        Child("linux/riscv64", "sha256:0"),
        Child("linux/arm64", "sha256:1"),
        Child("linux/arm/v7", "sha256:2"),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "app is not JSON"),
        (b"[]", "app is no JSON object"),
        (b"{}", "app is no image index"),
        (b'{"manifests": [{"platform": {}}]}', "app is a malformed image index"),
    ],
    ids=["no-json", "no-object", "no-index", "no-architecture"],
)
def test_children_other_content_is_named(content: bytes, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        children(content, "app")


def test_size_bytes_manifest_counts_itself_config_and_layers() -> None:
    manifest = encoded({"config": {"size": 10}, "layers": [{"size": 200}, {"size": 3000}]})

    assert size_bytes(manifest, "app") == len(manifest) + 3210


def test_size_bytes_index_is_refused() -> None:
    with pytest.raises(PipelineError, match="app is no image's manifest"):
        size_bytes(index(), "app")


def test_read_archive_index_has_digests_and_sizes() -> None:
    manifest = encoded({"config": {"size": 10}, "layers": [{"size": 5}]})
    platform = {"os": "linux", "architecture": "amd64"}
    body = encoded({"mediaType": INDEX, "manifests": [{"digest": digest(manifest), "platform": platform}]})

    archive = read_archive(layout(manifest, body), "a.tar")

    assert archive.digest == digest(body)
    assert archive.children == (Child("linux/amd64", digest(manifest)),)
    assert archive.sizes_bytes == {"linux/amd64": len(manifest) + 15}


def test_read_archive_single_manifest_reads_platform_of_its_config() -> None:
    config = encoded({"os": "linux", "architecture": "s390x"})
    manifest = encoded({"config": {"digest": digest(config), "size": len(config)}, "layers": []})

    archive = read_archive(layout(config, manifest), "a.tar")

    assert archive.children == (Child("linux/s390x", digest(manifest)),)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("application/vnd.oci.image.config.v1+json", True),
        ("application/vnd.docker.container.image.v1+json", True),
        ("application/vnd.cncf.helm.config.v1+json", False),
    ],
    ids=["oci", "docker", "chart"],
)
def test_is_image_config_decides(config: str, *, expected: bool) -> None:
    assert is_image(encoded({"config": {"mediaType": config}}), "app") is expected


def test_only_child_of_a_chart_is_refused() -> None:
    with pytest.raises(PipelineError, match="app is no image: its config has no 'os'"):
        only_child(b'{"name": "chart"}', "sha256:0", "app")


@pytest.mark.parametrize(
    "file",
    [io.BytesIO(b"no tar"), packed({}), packed({"index.json": b'{"manifests": []}'})],
    ids=["no-tar", "empty", "no-image"],
)
def test_read_archive_other_file_is_named(file: io.BytesIO) -> None:
    with pytest.raises(PipelineError, match=r"a\.tar is no OCI archive with one image"):
        read_archive(file, "a.tar")
