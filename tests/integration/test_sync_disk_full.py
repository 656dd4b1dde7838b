"""`edge sync` on a full disk: a clear error, the good image arrives, nothing half-published, room heals it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from harbor_satellite.demo import images
from harbor_satellite.registry.client import HttpRegistry
from tests.acceptance.pulling import pull
from tests.fakes.link import link
from tests.fixtures_registry import PASSWORD, USERNAME, run_embedded
from tests.integration.test_embedded_registry_crash import small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.fakes.link import Link
    from tests.fixtures_registry import RunningRegistry

__all__ = ["small_disk"]

SYNC = (sys.executable, "-c", "from harbor_satellite.cli import main; main()", "edge", "sync")


def sync(state: Path, target: RunningRegistry, data_dir: Path, **settings: str) -> tuple[int, dict[str, Any]]:
    done = run_sync(state, target, data_dir, **settings)
    return done.returncode, json.loads(done.stdout)


def run_sync(state: Path, target: RunningRegistry, data_dir: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "HARBOR_SATELLITE_LOCAL_REGISTRY_USERNAME": USERNAME,
        "HARBOR_SATELLITE_LOCAL_REGISTRY_PASSWORD": PASSWORD,
        **{f"HARBOR_SATELLITE_{name}": value for name, value in settings.items()},
    }
    arguments = ("--state", str(state), "--target", target.url, "--data-dir", str(data_dir), "--output", "json")
    return subprocess.run([*SYNC, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def state(tmp_path: Path, embedded_registry: RunningRegistry) -> Path:
    """A state with an image that fits on the small disk and one that does not."""
    artifacts = []
    with HttpRegistry(embedded_registry.url) as source:
        for name, size in (("acme/large", 12_000_000), ("acme/small", 1_000_000)):
            image = images.push_image(source, name, images.AMD64, [images.layer(name, size)])
            artifacts.append({"repository": name, "tag": ["v1"], "digest": str(image.digest)})
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"group": "g", "registry": embedded_registry.url, "artifacts": artifacts}))
    return path


def test_sync_disk_full_names_the_image_and_brings_the_others(state: Path, tmp_path: Path, small_disk: Path) -> None:
    with run_embedded(small_disk / "local", has_password=True) as target, HttpRegistry(target.url) as local:
        code, outcome = sync(state, target, tmp_path / "data")

        assert code == 1
        assert [item["reference"] for item in outcome["copied"]] == ["acme/small:v1"]
        (failed,) = outcome["failed"]
        assert failed["reference"] == "acme/large:v1"
        assert "no space left" in failed["reason"]
        assert local.tag_list("acme/large") == ()
        assert local.tag_list("acme/small") == ("v1",)


def test_sync_record_on_full_disk_publishes_nothing_it_would_forget(
    state: Path, tmp_path: Path, small_disk: Path
) -> None:
    (small_disk / "fill").write_bytes(b"x" * 8_380_000)
    with run_embedded(tmp_path / "local", has_password=True) as target, HttpRegistry(target.url) as local:
        arguments = ("--state", str(state), "--target", target.url, "--data-dir", str(small_disk / "data"))
        environment = {
            "HARBOR_SATELLITE_LOCAL_REGISTRY_USERNAME": USERNAME,
            "HARBOR_SATELLITE_LOCAL_REGISTRY_PASSWORD": PASSWORD,
        }
        while True:  # to the last byte
            try:
                with (small_disk / "fill").open("ab") as file:
                    file.write(b"x" * 4096)
            except OSError:
                break
        done = subprocess.run([*SYNC, *arguments], env=environment, capture_output=True, check=False, timeout=60)

        assert done.returncode == 1
        assert b"No space left on device" in done.stderr
        assert local.tag_list("acme/small") == ()


RESERVE_BYTES = 1_500_000


def write_state(path: Path, source: Link, images: Sequence[tuple[str, str, int | None]]) -> Path:
    """Write a state of (repository, digest, size)."""
    artifacts = [
        {"repository": repository, "tag": ["v1"], "digest": digest, "referrers": [], "size": size}
        for repository, digest, size in images
    ]
    path.write_text(json.dumps({"group": "g", "registry": source.url, "artifacts": artifacts}))
    return path


def push(registry: RunningRegistry, repository: str, *sizes: int) -> str:
    with HttpRegistry(registry.url) as source:
        layers = [images.layer(f"{repository} {number}", size) for number, size in enumerate(sizes)]
        return str(images.push_image(source, repository, images.AMD64, layers).digest)


def layers_asked_for(source: Link) -> int:
    return sum(one.startswith("GET ") and "/blobs/" in one for one in source.requests())


@pytest.fixture
def wan(embedded_registry: RunningRegistry) -> Iterator[Link]:
    with link(embedded_registry.host) as line:
        yield line


def test_sync_plan_that_does_not_fit_fails_before_a_layer_moves(
    tmp_path: Path, small_disk: Path, embedded_registry: RunningRegistry, wan: Link
) -> None:
    old = push(embedded_registry, "acme/old", 1_000_000)
    new = {name: push(embedded_registry, name, 3_500_000) for name in ("acme/one", "acme/two")}
    settings = {"STORAGE": str(small_disk), "DISK_RESERVE_BYTES": str(RESERVE_BYTES)}
    state = tmp_path / "state.json"
    with run_embedded(small_disk / "local", has_password=True) as target, HttpRegistry(target.url) as local:
        write_state(state, wan, [("acme/old", old, 1_001_000)])
        first, _ = sync(state, target, tmp_path / "data", **settings)
        wan.reset()
        write_state(state, wan, [(name, digest, 3_501_000) for name, digest in new.items()])

        done = run_sync(state, target, tmp_path / "data", **settings)

        assert (first, done.returncode) == (0, 1)
        assert "reserve" in done.stderr
        assert "7.0 MB" in done.stderr
        assert layers_asked_for(wan) == 0
        with httpx.Client(base_url=target.url, timeout=60.0, trust_env=False) as client:
            assert pull(client, "acme/old", "v1") == old
        assert [local.tag_list(name) for name in new] == [(), ()]


def test_sync_plan_whose_sizes_nobody_knows_keeps_the_reserve(
    tmp_path: Path, small_disk: Path, embedded_registry: RunningRegistry, wan: Link
) -> None:
    small, large = push(embedded_registry, "acme/small", 500_000), push(embedded_registry, "acme/large", 7_500_000)
    settings = {"STORAGE": str(small_disk), "DISK_RESERVE_BYTES": str(RESERVE_BYTES)}
    state = write_state(tmp_path / "state.json", wan, [("acme/small", small, None), ("acme/large", large, None)])
    with run_embedded(small_disk / "local", has_password=True) as target, HttpRegistry(target.url) as local:
        code, outcome = sync(state, target, tmp_path / "data", **settings)

        assert code == 1
        (failed,) = outcome["failed"]
        assert failed["reference"] == "acme/large:v1"
        assert "reserve" in failed["reason"]
        assert shutil.disk_usage(small_disk).free >= RESERVE_BYTES
        assert local.tag_list("acme/large") == ()


def test_sync_shared_layers_are_counted_once_against_the_disk(
    tmp_path: Path, small_disk: Path, embedded_registry: RunningRegistry, wan: Link
) -> None:
    names = [f"acme/app-{number}" for number in range(3)]
    with HttpRegistry(embedded_registry.url) as source:
        common = images.layer("common", 3_000_000)
        digests = {
            name: str(images.push_image(source, name, images.AMD64, [common, images.layer(name, 1000)]).digest)
            for name in names
        }
    state = write_state(tmp_path / "state.json", wan, [(name, digest, 3_002_000) for name, digest in digests.items()])
    settings = {"STORAGE": str(small_disk), "DISK_RESERVE_BYTES": str(RESERVE_BYTES)}
    with run_embedded(small_disk / "local", has_password=True) as target:
        code, outcome = sync(state, target, tmp_path / "data", **settings)

        assert (code, sorted(item["reference"] for item in outcome["copied"])) == (0, [f"{name}:v1" for name in names])
        assert shutil.disk_usage(small_disk).free >= RESERVE_BYTES


def test_sync_room_for_an_image_but_not_for_its_spool_brings_it_all_the_same(
    tmp_path: Path, small_disk: Path, embedded_registry: RunningRegistry, wan: Link
) -> None:
    digest = push(embedded_registry, "acme/app", 5_000_000)
    state = write_state(tmp_path / "state.json", wan, [("acme/app", digest, 5_001_000)])
    settings = {"STORAGE": str(small_disk), "DISK_RESERVE_BYTES": str(RESERVE_BYTES)}
    with run_embedded(small_disk / "local", has_password=True) as target, HttpRegistry(target.url) as local:
        done = run_sync(state, target, small_disk / "data", **settings)

        assert done.returncode == 0, done.stdout + done.stderr
        assert local.tag_list("acme/app") == ("v1",)
        assert shutil.disk_usage(small_disk).free >= RESERVE_BYTES
