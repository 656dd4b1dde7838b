"""The embedded registry is killed, and its disk runs full: what was published stays whole, the rest is absent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
SERVE = """
import sys
from pathlib import Path
from harbor_satellite.registry.layout import LayoutRegistry
from harbor_satellite.registry.server import serve
from harbor_satellite.registry.server_process import announce
with LayoutRegistry(Path(sys.argv[1]), requires_content=sys.argv[2] == "strict") as registry:
    serve(registry, "127.0.0.1", 0, allow_anonymous_writes=True, on_listening=announce)
"""


@contextlib.contextmanager
def embedded_registry(root: Path, mode: str = "strict") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the real server in a process of its own; gives its URL and the process, and ends it."""
    command = [sys.executable, "-c", SERVE, str(root), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on http://"), line
            yield line.removeprefix("listening on ").strip(), process
        finally:
            process.kill()


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def push_blob(client: httpx.Client, repository: str, content: bytes) -> dict[str, Any]:
    digest = digest_of(content)
    target = f"/v2/{repository}/blobs/uploads/"
    headers = {"content-type": "application/octet-stream"}
    client.post(target, params={"digest": digest}, content=content, headers=headers).raise_for_status()
    return {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}


def push_manifest(client: httpx.Client, repository: str, reference: str, manifest: dict[str, Any]) -> str:
    content = json.dumps(manifest).encode()
    headers = {"content-type": manifest["mediaType"]}
    name = reference or digest_of(content)
    client.put(f"/v2/{repository}/manifests/{name}", content=content, headers=headers).raise_for_status()
    return digest_of(content)


def push_image(client: httpx.Client, repository: str, tag: str, layer: bytes) -> dict[str, Any]:
    """Push a small image under a tag, or untagged; returns its descriptor."""
    parts = [push_blob(client, repository, f"config of {tag}".encode()), push_blob(client, repository, layer)]
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": parts[0], "layers": parts[1:]}
    digest = push_manifest(client, repository, tag, manifest)
    return {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(json.dumps(manifest))}


def assert_layouts_whole(root: Path) -> int:
    """Check what lies on the disk, with no help of the code under test; returns the number of tags."""
    tags = 0
    for path in root.glob("*/blobs/*/*"):
        assert hashlib.new(path.parent.name, path.read_bytes()).hexdigest() == path.name
    for path in root.glob("*/index.json"):
        waiting = json.loads(path.read_bytes())["manifests"]
        tags += sum("annotations" in entry for entry in waiting)
        while waiting:
            entry = waiting.pop()
            content = (path.parent / "blobs" / entry["digest"].replace(":", "/")).read_bytes()
            assert len(content) == entry["size"]
            if entry["mediaType"] in (OCI_MANIFEST, OCI_INDEX):
                manifest = json.loads(content)
                waiting += [manifest["config"], *manifest["layers"]] if "config" in manifest else manifest["manifests"]
    return tags


def assert_tags_resolve(client: httpx.Client, root: Path) -> None:
    for directory in root.glob("*/index.json"):
        repository = directory.parent.name
        listed = client.get(f"/v2/{repository}/tags/list")
        for tag in listed.json()["tags"] if listed.status_code == 200 else []:
            answer = client.get(f"/v2/{repository}/manifests/{tag}")
            assert (answer.status_code, digest_of(answer.content)) == (200, answer.headers["docker-content-digest"])


def push_until_killed(url: str, seed: int) -> None:
    """Push images, indexes and moving tags, and delete some, until the server is gone."""
    chance = random.Random(seed)  # noqa: S311, a test's own choice
    with contextlib.suppress(httpx.TransportError), httpx.Client(base_url=url, timeout=10) as client:
        for number in range(10_000):
            repository = f"repo{number % 3}"
            children = [push_image(client, repository, "", chance.randbytes(300_000)) for _ in range(2)]
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
            old = push_manifest(client, repository, f"v{seed}.{number}", index)
            push_manifest(client, repository, "latest", index)
            if number % 2:
                client.delete(f"/v2/{repository}/manifests/{old}")


def wait_for_tags(root: Path, count: int) -> None:
    """Wait until so many tags are there: how much is pushed in a second is the machine's choice."""
    deadline = time.monotonic() + 60
    while sum(path.read_text().count('"annotations"') for path in root.glob("*/index.json")) < count:
        assert time.monotonic() < deadline, f"there are no {count} tags"
        time.sleep(0.02)


def test_embedded_registry_killed_while_pushing_keeps_every_tag_whole(tmp_path: Path) -> None:
    root = tmp_path / "registry"
    chance = random.Random(7)  # noqa: S311, a test's own choice
    tags = 0

    for seed in range(6):
        with embedded_registry(root) as (url, process):
            with httpx.Client(base_url=url) as client:
                assert_tags_resolve(client, root)
            pushers = [threading.Thread(target=push_until_killed, args=(url, 10 * seed + one)) for one in range(2)]
            for pusher in pushers:
                pusher.start()
            wait_for_tags(root, tags + 3)
            time.sleep(chance.uniform(0, 0.9))
            process.send_signal(signal.SIGKILL)
            process.wait()
            for pusher in pushers:
                pusher.join()
        tags = assert_layouts_whole(root)

    assert tags > 10
    with embedded_registry(root) as (url, process), httpx.Client(base_url=url) as client:
        assert_tags_resolve(client, root)
        push_image(client, "repo0", "after", b"after the crashes")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_embedded_registry_upload_survives_kill(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(400_000)  # noqa: S311, a test's own choice
    with embedded_registry(tmp_path) as (url, process), httpx.Client(base_url=url) as client:
        session = client.post("/v2/acme/app/blobs/uploads/").headers["location"]
        first = client.patch(session, content=content[:250_000], headers={"content-range": "0-249999"})
        assert first.status_code == 202
        process.kill()

    with embedded_registry(tmp_path) as (url, _), httpx.Client(base_url=url) as client:
        status = client.get(session)
        last = client.put(session, params={"digest": digest_of(content)}, content=content[250_000:])

    assert (status.status_code, status.headers["range"]) == (204, "0-249999")
    assert last.status_code == 201


def test_embedded_registry_upload_cut_in_the_middle_keeps_what_arrived(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(400_000)  # noqa: S311, a test's own choice
    with embedded_registry(tmp_path) as (url, _), httpx.Client(base_url=url) as client:
        session = client.post("/v2/acme/app/blobs/uploads/").headers["location"]
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as cut:
            cut.sendall(f"PATCH {session} HTTP/1.1\r\nhost: site\r\ncontent-length: 400000\r\n\r\n".encode())
            cut.sendall(content[:250_000])
        deadline = time.monotonic() + 5
        while (status := client.get(session)).headers["range"] != "0-249999" and time.monotonic() < deadline:
            time.sleep(0.05)
        last = client.put(session, params={"digest": digest_of(content)}, content=content[250_000:])

    assert status.headers["range"] == "0-249999"
    assert last.status_code == 201


def test_embedded_registry_second_process_is_refused(tmp_path: Path) -> None:
    with embedded_registry(tmp_path):
        command = [sys.executable, "-c", SERVE, str(tmp_path), "strict"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert second.returncode != 0
    assert f"another process owns the registry at {tmp_path}" in second.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount 8 MiB of memory as a file system."""
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("needs root and mount(8) to make a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("way", ["post", "chunk", "stream"])
def test_embedded_registry_disk_full_refuses_and_recovers(small_disk: Path, way: str) -> None:
    large = random.Random(2).randbytes(12_000_000)  # noqa: S311, a test's own choice
    with embedded_registry(small_disk) as (url, _), httpx.Client(base_url=url, timeout=30) as client:
        push_image(client, "acme", "small", b"x" * 2_000_000)
        free_before = shutil.disk_usage(small_disk).free

        if way == "post":
            refused = client.post("/v2/acme/blobs/uploads/", params={"digest": digest_of(large)}, content=large)
        else:
            session = client.post("/v2/acme/blobs/uploads/").headers["location"]
            headers = {"content-range": f"0-{len(large) - 1}"} if way == "chunk" else {}
            refused = client.patch(session, content=large, headers=headers)

        assert refused.status_code == 507, refused.text
        assert "no space left" in refused.json()["errors"][0]["message"]
        assert shutil.disk_usage(small_disk).free > free_before - 100_000
        assert client.get("/v2/acme/manifests/small").status_code == 200
        assert len(client.get(f"/v2/acme/blobs/{digest_of(b'x' * 2_000_000)}").content) == 2_000_000

        push_image(client, "acme", "second", b"y" * 4_000_000)
        assert assert_layouts_whole(small_disk) == 2


def test_embedded_registry_disk_full_index_stays_whole(small_disk: Path) -> None:
    with embedded_registry(small_disk) as (url, _), httpx.Client(base_url=url, timeout=30) as client:
        push_image(client, "acme", "kept", b"kept")
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 4096):
                pass

        config = {"mediaType": "application/json", "digest": digest_of(b"config of kept"), "size": 14}
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}
        refused = client.put(
            "/v2/acme/manifests/new", content=json.dumps(manifest), headers={"content-type": OCI_MANIFEST}
        )

        assert refused.status_code == 507, refused.text
        assert client.get("/v2/acme/tags/list").json()["tags"] == ["kept"]
        filler.unlink()
        push_manifest(client, "acme", "new", manifest)
        assert client.get("/v2/acme/tags/list").json()["tags"] == ["kept", "new"]
        assert assert_layouts_whole(small_disk) == 2
