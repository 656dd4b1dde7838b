from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from harbor_satellite.errors import InvalidInputError, StorageError
from harbor_satellite.host_config.rendered import MirrorSettings
from harbor_satellite.satellite.runtime_wish import RuntimeWish, parse_wish, read_wish, wish_bytes
from tests.unit.host_config.pem import KEY, PEM

if TYPE_CHECKING:
    from pathlib import Path

WISH = RuntimeWish(("containerd", "podman"), MirrorSettings("https://10.0.0.1:8585", ("docker.io", "a.b:1"), ca=PEM))
LOCAL = RuntimeWish(("docker",), MirrorSettings("http://127.0.0.1:8585"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "runtimes.json"
    file.write_bytes(wish_bytes(LOCAL))
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("wish", [WISH, LOCAL])
def test_wish_reads_as_it_was_written(wish: RuntimeWish) -> None:
    assert parse_wish(wish_bytes(wish)) == wish


@pytest.mark.parametrize(
    "change",
    [
        {"runtimes": ["containerd", "rm"]},
        {"runtimes": "containerd"},
        {"runtimes": [["containerd"]]},
        {"local_url": "http://10.0.0.1:8585"},
        {"local_url": "http://127.0.0.1.evil.example"},
        {"local_url": 7},
        {"local_url": 'http://127.0.0.1:1"\n[x]'},
        {"registries": ["docker.io/../.."]},
        {"registries": ["../../etc"]},
        {"registries": ["a"] * 101},
        {"is_fallback": "yes"},
        {"ca": "/etc/shadow"},
        {"local_url": "https://10.0.0.1", "ca": "/etc/shadow"},
        {"local_url": "https://10.0.0.1", "ca": PEM + KEY},
        {"more": 1},
    ],
    ids=str,
)
def test_parse_wish_anything_but_a_wish_is_refused(change: dict[str, Any]) -> None:
    document = json.loads(wish_bytes(LOCAL)) | change

    with pytest.raises(InvalidInputError):
        parse_wish(json.dumps(document).encode())


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"{}", b"[" * 100_000, b"\xff"])
def test_parse_wish_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_wish(raw)


def test_read_wish_of_the_folders_owner(path: Path) -> None:
    assert read_wish(path) == LOCAL


def test_read_wish_link_is_not_followed(path: Path) -> None:
    link = path.parent / "link.json"
    link.symlink_to(path)

    with pytest.raises(StorageError):
        read_wish(link)


def test_read_wish_second_name_of_another_file_is_refused(path: Path) -> None:
    os.link(path, path.parent / "second.json")

    with pytest.raises(InvalidInputError, match="file of its own"):
        read_wish(path)


def test_read_wish_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(InvalidInputError, match="file of its own"):
        read_wish(tmp_path / "pipe")


def test_read_wish_that_others_may_write_is_refused(path: Path) -> None:
    path.chmod(0o666)

    with pytest.raises(InvalidInputError, match="by others"):
        read_wish(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_read_wish_of_a_stranger_is_refused(path: Path) -> None:
    os.chown(path, 4321, 4321)

    with pytest.raises(InvalidInputError, match="by others"):
        read_wish(path)


def test_read_wish_too_large_is_refused(path: Path) -> None:
    path.write_bytes(b" " * (256 * 1024 + 1))

    with pytest.raises(InvalidInputError, match="larger"):
        read_wish(path)
